"""Why B starts at zero: one adapter from four starts, trained side by side, live.

B zero        as LoRA does it: the delta is zero, and B has a gradient at once
A zero        the delta is zero as well, and A has a gradient at once
both zero     neither has one, ever: each one's gradient is multiplied by the other
both random   the delta is not zero: the base is broken before the first step
"""

import math
import time
from typing import Any

import torch
from torch import nn

from lorakit.plots import COLORS, draw_loss
from lorakit.run import Progress, Run
from lorakit.stacked import Stack
from lorakit.sweep import stack_runs
from lorakit.widgets.job import Job
from lorakit.widgets.picture import Picture

STYLES: dict[str, dict[str, Any]] = {
    "B zero": {"color": COLORS["lora"], "linewidth": 3},
    "A zero": {"color": COLORS["lora"], "linestyle": "--"},
    "both zero": {"color": COLORS["base"]},
    "both random": {"color": COLORS["random"], "linestyle": ":"},
}
STARTS = tuple(STYLES)


def stack_of_starts(run: Run) -> Stack:
    """The run four times, once from each of `STARTS`, as one program; a random B is drawn as A is.

    Raises ValueError if the run is not LoRA.
    """
    if run.lora is None:
        raise ValueError("full fine-tuning has no A and B to start from: use a run with lora")
    stack, _ = stack_runs([run] * len(STARTS))
    draw = torch.Generator(stack.device).manual_seed(run.seed)
    a_zero, both_zero, both_random = map(STARTS.index, ("A zero", "both zero", "both random"))
    with torch.no_grad():
        for name, p in stack.parameters.items():
            if name.endswith(".A"):
                p[[a_zero, both_zero]] = 0
            else:
                nn.init.kaiming_uniform_(p[a_zero], a=math.sqrt(5), generator=draw)
                p[both_random] = p[a_zero]
    return stack


class StartsExplorer(Job):
    """A run -> `stack_of_starts`, trained in a thread -> four live curves, then `losses`."""

    def __init__(self, run: Run):
        self.run = run
        self.losses: dict[str, list[float]] = {start: [] for start in STARTS}
        self.picture = Picture(720, 380, alt="loss by step from four starts of A and B")
        super().__init__([], [self.picture], alt="explorable: four ways to start A and B")
        self._draw()

    def work(self) -> str:
        self.losses = {start: [] for start in STARTS}
        self.show(Progress(stage="loading the base"))
        stack = stack_of_starts(self.run)
        began = time.monotonic()
        while stack.position < stack.steps and not self.stopping():
            for start, loss in zip(STARTS, stack.step().tolist(), strict=True):
                self.losses[start].append(loss)
            self.advance("training", stack.position, stack.steps, began=began)
            if self.due():
                self._draw()
        self._draw()
        return f"{stack.position} of {stack.steps} steps"

    def _draw(self) -> None:
        with self.picture.drawing() as ax:
            for start, losses in self.losses.items():
                draw_loss(ax, losses, total_steps=self.run.steps, label=start, **STYLES[start])
        if all(self.losses.values()):
            self.picture.text = "first and last loss: " + ", ".join(
                f"{start} {losses[0]:.2g} to {losses[-1]:.2g}"
                for start, losses in self.losses.items()
            )
