"""Where a step's time goes on this machine: full, LoRA twice, and the floor under every LoRA."""

from dataclasses import replace

import ipywidgets

from lorakit.device import describe as device_name
from lorakit.device import pick_device
from lorakit.plots import draw_step_times
from lorakit.run import Run
from lorakit.step_times import StepTimes, step_times
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import BATCHES, RANKS, slider


class StepTimesExplorer(Explorable):
    """Rank and batch size, let go -> real steps, timed -> a bar a kind."""

    def __init__(self, run: Run):
        self.run = run
        self.rank = slider("rank", RANKS, run.rank, on_release=True)
        self.batch_size = slider("batch size", BATCHES, run.batch_size, on_release=True)
        self.again = ipywidgets.Button(description="Measure again", icon="refresh")
        self.picture = Picture(720, 260, alt="milliseconds of a training step's phases")
        super().__init__(
            [self.rank, self.batch_size, self.again, self.picture],
            alt="explorable: where a step's time goes on this machine",
        )
        self.times: dict[str, StepTimes] = {}
        for control in (self.rank, self.batch_size):
            control.observe(self.refresh, names="value")
        self.again.on_click(self.refresh)
        self.refresh()

    @shown
    def refresh(self, change=None) -> None:
        controls = (self.rank, self.batch_size, self.again)
        for control in controls:
            control.disabled = True
        self.picture.text = "measuring"
        try:
            self.times = step_times(
                replace(self.run, rank=self.rank.value, batch_size=self.batch_size.value)
            )
        finally:
            for control in controls:
                control.disabled = False
        with self.picture.drawing() as ax:
            draw_step_times(ax, self.times)
        full, taught, fast, floor = (
            self.times[kind].total for kind in ("full", "taught", "fast", "floor")
        )
        self.picture.text = (
            f"rank {self.rank.value}, a batch of {self.batch_size.value}, on "
            f"{device_name(pick_device())}: of a full step LoRA as taught takes {taught / full:.0%}"
            f", fast {fast / full:.0%}; under {floor / full:.0%} no LoRA can go"
        )
