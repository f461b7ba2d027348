"""Commands that load weights: train them, fold an adapter into them, ask them."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.filesize import decimal

from lorakit import experiment, parallel
from lorakit.adapters import load_adapter
from lorakit.checkpoint import SMOLLM2, load_base
from lorakit.cli import folding
from lorakit.cli.options import (
    ADAPTER,
    Accumulation,
    Base,
    BatchSize,
    Checkpointing,
    Json,
    Method,
    Rank,
    Targets,
    parse_targets,
)
from lorakit.console import (
    INTERRUPTED,
    save_pictures,
    say,
    show_json,
    show_result,
    stop_on_interrupt,
    tell_progress,
    whole_characters,
)
from lorakit.device import pick_device
from lorakit.generation import stream
from lorakit.hf_folder import save_folder
from lorakit.lora import ALL_LINEAR
from lorakit.merge_cost import merge_cost
from lorakit.merging import merge_and_unload
from lorakit.model import Llama
from lorakit.qlora import dequantize_, quantize_
from lorakit.qlora_merge import ALL_PLACES, MergeError, merge_errors
from lorakit.run import RATES, Run
from lorakit.tasks import TASKS
from lorakit.text import Tokenizer
from lorakit.untie import untie

Rate = Annotated[float | None, typer.Option(help="Learning rate.", show_default=RATES)]
Fast = Annotated[
    bool, typer.Option("--fast/--taught", help="Adapters by fast.py, or as lora.py teaches them.")
]
Out = Annotated[Path | None, typer.Option(help="A new folder.", show_default="runs/TASK-METHOD")]


def finetune(
    context: typer.Context,
    base: Base = Run.base,
    task: Annotated[str, typer.Option(help=f"{TASKS}.")] = Run.task,
    method: Method = Run.method,
    rank: Rank = Run.rank,
    alpha: Annotated[float, typer.Option(help="B A counts alpha / rank.")] = Run.alpha,
    targets: Targets = ALL_LINEAR,
    lr: Rate = Run.lr,
    batch_size: BatchSize = Run.batch_size,
    accumulation: Accumulation = Run.accumulation,
    gradient_checkpointing: Checkpointing = Run.gradient_checkpointing,
    fast: Fast = Run.fast,
    steps: Annotated[int, typer.Option(help="Updates of the weights.")] = Run.steps,
    heldout: Annotated[int, typer.Option(help="Examples to judge by, at most.")] = Run.heldout,
    seed: Annotated[int, typer.Option(help="Of the adapter and the order.")] = Run.seed,
    out: Out = None,
    resume: Annotated[Path | None, typer.Option(help="A stopped run's folder.")] = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a base on a task, in full, with LoRA or QLoRA. Ctrl-C keeps a checkpoint."""
    with stop_on_interrupt() as stop:
        report = tell_progress()
        if resume is not None:
            _check_alone(context)
            folder, result = resume, experiment.resume_run(resume, stop=stop, report=report)
        else:
            run = Run(
                base=base,
                task=task,
                method=method,
                rank=rank,
                alpha=alpha,
                targets=parse_targets(targets),
                lr=lr,
                batch_size=batch_size,
                accumulation=accumulation,
                gradient_checkpointing=gradient_checkpointing,
                fast=fast,
                steps=steps,
                heldout=heldout,
                seed=seed,
            )
            folder = out or unused_folder(Path("runs") / f"{Path(task).stem}-{method}")
            result = experiment.finetune(run, out=folder, stop=stop, report=report)
        if parallel.rank():  # rank 0 shows it, and says how it ended
            return
        save_pictures(result, folder)
    show_result(result, folder, as_json)
    if stop() or len(result.history.steps) < result.run.steps:  # another process may have asked
        raise typer.Exit(INTERRUPTED)


def _check_alone(context: typer.Context) -> None:
    """Only --json may stand beside --resume: a stopped run has its settings."""
    origin = context.get_parameter_source
    given = {name for name in context.params if origin(name) == origin("resume")}
    if others := given - {"resume", "as_json"}:
        options = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in others))
        raise ValueError(f"--resume goes on with the run's own settings: leave out {options}")


def unused_folder(folder: Path) -> Path:
    """`folder`, or the first of folder-2, folder-3 and so on, that is empty or not there."""
    number, candidate = 1, folder
    while candidate.exists() and any(candidate.iterdir()):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


