"""A sweep as a table: axes, a cell for each setting with a run a seed, and lines of such cells.

Rows in, rows and numbers out; knows no control and no picture.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from lorakit.claims.evidence import best, grouped, kind, rate
from lorakit.grids import GRIDS, TARGETS
from lorakit.sweep import Row

BEST = "best"  # of learning rates: the one with the lowest mean loss on validation
MATCH, LOSS, FORGOTTEN = "exact match", "loss", "loss on the base's own data"
MEASURES = (MATCH, LOSS, FORGOTTEN)
AXES = {
    "task": "task",
    "kind": "rank",
    "targets": "adapted matrices",
    "sample": "training examples",
    "batch_size": "batch size",
    "lr": "learning rate",
}
FULL, LORA = "full", "LoRA"
NAMES = {targets: name for name, (targets, _) in TARGETS.items()}

Choice = Mapping[str, Any]  # a value for some of the axes; of the rate it may be BEST


class SweepTable:
    """A sweep's rows by what they vary. `lined` is the axis that has a line for each of its values.

    At equal parameters a rank belongs to its targets; everywhere else rank and method are one axis,
    with values like "full" and "rank 8".
    """

    def __init__(self, name: str, rows: Sequence[Row]):
        if name not in GRIDS:
            raise ValueError(f"there is no sweep {name!r}: it is one of {', '.join(GRIDS)}")
        varied = GRIDS[name].varied
        self.lined = "targets" if "targets" in varied else "kind"
        kinds = ("method", "rank") if self.lined == "kind" else ()
        self.axes = tuple(dict.fromkeys("kind" if axis in kinds else axis for axis in varied))
        self.cells = grouped(rows, self.place)
        self.values = {
            axis: list(dict.fromkeys(place[number] for place in self.cells))
            for number, axis in enumerate(self.axes)
        }
        self.values["lr"].sort()
        self._best: dict[tuple, list[Row]] = {}  # chosen once

    def place(self, run: Row) -> tuple:
        """The cell that a run belongs to: its value on each axis."""
        names = {"kind": kind, "targets": lambda run: NAMES[run["targets"]]}
        return tuple(names[a](run) if a in names else run[a] for a in self.axes)

    def cell(self, choice: Choice) -> list[Row]:
        """The runs with the chosen values, one for every axis; none if there was no such run."""
        place = tuple(choice[axis] for axis in self.axes)
        if choice["lr"] == BEST and place not in self._best:
            tried = [row for lr in self.rates(choice) for row in self.cell({**choice, "lr": lr})]
            self._best[place] = best(tried) if tried else []
        return self._best.get(place) or self.cells.get(place, [])

    def rates(self, choice: Choice) -> list[float]:
        """The learning rates that were tried there, whatever rate is chosen."""
        return [lr for lr in self.values["lr"] if self.cell({**choice, "lr": lr})]

    def lines(self, x: str, choice: Choice) -> dict[str, dict[float | str, list[Row]]]:
        """Along the axis `x`, by the name of a line and the place on x: a cell, where there is one.

        The other axes are as chosen, but for `lined`, which has a line a value; along itself it
        is LoRA's one line, with full fine-tuning as a line of one cell.
        """
        found: dict[str, dict[float | str, list[Row]]] = {}
        for value in self.values[x]:
            for other in [value] if x == self.lined else self.values[self.lined]:
                if rows := self.cell({**choice, self.lined: other, x: value}):
                    line, place = self.seat(x, {**choice, self.lined: other, x: value})
                    found.setdefault(line, {})[place] = rows
        order = [self.seat(x, {**choice, self.lined: v})[0] for v in self.values[self.lined]]
        return {line: found[line] for line in dict.fromkeys(order) if line in found}

    def seat(self, x: str, choice: Choice) -> tuple[str, float | str]:
        """The line and the place on `x` of what is chosen; of BEST, the rate that it is there."""
        lined, value = choice[self.lined], choice[x]
        if x == self.lined:
            return (FULL if lined == FULL else LORA), label(x, value)
        if value == BEST:
            value = rate(rows) if (rows := self.cell(choice)) else math.nan
        return lined, value

    def places(self, x: str) -> list[float | str]:
        """What there is along `x`, as `lines` calls it."""
        return [label(x, value) for value in self.values[x]]


def label(axis: str, value: Any) -> Any:
    """What stands at the axis: 8 for "rank 8"."""
    return value.removeprefix("rank ") if axis == "kind" else value


def measured(row: Row, measure: str) -> float:
    """What a run gave: a loss is infinite where it diverged."""
    if measure == MATCH:
        return row["heldout"][0]
    loss = row["heldout"][1] if measure == LOSS else row["own"]
    return math.inf if loss is None or row["diverged"] else loss


def all_measured(rows: Iterable[Row], measure: str) -> list[float]:
    return [measured(row, measure) for row in rows]


def told(values: Sequence[float], measure: str) -> str:
    """0.974, mean of 5 seeds, 0.964 to 0.982."""
    if len(values) == 1:
        return written(values[0], measure)
    low, high = written(min(values), measure), written(max(values), measure)
    return f"{written(fmean(values), measure)}, mean of {len(values)} seeds, {low} to {high}"


def written(value: float, measure: str) -> str:
    if not math.isfinite(value):
        return "diverged"
    return f"{value:.3f}" if measure == MATCH else f"{value:.3g}"


def where(rows: Iterable[Row]) -> str:
    """The devices that runs were made on."""
    return " and ".join(dict.fromkeys(row["made"]["device"] for row in rows))


def which_rate(lr: float, tried: Sequence[float], chosen: float | str) -> str:
    """lr 0.01, the best of 3 and the highest of them: then a higher one may be better still."""
    if chosen != BEST:
        return f"lr {lr:g}"
    words = f"lr {lr:g}, the best of {len(tried)} on validation"
    ends = {min(tried): "lowest", max(tried): "highest"}
    return words + (f" and the {ends[lr]} of them" if lr in ends else "")
