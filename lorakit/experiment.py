"""One experiment: a base, a task, a method and a seed in; what the run taught and cost out.

    load -> judge and ask the base -> train -> judge and ask the tuned model -> measure the delta

The method decides two lines: what is made trainable, and what is written to disk.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lorakit import parallel
from lorakit.begin import base_of, make_trainable
from lorakit.checkpoint import load_base
from lorakit.counts import count
from lorakit.device import describe, pick_device
from lorakit.generation import ask
from lorakit.history import StepRecord
from lorakit.kept import claimed, keep, keep_json, telling
from lorakit.lora import ALL_LINEAR, lora_layers, target_layers
from lorakit.memory import Recorder, Setup, StepMemory
from lorakit.model import Llama
from lorakit.qlora import quantized_form
from lorakit.resume import load_checkpoint
from lorakit.run import Answer, Progress, Result, Run, disk_bytes, stopped_run
from lorakit.scoring import Score, score
from lorakit.spectrum import Spectrum, singular_values, singular_values_of_product
from lorakit.survival import OutOfMemory, check_budget, lets_go, survive, there
from lorakit.tasks import load_task
from lorakit.text import Encoded, Example, Tokenizer, check_lengths, encode_batches, encode_example
from lorakit.train import Diverged, Training


class Stopped(Exception):
    """The run was stopped before its first step: there is nothing to show."""


@dataclass(frozen=True)
class _Ears:
    """Who listens to a run, who may end it, and the bytes that it may take, if anyone says."""

    report: Callable[[Progress], None]
    stop: Callable[[], bool]
    budget: int | None


@lets_go
@parallel.group()
def finetune(
    run: Run,
    *,
    out: Path | str | None = None,
    budget: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Do `run`, and leave adapter or weights, history and result in the folder `out`, if given.

    `stop` ends it between two micro-batches; in `out` it then leaves a checkpoint for `resume_run`.
    `budget` is how many bytes training may take, by default what the device has. Raises ValueError
    before anything is loaded for a bad task or a folder in use, Diverged if training blows up,
    OutOfMemory with a way out, Stopped if there was no first step, and Lost if another process of
    the run is gone.
    """
    load_task(run.task)  # a bad line is refused before a folder is made,
    parallel.rows(run.batch_size)  # and a batch that does not divide
    with claimed(out) as folder, telling(folder):
        return _experiment(run, folder, None, _Ears(report, parallel.heeding(stop), budget))