MERGED = ("float32", "bfloat16", "float16")  # dtypes of a merged model
LOST = 0.1  # of the delta: more than this is told in words


def merge(
    adapter: Annotated[Path, typer.Option(help=ADAPTER)],
    out: Annotated[
        Path | None, typer.Option(help="A new folder for the merged model; --dry-run needs none.")
    ] = None,
    base: Base = SMOLLM2,
    dtype: Annotated[str, typer.Option(help=f"{' or '.join(MERGED)}.")] = "float32",
    untied: Annotated[
        bool, typer.Option("--untie", help="Give a tied head weights of its own, to be adapted.")
    ] = False,
    dequantised: Annotated[
        bool,
        typer.Option("--dequantised", help="Into the base as a QLoRA run had it, made plain."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell all, write nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Fold an adapter into its base: one plain model, as fast as the base, as large as the base."""
    if out is None and not dry_run:
        raise ValueError("a merge needs --out, a new folder, or --dry-run, which writes nothing")
    if out is not None and out.exists():
        raise ValueError(f"{out} is there already: name a new folder")
    if dtype not in MERGED:
        raise ValueError(f"dtype must be {' or '.join(MERGED)}, got {dtype!r}")
    form = folding.trained_over(adapter) if dequantised else None

    def loaded(kind: torch.dtype) -> tuple[Llama, Tokenizer]:
        found = load_base(base, dtype=kind, progress=say)
        if untied:
            untie(found[0])
        return found

    wanted = getattr(torch, dtype)
    model, tokenizer = loaded(wanted if form is None else torch.float32)
    if form is not None:
        quantize_(model, **form)
        model.to(wanted)
    load_adapter(model, adapter)
    model.eval()
    try:
        asked = tokenizer.encode(tokenizer.prompt("What does a merge change?"))
    except ValueError:  # a base of few words, which are not these
        asked = list(range(min(16, model.config.vocab_size)))
    tokens = torch.tensor([asked])
    with torch.no_grad():
        adapted = model(tokens)
    errors: dict[str, MergeError] = {}
    if form is not None:
        original, _ = loaded(wanted)
        for place in ALL_PLACES:  # one by one: each is a whole model
            errors |= merge_errors(model, original, tokens, (place,))
        del original
        dequantize_(model)
    cost = merge_cost(model)
    if cost.loss > LOST:
        say(
            f"note: {cost.summary}: the merged model is not the one that was trained; merge with "
            "--dtype float32, or keep the adapter beside its base (lorakit generate --adapter)"
        )
    with torch.no_grad():
        merge_and_unload(model)
        change = ((model(tokens) - adapted).abs().max() / adapted.abs().max()).item()
    told = folding.facts(cost, change, errors)
    if not as_json:
        folding.show_facts(cost, change, errors, each=dry_run)
    if out is None or dry_run:
        size = sum(p.nbytes for p in model.parameters())
        if as_json:
            show_json(told | {"bytes": size, "folder": out and str(out), "written": False})
        where = "" if out is None else f" to {out}"
        say(f"would write {decimal(size)} of weights and a tokenizer{where}; nothing is written")
        return
    save_folder(model, tokenizer, out)
    size = sum(file.stat().st_size for file in out.iterdir())
    if as_json:
        show_json(told | {"bytes": size, "folder": str(out)})
    say(f"{decimal(size)} on disk, merged model in {out}")


def generate(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    base: Base = SMOLLM2,
    adapter: Annotated[Path | None, typer.Option(help=ADAPTER)] = None,
    max_new_tokens: Annotated[int, typer.Option(help="When to stop at the latest.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest share.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed, the same answer.")] = 0,
    as_json: Json = False,
) -> None:
    """Ask a base, or a base with an adapter, and print its answer as it comes."""
    model, tokenizer = load_base(base, device=pick_device(), progress=say)
    if adapter is not None:
        load_adapter(model, adapter)
    tokens = stream(
        model,
        tokenizer.encode(tokenizer.prompt(prompt)),
        max_new_tokens=max_new_tokens,
        stop=[tokenizer.eos_id],
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    )
    answer = whole_characters(tokens, tokenizer.decode)
    if as_json:
        show_json({"prompt": prompt, "answer": "".join(answer)})
        return
    for piece in answer:
        typer.echo(piece, nl=False)
    typer.echo()
