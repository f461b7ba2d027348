"""Whether a step fits a budget, in words: with the numbers that the picture shows."""

import html
from collections.abc import Mapping

from lorakit.memory import Setup, StepMemory, changes_to_fit, largest_batch
from lorakit.memory.estimation import estimate_within
from lorakit.memory.fit import MOST
from lorakit.plots.style import size

WAY_OUT = "that leaves a smaller model, shorter texts, or another device"


def describe(method: str, estimated: StepMemory, measured: StepMemory | None) -> str:
    """How much a step takes, and in which phase its peak falls."""
    words = f"{method}: {size(estimated.peak.total)} at the peak, in {estimated.phase}"
    if estimated.device > estimated.peak.total:
        words += (
            f"; {size(estimated.reserved)} are reserved, and with the driver's context "
            f"{size(estimated.device)} of the device are gone"
        )
    if measured is not None:
        words += f"; measured: {size(measured.device)}, in {measured.phase}"
    return words


def advice(budget: int, setups: Mapping[str, Setup], *, rank: int) -> str:
    """The largest batch by each method, and what makes a step fit that does not, as HTML."""
    batches = [f"{method} {_largest(budget, setup)}" for method, setup in setups.items()]
    parts = [f"<p>Largest batch within {size(budget)}: {'; '.join(batches)}.</p>"]
    for method, setup in setups.items():
        if estimate_within(budget, setup) is None:
            parts.append(_changes(budget, method, setup, rank))
    return f'<div style="font-size: 15px; line-height: 1.4">{"".join(parts)}</div>'


def _largest(budget: int, setup: Setup) -> str:
    fit = largest_batch(budget, setup)
    if not fit.batch_size:
        return f"none, one row takes {size(fit.memory.device)}"
    rows = "row" if fit.batch_size == 1 else "rows" if fit.batch_size < MOST else "rows or more"
    return f"{fit.batch_size:,} {rows}"


def _changes(budget: int, method: str, setup: Setup, rank: int) -> str:
    changes = changes_to_fit(budget, setup, rank=rank)
    steps = "".join(
        f"<li>{html.escape(change.what)}: saves {size(change.saves)}, "
        f"then {size(change.memory.device)}</li>"
        for change in changes
    )
    fits = bool(changes) and changes[-1].fits
    end = "then it fits" if fits else f"it still does not fit: {WAY_OUT}"
    return f"<p>{method} does not fit. One after the other:</p><ol>{steps}</ol><p>{end}.</p>"
