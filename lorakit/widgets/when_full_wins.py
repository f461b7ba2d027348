"""When is full fine-tuning ahead of LoRA: by how much data there is, and how deep the change is.

Both have their best learning rate in every cell, chosen by validation: the rows of a committed
sweep. A cell can be measured here, with fewer steps.
"""

from dataclasses import replace
from typing import Any

from lorakit.claims.evidence import grid, rate
from lorakit.grids import run_of
from lorakit.plots import COLORS, draw_spread, draw_surface
from lorakit.plots.curves import Style
from lorakit.plots.style import log_limits
from lorakit.run import Run
from lorakit.sweep import Row
from lorakit.widgets.comparison import ahead, in_words
from lorakit.widgets.explorable import shown
from lorakit.widgets.job import Job
from lorakit.widgets.own_runs import run_here
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import choice, dropdown, slider
from lorakit.widgets.sweep_table import (
    AXES,
    BEST,
    FULL,
    LORA,
    LOSS,
    MATCH,
    SweepTable,
    all_measured,
    told,
    where,
    which_rate,
)

STEPS = (10, 20, 40, 60, 100, 200, 400, 800)
TITLES = {LOSS: "loss of LoRA over that of full", MATCH: "exact match of full less LoRA's"}
LIMITS = {LOSS: 3.0, MATCH: 0.2}  # from where on a cell has the full color
STYLES: dict[str, Style] = {
    FULL: {"color": COLORS["full"], "linestyle": "--"},
    LORA: {"color": COLORS["lora"]},
}
Pair = tuple[list[Row], list[Row]]  # the runs of full fine-tuning, and those of LoRA


class WhenFullWinsExplorer(Job):
    """Controls -> the two methods' cells -> a map of who is ahead, and curves at one depth.

    `own` are the pairs of runs made here: by task, size, kind of run and steps.
    """

    def __init__(self) -> None:
        self.table = SweepTable("data", grid("data"))
        values = self.table.values
        ranks = [int(kind.removeprefix("rank ")) for kind in values["kind"] if kind != FULL]
        sizes = values["sample"]
        self.task = dropdown("task", values["task"], values["task"][0])
        self.size = slider("examples", sizes, sizes[len(sizes) // 2])
        self.rank = slider("rank", ranks, ranks[len(ranks) // 2])
        self.measure = choice("measure", [LOSS, MATCH], LOSS)
        self.steps = slider("steps", STEPS, 60)
        self.own: dict[tuple[str, int, str, int], Pair] = {}
        self.surface = Picture(900, 280, alt="who is ahead, by task and number of examples")
        self.curves = Picture(900, 360, alt="both methods, by number of examples")
        super().__init__(
            [self.task, self.size, self.rank, self.measure, self.steps],
            [self.surface, self.curves],
            alt="explorable: when full fine-tuning is ahead of LoRA",
        )
        self.start.description = "Measure my own point"
        self.start.layout.width = "220px"
        for control in (self.task, self.size, self.rank, self.measure):
            control.observe(self.refresh, names="value")
        self.refresh()

    @property
    def kind(self) -> str:
        return f"rank {self.rank.value}"

    def pair(self, task: str, size: int) -> Pair:
        """The runs of a cell, of either method at its best rate."""
        at = {"task": task, "sample": size, "lr": BEST}
        return self.table.cell({**at, "kind": FULL}), self.table.cell({**at, "kind": self.kind})

    @property
    def runs(self) -> list[Run]:
        """What the button does: the chosen cell, in full and with LoRA, in no more than `steps`."""
        found = [run_of(rows[0]) for rows in self.pair(self.task.value, self.size.value)]
        return [replace(run, seed=0, steps=min(run.steps, self.steps.value)) for run in found]

    def work(self) -> str:
        runs = self.runs
        rows = run_here(self, runs)
        if rows is None:
            return "stopped: what was not trained to its end is not judged"
        run = runs[1]
        key = (run.task, run.sample or 0, f"rank {run.rank}", run.steps)
        self.own = {**self.own, key: ([rows[0]], [rows[1]])}
        self.refresh()
        return f"{run.steps} steps of both in {rows[1]['made']['seconds']:.0f} s"

    @shown
    def refresh(self, change=None) -> None:
        self._draw_surface()
        self._draw_curves()

    def _draw_surface(self) -> None:
        tasks, sizes = self.table.values["task"], self.table.values["sample"]
        measure, here = self.measure.value, (self.task.value, self.size.value)
        found = {(t, n): ahead(*self.pair(t, n), measure) for t in tasks for n in sizes}
        with self.surface.drawing(blit=True) as ax:
            draw_surface(
                ax,
                {(t, f"{n:,}"): value for (t, n), value in found.items()},
                rows=tasks,
                columns=[f"{n:,}" for n in sizes],
                x=AXES["sample"],
                title=TITLES[measure],
                note=self.kind,
                limit=LIMITS[measure],
                ratio=measure == LOSS,
                here=(here[0], f"{here[1]:,}"),
            )
        self.surface.text = f"{here[0]}, {here[1]:,} examples: " + in_words(
            *self.pair(*here), measure, self.kind
        )

    def _draw_curves(self) -> None:
        task, measure, sizes = self.task.value, self.measure.value, self.table.values["sample"]
        pairs = {size: self.pair(task, size) for size in sizes}
        own: dict[str, dict[Any, list[float]]] = {FULL: {}, LORA: {}}
        for (of_task, size, kind, _), pair in self.own.items():
            for name, rows in zip(own, pair, strict=True):
                if (of_task, kind) == (task, self.kind):
                    own[name].setdefault(size, []).extend(all_measured(rows, measure))
        with self.curves.drawing(blit=True) as ax:
            draw_spread(
                ax,
                {
                    name: {size: all_measured(pair[i], measure) for size, pair in pairs.items()}
                    for i, name in enumerate(own)
                },
                styles=STYLES,
                x=AXES["sample"],
                y=measure,
                places=sizes,
                bounds=self._bounds(measure, task),
                here=self.size.value,
                own=own,
            )
        self.curves.text = self._curves_in_words()

    def _bounds(self, measure: str, task: str) -> tuple[float, float]:
        """Of the y axis: all best runs of the task and of the student, whatever the rank."""
        if measure == MATCH:
            return -0.04, 1.06
        table = self.table
        rows = [
            row
            for size in table.values["sample"]
            for kind in table.values["kind"]
            for row in table.cell({"task": task, "sample": size, "kind": kind, "lr": BEST})
        ]
        rows += [
            row for key, pair in self.own.items() for part in pair for row in part if key[0] == task
        ]
        return log_limits(all_measured(rows, measure), decades=9)

    def _curves_in_words(self) -> str:
        task, size, measure = self.task.value, self.size.value, self.measure.value
        pair, parts = self.pair(task, size), []
        for name, rows in zip((FULL, self.kind), pair, strict=True):
            tried = self.table.rates({"task": task, "sample": size, "kind": name, "lr": BEST})
            parts.append(
                f"{name} ({which_rate(rate(rows), tried, BEST)}): {measure} "
                + told(all_measured(rows, measure), measure)
            )
        steps = run_of(pair[0][0]).steps
        text = "; ".join(parts) + f"; {steps} steps ({where(pair[0] + pair[1])})"
        for (of_task, of_size, kind, taken), own in self.own.items():
            if (of_task, of_size, kind) == (task, size, self.kind):
                only = f"only {taken} of the sweep's {steps}" if taken < steps else f"all {steps}"
                text += f". Yours ({where(own[0])}, seed 0, {only} steps): "
                text += in_words(*own, measure, kind)
        return text
