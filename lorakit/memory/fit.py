"""Will it fit? The largest batch for a budget, and what to change where a batch does not fit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lorakit.lora import LoRAConfig
from lorakit.memory.breakdown import StepMemory
from lorakit.memory.estimation import estimate, estimate_within
from lorakit.memory.setup import Setup, narrowest

MOST = 2**16  # rows; nobody asks for more


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The most rows of a step that stays within `budget` bytes of the device.

    `batch_size` 0: not even one row does. `memory` is then that of one row, else of so many.
    """

    budget: int
    batch_size: int
    memory: StepMemory


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something to change, on top of the changes before it, and what the step then takes."""

    what: str
    setup: Setup
    memory: StepMemory
    saves: int  # bytes of the device
    fits: bool


def largest_batch(budget: int, setup: Setup) -> Fit:
    """The most rows, all else as in `setup`, with everything on the device within `budget`.

    On a GPU that is what the allocator reserves and the driver's context; on a CPU the tensors.
    Raises ValueError for a budget below one byte.
    """
    _check(budget)

    def within(rows: int) -> StepMemory | None:
        return estimate_within(budget, replace(setup, batch_size=rows))

    found = within(1)
    if found is None:
        return Fit(budget=budget, batch_size=0, memory=estimate(replace(setup, batch_size=1)))
    low, high = 1, 2
    while high <= MOST and within(high):
        low, high = high, 2 * high
    high = min(high, MOST + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if within(middle) else (low, middle)
    return Fit(budget=budget, batch_size=low, memory=within(low) or found)


def changes_to_fit(budget: int, setup: Setup, *, rank: int = 8) -> list[Change]:
    """What to change, one after the other, until the step fits `budget`; nothing if it does.

    First what leaves the result as it is: fewer rows at once, their gradients accumulated; then
    gradient checkpointing, which computes again what it did not keep. Then LoRA of `rank`, and then
    QLoRA, a base in 4 bits. If the last does not fit either, it takes a smaller model, shorter
    texts or another device.
    """
    _check(budget)
    changes: list[Change] = []
    fits, held = estimate_within(budget, setup) is not None, estimate(setup).device
    for what, changed in _steps(budget, setup, rank):
        if fits:
            break
        within = estimate_within(budget, changed)
        memory = estimate(changed)
        fits = within is not None
        changes.append(
            Change(
                what=what,
                setup=changed,
                memory=within or memory,
                saves=held - memory.device,
                fits=fits,
            )
        )
        held = memory.device
    return changes


def _steps(budget: int, setup: Setup, rank: int) -> Iterator[tuple[str, Setup]]:
    if setup.batch_size > 1:
        setup = _smaller(budget, setup)
        rows, times = setup.batch_size, setup.config.accumulation
        yield f"micro-batches of {rows}, {times} of them accumulated", setup
    if not setup.config.gradient_checkpointing:
        setup = replace(setup, config=replace(setup.config, gradient_checkpointing=True))
        yield "gradient checkpointing", setup
    if setup.lora is None:
        rank = min(rank, narrowest(setup.model)[0])
        setup = replace(setup, lora=LoRAConfig(rank=rank))
        yield f"LoRA of rank {rank}", setup
    if not setup.quantized:
        yield "QLoRA, the base in 4 bits", replace(setup, quantized=True)


def _smaller(budget: int, setup: Setup) -> Setup:
    """The largest micro-batch that divides the batch and fits; one row if none does."""
    rows = setup.batch_size
    smaller = [
        replace(
            setup,
            batch_size=rows // parts,
            config=replace(setup.config, accumulation=parts * setup.config.accumulation),
        )
        for parts in range(2, rows + 1)
        if rows % parts == 0
    ]
    return next((s for s in smaller if estimate_within(budget, s)), smaller[-1])


def _check(budget: int) -> None:
    if not budget >= 1:
        raise ValueError(f"a budget must be at least 1 byte, got {budget}")
