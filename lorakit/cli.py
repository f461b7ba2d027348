"""`lorakit ...`: what the notebooks do, from a shell; results on stdout, all else on stderr.

Drawing and JupyterLab are imported where they are used: `lorakit --help` needs PyTorch, not them.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.filesize import decimal

from lorakit import experiment
from lorakit.adapters import load_adapter
from lorakit.checkpoint import BASES, SMOLLM2, load_base, model_config
from lorakit.console import (
    INTERRUPTED,
    plain_errors,
    save_pictures,
    say,
    show,
    show_json,
    show_result,
    stop_on_interrupt,
    tell_progress,
    whole_characters,
)
from lorakit.counts import count
from lorakit.device import pick_device
from lorakit.doctor import examine, open_lab
from lorakit.generation import stream
from lorakit.hf_folder import save_folder
from lorakit.lora import ALL_LINEAR, LoRAConfig
from lorakit.merging import merge_and_unload
from lorakit.model import ModelConfig
from lorakit.presets import PRESETS
from lorakit.run import LEARNING_RATES, RATES, Run, disk_bytes
from lorakit.tasks import TASKS

app = typer.Typer(
    help="Full fine-tuning versus LoRA, on a model that fits a laptop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ADAPTER = "An adapter's folder, such as runs/orders-lora/adapter."
Base = Annotated[str, typer.Option(help=f"{BASES}.")]
Rank = Annotated[int, typer.Option(help="Rows of A, columns of B.")]
Targets = Annotated[str, typer.Option(help="Layers to adapt, such as q_proj,v_proj.")]
Rate = Annotated[float | None, typer.Option(help="Learning rate.", show_default=RATES)]
Out = Annotated[Path | None, typer.Option(help="A new folder.", show_default="runs/TASK-METHOD")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@app.command()
@plain_errors
def finetune(
    context: typer.Context,
    base: Base = Run.base,
    task: Annotated[str, typer.Option(help=f"{TASKS}.")] = Run.task,
    method: Annotated[str, typer.Option(help=" or ".join(LEARNING_RATES) + ".")] = Run.method,
    rank: Rank = Run.rank,
    alpha: Annotated[float, typer.Option(help="B A counts alpha / rank.")] = Run.alpha,
    targets: Targets = ALL_LINEAR,
    lr: Rate = Run.lr,
    batch_size: Annotated[int, typer.Option(help="Examples a step.")] = Run.batch_size,
    steps: Annotated[int, typer.Option(help="Updates of the weights.")] = Run.steps,
    heldout: Annotated[int, typer.Option(help="Examples to judge by, at most.")] = Run.heldout,
    seed: Annotated[int, typer.Option(help="Of the adapter and the order.")] = Run.seed,
    out: Out = None,
    resume: Annotated[Path | None, typer.Option(help="A stopped run's folder.")] = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a base on a task, in full or with LoRA. Ctrl-C stops and keeps a checkpoint."""
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
                steps=steps,
                heldout=heldout,
                seed=seed,
            )
            folder = out or unused_folder(Path("runs") / f"{Path(task).stem}-{method}")
            result = experiment.finetune(run, out=folder, stop=stop, report=report)
        save_pictures(result, folder)
    show_result(result, folder, as_json)
    if stop():
        raise typer.Exit(INTERRUPTED)


def _check_alone(context: typer.Context) -> None:
    """Only --json may stand beside --resume: a stopped run has its settings."""
    origin = context.get_parameter_source
    given = {name for name in context.params if origin(name) == origin("resume")}
    if others := given - {"resume", "as_json"}:
        options = ", ".join(sorted(f"--{name.replace('_', '-')}" for name in others))
        raise ValueError(f"--resume goes on with the run's own settings: leave out {options}")


def parse_targets(targets: str) -> tuple[str, ...] | str:
    return targets if targets == ALL_LINEAR else tuple(t.strip() for t in targets.split(","))


def unused_folder(folder: Path) -> Path:
    """`folder`, or the first of folder-2, folder-3 and so on, that is empty or not there."""
    number, candidate = 1, folder
    while candidate.exists() and any(candidate.iterdir()):
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


@app.command()
@plain_errors
def merge(
    adapter: Annotated[Path, typer.Option(help=ADAPTER)],
    out: Annotated[Path, typer.Option(help="A new folder for the merged model.")],
    base: Base = SMOLLM2,
    as_json: Json = False,
) -> None:
    """Fold an adapter into its base: one plain model, as fast as the base, as large as the base."""
    if out.exists():
        raise ValueError(f"{out} is there already: name a new folder")
    model, tokenizer = load_base(base, progress=say)
    load_adapter(model, adapter)
    model.eval()
    tokens = torch.tensor([tokenizer.encode(tokenizer.prompt("What does a merge change?"))])
    with torch.no_grad():
        adapted = model(tokens)
        layers = merge_and_unload(model)
        change = ((model(tokens) - adapted).abs().max() / adapted.abs().max()).item()
    save_folder(model, tokenizer, out)
    size = sum(file.stat().st_size for file in out.iterdir())
    if as_json:
        show_json({"layers": len(layers), "change": change, "bytes": size, "folder": str(out)})
    else:
        change_row = ("largest change of a logit", f"{change:.1e} of the largest logit")
        show([("layers merged", str(len(layers))), change_row, ("on disk", decimal(size))])
        say(f"merged model in {out}")


@app.command()
@plain_errors
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


@app.command()
@plain_errors
def params(
    base: Annotated[
        str, typer.Option(help=f"A preset ({', '.join(PRESETS)}), or a base as elsewhere.")
    ] = SMOLLM2,
    rank: Rank = Run.rank,
    targets: Targets = ALL_LINEAR,
    as_json: Json = False,
) -> None:
    """Count parameters and bytes of full fine-tuning and of LoRA, without loading any weight."""
    config, lora = _shape(base), LoRAConfig(rank=rank, targets=parse_targets(targets))
    rows, facts = [], []
    for method, adapter in {"full": None, f"lora, rank {rank}": lora}.items():
        counted, size = count(config, adapter), disk_bytes(config, adapter)
        rows.append((method, f"{counted.trainable:,}", f"{counted.percent:.3g}%", decimal(size)))
        facts.append({"method": method, **asdict(counted), "bytes": size})
    if as_json:
        show_json(facts)
    else:
        show(rows, "method", "parameters trained", "of all", "on disk, a variant")


def _shape(base: str) -> ModelConfig:
    """A preset's, or a base's."""
    preset = "smollm2-135m" if base == SMOLLM2 else base
    if preset in PRESETS:
        return PRESETS[preset]
    try:
        return model_config(base, progress=say)
    except ValueError as error:
        raise ValueError(f"{error}; presets are {', '.join(PRESETS)}") from error


@app.command()
@plain_errors
def doctor(as_json: Json = False) -> None:
    """Look at this machine: device, versions, widgets, memory; each problem comes with its fix."""
    findings = examine()
    problems = [finding for finding in findings if not finding.fine]
    if as_json:
        show_json([finding.to_json() for finding in findings])
    else:
        show([("ok" if f.fine else "mend", f.what, f.found) for f in findings], "", "what", "found")
    for finding in problems:
        say(f"{finding.what}: {finding.fix}")
    if problems:
        raise typer.Exit(1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@plain_errors
def lab(context: typer.Context) -> None:
    """Open the lesson in JupyterLab, on this machine alone; further options go to JupyterLab."""
    raise typer.Exit(open_lab(context.args))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
