"""The controls of a run: method, rank, alpha and batch size. They hold the choice, nothing more."""

from collections.abc import Callable
from dataclasses import replace

import ipywidgets

from lorakit.run import Run

RANKS = (1, 2, 4, 8, 16, 32, 64)
ALPHAS = (1, 2, 4, 8, 16, 32, 64, 128)
BATCHES = (1, 2, 4, 8, 16, 32)


class Settings(ipywidgets.VBox):
    """Sliders that turn a `Run` into another; rank and alpha rest while the method is full."""

    def __init__(self, run: Run):
        self._run = run
        self.method = ipywidgets.ToggleButtons(
            options=["lora", "full"],
            value=run.method,
            description="method",
            style={"description_width": "90px"},
        )
        self.rank = _slider("rank", RANKS, run.rank)
        self.alpha = _slider("alpha", ALPHAS, run.alpha)
        self.batch_size = _slider("batch size", BATCHES, run.batch_size)
        self.controls = (self.method, self.rank, self.alpha, self.batch_size)
        self.method.observe(self._rest, names="value")
        self._rest()
        super().__init__(self.controls)

    @property
    def run(self) -> Run:
        """The run that the controls stand for."""
        method = self.method.value
        return replace(
            self._run,
            method=method,
            lr=self._run.lr if method == self._run.method else None,  # a rate is its method's own
            rank=self.rank.value,
            alpha=float(self.alpha.value),
            batch_size=self.batch_size.value,
        )

    def observe_all(self, callback: Callable) -> None:
        for control in self.controls:
            control.observe(callback, names="value")

    def _rest(self, change=None) -> None:
        for slider in (self.rank, self.alpha):
            slider.disabled = self.method.value == "full"


def _slider(name: str, options: tuple[int, ...], value: float) -> ipywidgets.SelectionSlider:
    return ipywidgets.SelectionSlider(
        options=[(f"{option:g}", option) for option in sorted({*options, value})],
        value=value,
        description=name,
        layout=ipywidgets.Layout(width="420px"),
        style={"description_width": "90px"},
    )
