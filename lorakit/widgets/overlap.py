"""Did two LoRA runs find the same directions: phi(i, j) of a layer, beside two random subspaces."""

import ipywidgets
from torch import Tensor

from lorakit.deltas import deltas
from lorakit.plots import draw_overlap
from lorakit.run import Result
from lorakit.subspaces import overlaps, random_overlaps
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import choice, dropdown

INPUT, OUTPUT = "input (V)", "output (U)"


class OverlapExplorer(Explorable):
    """Two LoRA results of one base; a layer, a side -> `overlaps`, and those of random subspaces.

    Input directions (V) are what a delta reads, output directions (U) what it writes.
    """

    def __init__(self, first: Result, second: Result):
        for result in (first, second):
            if result.run.lora is None:
                raise ValueError(
                    f"overlaps are of two LoRA runs, got a run of {result.run.method!r}: give "
                    'results of Run(method="lora")'
                )
        if first.run.base != second.run.base:
            raise ValueError(
                f"one run is of {first.run.base}, the other of {second.run.base}: directions can "
                "only be compared in one base"
            )
        self.deltas = tuple(
            {delta.layer: delta for delta in deltas(result.model)} for result in (first, second)
        )
        names = [name for name in self.deltas[0] if name in self.deltas[1]]
        if not names:
            raise ValueError(
                f"no layer has adapters in both runs: the targets are {first.run.targets} and "
                f"{second.run.targets}"
            )
        self.runs = tuple(f"rank {r.run.rank}, seed {r.run.seed}" for r in (first, second))
        labels = {name.removeprefix("model.layers."): name for name in names}
        self.layer = dropdown("layer", labels, names[0])
        self.side = choice("directions", [INPUT, OUTPUT], INPUT)
        self.found = Picture(450, 390, alt="overlap of the two runs' directions")
        self.random = Picture(450, 390, alt="overlap of random directions")
        super().__init__(
            [self.layer, self.side, ipywidgets.HBox([self.found, self.random])],
            alt="explorable: do two LoRA runs find the same directions",
        )
        for control in (self.layer, self.side):
            control.observe(self.refresh, names="value")
        self.refresh()

    @property
    def overlaps(self) -> tuple[Tensor, Tensor]:
        """phi (k1, k2) of what the controls stand for, and of random subspaces as large."""
        first, second = self._directions
        d, k1 = first.shape
        return overlaps(first, second), random_overlaps(d, k1, second.shape[1])

    @property
    def _directions(self) -> tuple[Tensor, Tensor]:
        first, second = (found[self.layer.value] for found in self.deltas)
        return (first.V, second.V) if self.side.value == INPUT else (first.U, second.U)

    @shown
    def refresh(self, change=None) -> None:
        found, chance = self.overlaps
        where = f"{self.layer.label}, {self.side.value}"
        for picture, phi, title, of in (
            (self.found, found, where, self.runs),
            (self.random, chance, "random directions", [f"{n} random ones" for n in chance.shape]),
        ):
            with picture.drawing() as ax:
                draw_overlap(ax, phi, title=title, first=of[0], second=of[1])
        self.found.text = f"{where}: {describe(found)}"
        d = self._directions[0].shape[0]
        self.random.text = f"random directions of {d} dimensions: {describe(chance)}"

    def close(self) -> None:
        """Take it off the page, and let go of the deltas."""
        super().close()
        self.deltas = ({}, {})


def describe(phi: Tensor) -> str:
    """The overlap of the first directions alone, and of all."""
    rows, columns = phi.shape
    return f"phi(1, 1) = {phi[0, 0].item():.2f}, phi({rows}, {columns}) = {phi[-1, -1].item():.2f}"
