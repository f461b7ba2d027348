"""`lorakit ...`: what the notebooks do, from a shell.

Everything heavy is imported inside the commands, so that `lorakit --help` answers at once. Progress
goes to stderr and results to stdout, as a table, or with --json as JSON.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from lorakit.console import (
    megabytes,
    notes,
    plain_errors,
    save_pictures,
    screen,
    show,
    stop_on_interrupt,
    summarise,
    tell_progress,
)

app = typer.Typer(
    help="Full fine-tuning versus LoRA, on a model that fits a laptop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Base = Annotated[str, typer.Option(help='"smollm2", a folder, a .gguf file or a model id.')]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Out = Annotated[Path | None, typer.Option(help="A new folder for the results.")]


@app.command()
@plain_errors
def finetune(
    base: Base = "smollm2",
    task: Annotated[str, typer.Option(help='"orders", or a JSONL file of your own.')] = "orders",
    method: Annotated[str, typer.Option(help="lora or full.")] = "lora",
    rank: Annotated[int, typer.Option(help="Rows of A, columns of B.")] = 8,
    alpha: Annotated[float, typer.Option(help="B A counts alpha / rank.")] = 16.0,
    targets: Annotated[str, typer.Option(help="Layers to adapt, by comma.")] = "all-linear",
    lr: Annotated[float | None, typer.Option(help="Learning rate; the method's own.")] = None,
    batch_size: Annotated[int, typer.Option(help="Examples a step.")] = 4,
    steps: Annotated[int, typer.Option(help="Updates of the weights.")] = 40,
    heldout: Annotated[int, typer.Option(help="Held-out examples to judge by, at most.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the adapter, the order and dropout.")] = 0,
    out: Out = None,
    resume: Annotated[Path | None, typer.Option(help="Take up the stopped run there.")] = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a base on a task: in full, or with LoRA. Ctrl-C stops and keeps a checkpoint."""
    from lorakit import experiment
    from lorakit.run import Run

    stop, report = stop_on_interrupt(), tell_progress()
    try:
        if resume is not None:
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
    except experiment.Stopped as stopped:
        notes.print(str(stopped))
        raise typer.Exit(130) from stopped
    save_pictures(result, folder)
    if as_json:
        print(json.dumps(result.to_json() | {"folder": str(folder)}, indent=2))
    else:
        summarise(result, folder)
    if result.after is None:
        raise typer.Exit(130)


def parse_targets(targets: str) -> tuple[str, ...] | str:
    return targets if targets == "all-linear" else tuple(t.strip() for t in targets.split(","))


def unused_folder(folder: Path) -> Path:
    """`folder`, or the first of folder-2, folder-3 and so on that is not there."""
    number, candidate = 1, folder
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


@app.command()
@plain_errors
def merge(
    adapter: Annotated[Path, typer.Option(help="An adapter's folder.")],
    out: Annotated[Path, typer.Option(help="A new folder for the merged model.")],
    base: Base = "smollm2",
    as_json: Json = False,
) -> None:
    """Fold an adapter into its base: one plain model, as fast as the base, as large as the base."""
    import torch

    from lorakit.adapters import load_adapter
    from lorakit.checkpoint import load_base, save_folder
    from lorakit.merging import merge_and_unload

    if out.exists():
        raise ValueError(f"{out} is there already: name a new folder")
    model, tokenizer = load_base(base, progress=notes.print)
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
        facts = {"layers": len(layers), "change": change, "bytes": size, "folder": str(out)}
        print(json.dumps(facts, indent=2))
        return
    rows = {
        "layers merged": str(len(layers)),
        "largest change of a logit": f"{change:.1e} of the largest logit",
        "on disk": megabytes(size),
        "folder": str(out),
    }
    show("merged", rows)


@app.command()
@plain_errors
def generate(
    prompt: Annotated[str, typer.Argument(help="What to ask.")],
    base: Base = "smollm2",
    adapter: Annotated[Path | None, typer.Option(help="An adapter's folder.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="When to stop at the latest.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest share.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed, the same answer.")] = 0,
    as_json: Json = False,
) -> None:
    """Ask a base, or a base with an adapter, and print its answer as it comes."""
    from lorakit.adapters import load_adapter
    from lorakit.checkpoint import load_base
    from lorakit.device import pick_device
    from lorakit.generation import stream

    model, tokenizer = load_base(base, device=pick_device(), progress=notes.print)
    if adapter is not None:
        load_adapter(model, adapter)
    tokens: list[int] = []
    text = ""
    for token in stream(
        model,
        tokenizer.encode(tokenizer.prompt(prompt)),
        max_new_tokens=max_new_tokens,
        stop=[tokenizer.eos_id],
        temperature=temperature,
        top_p=top_p,
        seed=seed,
    ):
        tokens.append(token)
        longer = tokenizer.decode(tokens)
        if not as_json and not longer.endswith("\N{REPLACEMENT CHARACTER}"):
            sys.stdout.write(longer[len(text) :])
            sys.stdout.flush()
            text = longer
    if as_json:
        print(json.dumps({"prompt": prompt, "answer": tokenizer.decode(tokens)}, indent=2))
    else:
        print()


@app.command()
@plain_errors
def params(
    base: Annotated[str, typer.Option(help="A preset's name, or a base as elsewhere.")] = "smollm2",
    rank: Annotated[int, typer.Option(help="Rows of A, columns of B.")] = 8,
    targets: Annotated[str, typer.Option(help="Layers to adapt, by comma.")] = "all-linear",
    as_json: Json = False,
) -> None:
    """Count parameters and bytes of full fine-tuning and of LoRA, without loading any weight."""
    from lorakit.checkpoint import model_config
    from lorakit.counts import count
    from lorakit.lora import LoRAConfig
    from lorakit.presets import PRESETS
    from lorakit.run import disk_bytes

    preset = "smollm2-135m" if base == "smollm2" else base
    config = PRESETS[preset] if preset in PRESETS else model_config(base, progress=notes.print)
    lora = LoRAConfig(rank=rank, targets=parse_targets(targets))
    table = Table("method", "parameters trained", "of all", "on disk, a variant", title=base)
    facts = []
    for method, adapter in {"full": None, f"lora, rank {rank}": lora}.items():
        numbers, size = count(config, adapter), disk_bytes(config, adapter)
        percent = f"{numbers.percent:.3g}%"
        table.add_row(method, f"{numbers.trainable:,}", percent, megabytes(size))
        facts.append({"method": method, "trained": numbers.trainable, "bytes": size})
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        screen.print(table)


@app.command()
@plain_errors
def doctor(as_json: Json = False) -> None:
    """Look at this machine: device, versions, widgets, memory; each problem comes with its fix."""
    from lorakit.doctor import examine

    findings = examine()
    if as_json:
        print(json.dumps([finding.to_json() for finding in findings], indent=2))
    else:
        table = Table("", "what", "found", "fix")
        for finding in findings:
            mark = "[green]ok[/green]" if finding.fine else "[red]mend[/red]"
            table.add_row(mark, finding.what, finding.found, finding.fix)
        screen.print(table)
    if not all(finding.fine for finding in findings):
        raise typer.Exit(1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@plain_errors
def lab(context: typer.Context) -> None:
    """Open the lesson in JupyterLab, on this machine alone; further options go to JupyterLab."""
    from lorakit.doctor import open_lab

    raise typer.Exit(open_lab(context.args))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