@lets_go
@parallel.group()
def resume_run(
    folder: Path | str,
    *,
    budget: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Take up the stopped run in `folder`; the same hooks and errors as `finetune`."""
    ears = _Ears(report, parallel.heeding(stop), budget)
    with telling(Path(folder)):
        with parallel.in_turn():
            run, before, answers = stopped_run(folder)
        return _experiment(run, Path(folder), (before, answers), ears)


def _experiment(
    run: Run, folder: Path | None, known: tuple[Score, list[Answer]] | None, ears: _Ears
) -> Result:
    if parallel.rank():
        ears = replace(ears, report=lambda progress: None)
    task, device = load_task(run.task, run.sample), pick_device()
    ears.report(Progress(stage="loading the base"))
    model, tokenizer = base_of(
        run, device, progress=lambda sentence: ears.report(Progress(stage=sentence))
    )
    if run.lora is not None:
        target_layers(model, run.lora.targets)  # a wrong name is refused before the base is judged
    batches = encode_batches(
        tokenizer, run.drawn(task.train), batch_size=run.batch_size, seed=run.seed
    )
    heldout = [encode_example(tokenizer, example) for example in task.heldout[: run.heldout]]
    asked = task.heldout[: run.answers]
    check_lengths([*batches.examples, *heldout], model.config.max_position_embeddings)
    own = replace(run, batch_size=parallel.rows(run.batch_size))
    setup = own.setup(model.config, batches.longest, device.type)
    check_budget(setup, there(model) if ears.budget is None else ears.budget)
    if known is None:
        before = _judge(model, heldout, tokenizer, "judging the base", ears)
        said = _ask(model, asked, tokenizer, "asking the base", ears)
        if before is None or len(said) < len(asked):
            raise Stopped("stopped before the first step: nothing was trained")
        answers = [
            Answer(prompt=e.prompt, expected=e.response, base=s)
            for e, s in zip(asked, said, strict=True)
        ]
        known = before, answers
    make_trainable(model, run)
    training = Training(model, batches, run.train_config(device.type))
    if folder is not None and (folder / "checkpoint").exists():
        load_checkpoint(training, folder / "checkpoint")
    result = Result(
        run=run,
        device=describe(device),
        model=model,
        tokenizer=tokenizer,
        parameters=count(model.config, run.lora),
        disk=disk_bytes(model.config, run.lora, quantized_form(model)),
        history=training.history,
        memory=None,
        before=known[0],
        answers=known[1],
    )
    try:
        result.memory = _train(training, setup, ears)
    except (Diverged, OutOfMemory):
        keep_json(folder, "history.json", training.history.to_json())
        raise
    except parallel.Lost:  # of what all had done, nothing is lost
        keep(result, training, folder)
        raise
    if folder is not None:  # at once: what training made outlives an error in what follows
        ears.report(Progress(stage="saving"))
        keep(result, training, folder)
    if training.position == run.steps:
        result.after = _judge(model, heldout, tokenizer, "judging the tuned model", ears)
        said = _ask(model, asked, tokenizer, "asking the tuned model", ears)
        result.answers[: len(said)] = [
            replace(answer, tuned=s) for answer, s in zip(result.answers, said, strict=False)
        ]
        keep_json(folder, "result.json", result.to_json())
    ears.report(Progress(stage="measuring the delta"))
    result.spectra = spectra(model, run.base)
    return result


def _judge(
    model: Llama, examples: Sequence[Encoded], tokenizer: Tokenizer, stage: str, ears: _Ears
) -> Score | None:
    def tell(done: int) -> None:
        ears.report(Progress(stage=stage, done=done, total=len(examples)))

    def judged() -> dict | None:
        tell(0)
        found = score(model, examples, pad_id=tokenizer.pad_id, stop=ears.stop, progress=tell)
        return None if found is None else asdict(found)

    found = parallel.told(judged)
    return None if found is None else Score(**found)


def _ask(
    model: Llama, examples: Sequence[Example], tokenizer: Tokenizer, stage: str, ears: _Ears
) -> list[str]:
    """Greedy answers; fewer than asked for if stopped on the way."""

    def asked() -> list[str]:
        answers: list[str] = []
        for example in examples:
            if ears.stop():
                break
            ears.report(Progress(stage=stage, done=len(answers), total=len(examples)))
            longest = 2 * len(tokenizer.encode(example.response)) + 8
            answers.append(ask(model, tokenizer, example.prompt, max_new_tokens=longest))
        return answers

    return parallel.told(asked)


def _train(training: Training, setup: Setup, ears: _Ears) -> StepMemory | None:
    total = training.config.steps

    def tell(record: StepRecord | None = None, recorder: Recorder | None = None) -> None:
        recent = [r.seconds for r in training.history.steps[-5:]]
        left = (total - training.position) * sum(recent) / len(recent) if recent else None
        ears.report(
            Progress(
                stage="training",
                done=training.position,
                total=total,
                seconds_left=left,
                losses=tuple(training.history.losses),
                memory=recorder.latest if recorder else None,
                followed=recorder.step if recorder else 0,
            )
        )

    tell()
    return survive(training, setup, budget=ears.budget, stop=ears.stop, on_step=tell).highest


@torch.no_grad()
def spectra(model: Llama, base: str) -> list[Spectrum]:
    """The singular values of what training changed, a layer each, largest first.

    An adapter's delta is a product, and its values come from its factors. Where every weight
    trained the delta is W - W_before, against the base loaded again.
    """

    def spectrum(name: str, weight: Tensor, values: Tensor) -> Spectrum:
        out_features, in_features = weight.shape
        return Spectrum(
            layer=name,
            shape=(out_features, in_features),
            values=tuple(values.tolist()),
            base_norm=weight.float().norm().item(),
        )

    if layers := lora_layers(model):
        return [
            spectrum(
                name,
                layer.base.weight,
                singular_values_of_product(layer.B, layer.A, layer.config.scale),
            )
            for name, layer in layers
        ]
    before = target_layers(load_base(base)[0], ALL_LINEAR)
    return [
        spectrum(
            name,
            before[name].weight,
            singular_values(layer.weight - before[name].weight.to(layer.weight)),
        )
        for name, layer in target_layers(model, ALL_LINEAR).items()
    ]
