"""A sweep to be scrubbed through: nothing is computed while a slider moves, every run was made.

The picture has the means of the seeds along one axis, and bars from the lowest to the highest. Any
cell can be run here: with seed 0, to be compared with its own row, or with seeds that the sweep
never had.
"""

from dataclasses import replace
from itertools import cycle
from typing import Any

import ipywidgets

from lorakit.claims.evidence import grid, rate
from lorakit.grids import GRIDS, TARGETS, run_of
from lorakit.plots import COLORS, draw_spread
from lorakit.plots.curves import MARKERS, Style, shades
from lorakit.plots.style import log_limits
from lorakit.sweep import Row
from lorakit.widgets.explorable import shown
from lorakit.widgets.job import Job
from lorakit.widgets.own_runs import run_here
from lorakit.widgets.picture import Picture, caption
from lorakit.widgets.settings import choice, dropdown, stops
from lorakit.widgets.sweep_table import (
    AXES,
    BEST,
    FULL,
    LORA,
    MATCH,
    MEASURES,
    SweepTable,
    all_measured,
    measured,
    told,
    where,
    which_rate,
    written,
)

AGAIN, NEW = "seed 0 again", "a new seed"
SHORT = {**AXES, "kind": "method", "sample": "examples", "targets": "adapted"}  # beside a control
WORDS = ("task", "targets")  # axes that are chosen from a list; the others are sliders


