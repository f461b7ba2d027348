"""Commands that need no weights: parameters are counted, a step's memory is estimated."""

from dataclasses import asdict, replace
from typing import Annotated, Any

import typer
from rich.filesize import decimal

from lorakit.checkpoint import SMOLLM2, model_config
from lorakit.cli.budget import Verdict, judge, parse_bytes
from lorakit.cli.options import (
    Accumulation,
    BatchSize,
    Checkpointing,
    Json,
    Method,
    Rank,
    Shape,
    Targets,
    parse_targets,
)
from lorakit.console import say, show, show_json
from lorakit.counts import count
from lorakit.device import pick_device
from lorakit.lora import ALL_LINEAR, LoRAConfig
from lorakit.memory import DEVICES, DTYPES, PARTS, Setup, StepMemory, estimate
from lorakit.memory.fit import MOST
from lorakit.model import ModelConfig
from lorakit.presets import PRESETS
from lorakit.run import Run, disk_bytes
from lorakit.step import IMPLEMENTATIONS, OPTIMIZERS, TrainConfig


def params(
    base: Shape = SMOLLM2,
    rank: Rank = Run.rank,
    targets: Targets = ALL_LINEAR,
    as_json: Json = False,
) -> None:
    """Count parameters and bytes of full fine-tuning and of LoRA, without loading any weight."""
    config, lora = _shape(base), LoRAConfig(rank=rank, targets=parse_targets(targets))
    rows, facts = [], []
    for method, adapter in {"full": None, f"lora, rank {rank}": lora}.items():
        counted, size = count(config, adapter), disk_bytes(config, adapter)
        rows.append((method, counted.trainable, f"{counted.percent:.3g}%", decimal(size)))
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


def memory(
    base: Shape = SMOLLM2,
    method: Method = Run.method,
    rank: Rank = Run.rank,
    targets: Targets = ALL_LINEAR,
    batch_size: BatchSize = Run.batch_size,
    length: Annotated[int, typer.Option(help="Tokens an example.")] = Setup.length,
    accumulation: Accumulation = Run.accumulation,
    optimizer: Annotated[
        str, typer.Option(help=" or ".join(OPTIMIZERS) + ".")
    ] = TrainConfig.optimizer,
    momentum: Annotated[float, typer.Option(help="Of sgd.")] = TrainConfig.momentum,
    implementation: Annotated[
        str, typer.Option(help="Of the optimizer: " + ", ".join(IMPLEMENTATIONS) + ".")
    ] = TrainConfig.implementation,
    gradient_checkpointing: Checkpointing = Run.gradient_checkpointing,
    device: Annotated[
        str | None,
        typer.Option(
            help=f"Where it shall run: {' or '.join(DEVICES)}.", show_default="this machine's"
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help=f"Of the base's weights, without autocast: {' or '.join(DTYPES)}.",
            show_default="as finetune has it there",
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Does it fit? Such as 8GiB, 24GB, 500 MB.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate what a training step holds, and whether it fits a budget (exit code 1 if not)."""
    limit = None if budget is None else parse_bytes(budget)
    target = device or pick_device().type
    run = Run(
        base=base,
        method=method,
        rank=rank,
        targets=parse_targets(targets),
        batch_size=batch_size,
        accumulation=accumulation,
        gradient_checkpointing=gradient_checkpointing,
    )
    shape = _shape(base)

    def setup(run: Run) -> Setup:
        asked = run.setup(shape, length, target)
        config = replace(
            asked.config,
            autocast=asked.config.autocast and dtype is None,
            optimizer=optimizer,
            momentum=momentum,
            implementation=implementation,
        )
        # What is named is checked; a run takes a device that it does not know for a CPU.
        return replace(
            asked, config=config, dtype=dtype or asked.dtype, device=device or asked.device
        )

    asked = setup(run)
    held = estimate(asked)
    verdict = None if limit is None else judge(limit, run, setup)
    if as_json:
        fit = asdict(verdict) if verdict else None
        show_json({"setup": _essentials(run, asked), "memory": held.to_json(), "fit": fit})
    else:
        _show_memory(run, asked, held)
        if verdict:
            _show_verdict(verdict)
    if verdict and not verdict.fits:
        say(verdict.refusal)
        raise typer.Exit(1)


def _essentials(run: Run, setup: Setup) -> dict[str, Any]:
    """What decides the numbers."""
    values: dict[str, Any] = {"base": run.base, "method": run.method}
    if setup.lora:
        values |= {"rank": setup.lora.rank, "targets": setup.lora.targets}
    for owner, names in (
        (setup, ("batch_size", "length", "dtype", "device")),
        (setup.config, ("accumulation", "gradient_checkpointing", "autocast")),
        (setup.config, ("optimizer", "momentum", "implementation")),
    ):
        values |= {name: getattr(owner, name) for name in names}
    return values


def _show_memory(run: Run, setup: Setup, held: StepMemory) -> None:
    """Each part in each phase; then what tensors, allocator and device make of the peak."""
    products = ", products in bfloat16" if setup.config.autocast else ""
    weights = "linear weights in 4 bits, others" if setup.quantized else "weights"
    typer.echo(
        f"{run.method} on {run.base}, {setup.batch_size} x {setup.length} tokens, "
        f"{weights} in {setup.dtype}{products}\n"
        f"{held.source}: bytes at each phase's highest instant, the peak in {held.phase}"
    )
    show(
        [
            (part, *(getattr(phase, part) for phase in held.phases.values()))
            for part in (*PARTS, "total")
        ],
        "",
        *held.phases,
    )
    rows = [("held by tensors", held.peak.tensors, "at the peak, all but overhead")]
    if setup.device != "cpu":  # where nothing comes on top
        rows += [
            ("the allocator's peak", held.peak.total, "with overhead"),
            ("reserved", held.reserved, "what the allocator keeps, given room"),
            ("device total", held.device, "plus the driver's"),
        ]
    show(rows)


def _show_verdict(verdict: Verdict) -> None:
    largest = verdict.largest_batch
    show(
        [
            ("budget", verdict.budget),
            ("takes", verdict.takes),
            ("fits", "yes" if verdict.fits else "no"),
            ("largest batch", largest if largest < MOST else f"{MOST:,} or more"),
        ]
    )
    if verdict.changes:
        show(
            [
                (" ".join(c.options), c.saves, c.takes, "yes" if c.fits else "no")
                for c in verdict.changes
            ],
            "add, one by one",
            "saves",
            "takes",
            "fits",
        )
