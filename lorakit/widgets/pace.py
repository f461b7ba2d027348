"""How long training takes on this machine: a few real steps of each method, timed."""

from dataclasses import replace
from statistics import median

import ipywidgets

from lorakit.begin import begin
from lorakit.device import describe as device_name
from lorakit.device import pick_device
from lorakit.plots import draw_pace
from lorakit.run import Run
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture


def seconds_a_step(run: Run, steps: int = 5) -> dict[str, float]:
    """Seconds that a training step of `run` takes, by method: the median of so many, after two."""
    return {method: _seconds(run.with_method(method), steps) for method in ("full", "lora")}


def _seconds(run: Run, steps: int) -> float:
    training = begin(replace(run, steps=max(run.steps, 2 + steps)))  # a schedule long enough
    records = [training.step() for _ in range(2 + steps)]
    return median(record.seconds for record in records[2:] if record is not None)


class PaceExplorer(Explorable):
    """A button -> `seconds_a_step` -> a bar a method, and what a whole run takes."""

    def __init__(self, run: Run):
        self.run = run
        self.again = ipywidgets.Button(description="Measure again", icon="refresh")
        self.picture = Picture(720, 160, alt="milliseconds a training step, full and LoRA")
        super().__init__(
            [self.again, self.picture], alt="explorable: how long training takes on this machine"
        )
        self.seconds: dict[str, float] = {}
        self.again.on_click(self.refresh)
        self.refresh()

    @shown
    def refresh(self, button=None) -> None:
        self.again.disabled, self.picture.text = True, "measuring"
        try:
            self.seconds = seconds_a_step(self.run)
        finally:
            self.again.disabled = False
        with self.picture.drawing() as ax:
            draw_pace(ax, self.seconds)
        whole = {method: self.run.steps * value for method, value in self.seconds.items()}
        self.picture.text = (
            f"{self.run.steps} steps on {device_name(pick_device())}: about {whole['full']:.0f} s "
            f"in full, {whole['lora']:.0f} s with LoRA"
        )