class SweepExplorer(Job):
    """Controls -> cells of a committed sweep -> lines; a button runs the chosen cell here.

    `name` is one of `grids.GRIDS`. `controls` are those of its axes, by name; `own` are the rows
    of the runs made here.
    """

    def __init__(self, name: str):
        self.table = SweepTable(name, grid(name) if name in GRIDS else ())
        axes = [axis for axis in self.table.axes if axis != "task"]
        self.x = dropdown("along", {AXES[axis]: axis for axis in axes}, axes[0])
        self.measure = dropdown("measure", MEASURES, MATCH)
        self.controls = {axis: self._control(axis) for axis in self.table.axes}
        self.seed = choice("runs with", [AGAIN, NEW], AGAIN)
        self.own: list[Row] = []
        self.picture = Picture(900, 420, alt=f"the sweep {name!r}, cell by cell")
        asked = caption(GRIDS[name].question)
        super().__init__(
            [asked, self.x, self.measure, *self.controls.values(), self.seed],
            [self.picture],
            alt=f"explorable: the sweep {name!r}, cell by cell, and any cell again",
        )
        self.start.description = "Run this cell"
        for control in (self.x, self.measure, *self.controls.values()):
            control.observe(self.refresh, names="value")
        self.refresh()

    def _control(self, axis: str) -> ipywidgets.Widget:
        values = self.table.values[axis]
        if axis in WORDS:
            return dropdown(SHORT[axis], values, values[0])
        named: dict[str, Any] = {v if axis == "kind" else f"{v:,g}": v for v in values}
        first = {"lr": BEST, "kind": "rank 8"}.get(axis, values[0])
        return stops(SHORT[axis], ({BEST: BEST} if axis == "lr" else {}) | named, first)

    @property
    def choice(self) -> dict[str, Any]:
        """What the controls stand for, by axis."""
        return {axis: control.value for axis, control in self.controls.items()}

    @property
    def cell(self) -> list[Row]:
        """The sweep's rows of what is chosen; none if it has no such run."""
        return self.table.cell(self.choice)

    @property
    def run(self):
        """What the button does. Raises ValueError if the sweep has no such cell."""
        if not self.cell:
            raise ValueError(f"{self._missing()}: choose one of these, or {BEST!r}")
        run = replace(run_of(self.cell[0]), seed=0)
        if self.seed.value == AGAIN:
            return run
        taken = {row["run"]["seed"] for row in [*self.cell, *self._own_of(self.cell)]}
        return replace(run, seed=max(taken) + 1)

    def work(self) -> str:
        run = self.run
        rows = run_here(self, [run])
        if rows is None:
            return "stopped: what was not trained to its end is not judged"
        self.own = [row for row in self.own if run_of(row) != run] + rows
        self.refresh()
        return f"{run.steps} steps with seed {run.seed} in {rows[0]['made']['seconds']:.0f} s"

    def _own_of(self, cell: list[Row]) -> list[Row]:
        """The runs made here of a cell of the sweep."""
        place = self.table.place
        return [row for row in self.own if cell and place(row["run"]) == place(cell[0]["run"])]

    @shown
    def refresh(self, change=None) -> None:
        x, measure, table = self.x.value, self.measure.value, self.table
        lines = table.lines(x, self.choice)
        bold, here = table.seat(x, self.choice)
        values = {
            name: {place: all_measured(rows, measure) for place, rows in points.items()}
            for name, points in lines.items()
        }
        own = {
            name: {place: all_measured(self._own_of(rows), measure) for place, rows in line.items()}
            for name, line in lines.items()
        }
        with self.picture.drawing(blit=True) as ax:
            draw_spread(
                ax,
                values,
                styles=self._styles(),
                x=AXES[x],
                y=measure,
                places=table.places(x),
                bounds=self._bounds(measure),
                bold=bold,
                here=here,
                levels=[FULL] if x == "kind" else [],
                own=own,
            )
        self.picture.text = self._words(measure)

    def _bounds(self, measure: str) -> tuple[float, float]:
        """Of the y axis: all that the task has, so that it stands still under every slider."""
        if measure == MATCH:
            return -0.04, 1.06
        task = self.choice.get("task")
        rows = [row for cell in self.table.cells.values() for row in cell] + self.own
        seen = [measured(row, measure) for row in rows if task in (None, row["run"]["task"])]
        return log_limits(seen, decades=9)

    def _styles(self) -> dict[str, Style]:
        """By name: full fine-tuning dashed in its color, LoRA's blue darker along the axis."""
        lined = self.table.lined
        names = [name for name in self.table.values[lined] if name != FULL]
        looks = zip(names, shades("lora", len(names)), cycle(MARKERS))
        styles: dict[str, Style] = {
            name: {"color": color, "marker": mark} for name, color, mark in looks
        }
        styles[FULL] = {"color": COLORS["full"], "linestyle": "--"}
        joined = "" if lined == "targets" else "-"  # between words there is nothing
        return styles | {LORA: {"color": COLORS["lora"], "linestyle": joined}}

    def _words(self, measure: str) -> str:
        if not self.cell:
            return self._missing()
        rows, own = self.cell, self._own_of(self.cell)
        run = run_of(rows[0])
        tried = self.table.rates(self.choice)
        words = [self._name(), which_rate(rate(rows), tried, self.choice["lr"])]
        words += [f"{run.steps} steps of {run.batch_size}: {measure}"]
        text = f"{', '.join(words)} {told(all_measured(rows, measure), measure)} ({where(rows)})"
        if diverged := sum(row["diverged"] for row in rows):
            text += f"; {diverged} of {len(rows)} runs diverged"
        if own:
            there = {row["run"]["seed"]: row for row in rows}
            text += f". Yours ({where(own)}): " + ", ".join(
                _beside(row, there.get(row["run"]["seed"]), measure) for row in own
            )
        return text

    def _name(self) -> str:
        """What is chosen, but for the rate: json, 512 training examples, rank 8."""
        words = []
        for axis, value in self.choice.items():
            if axis == "targets":
                words.append(f"adapters on {value}, rank {TARGETS[value][1]}")
            elif axis in ("sample", "batch_size"):
                words.append(f"{AXES[axis]} {value:,}")
            elif axis != "lr":
                words.append(value)
        return ", ".join(words)

    def _missing(self) -> str:
        rates = ", ".join(f"{lr:g}" for lr in self.table.rates(self.choice))
        return f"{self._name()}: no run at lr {self.choice['lr']:g}; its rates are {rates}"


def _beside(own: Row, there: Row | None, measure: str) -> str:
    """One's own run, and the sweep's of the same seed, if it has one."""
    text = f"seed {own['run']['seed']} gives {written(measured(own, measure), measure)}"
    if there is not None:
        text += f" (the sweep's: {written(measured(there, measure), measure)})"
    return text
