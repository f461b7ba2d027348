"""The controls of a run: method, rank, alpha and batch size. They hold the choice, nothing more."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ipywidgets

from lorakit.run import Run

RANKS = (1, 2, 4, 8, 16, 32, 64)
ALPHAS = (1, 2, 4, 8, 16, 32, 64, 128)
BATCHES = (1, 2, 4, 8, 16, 32)
RESTING = "#666666"  # a handle's colour, which the page makes pale


def slider(
    name: str, options: Sequence[float], value: float, *, on_release: bool = False
) -> ipywidgets.SelectionSlider:
    """A slider over `options` and `value`; with `on_release` it speaks when the mouse lets go."""
    return ipywidgets.SelectionSlider(
        options=[(f"{option:g}", option) for option in sorted({*options, value})],
        value=value,
        description=name,
        continuous_update=not on_release,
        **_PLACE,
    )


def stops(name: str, options: Mapping[str, Any], value: Any) -> ipywidgets.SelectionSlider:
    """A slider over values with names, in their order."""
    return ipywidgets.SelectionSlider(
        options=list(options.items()), value=value, description=name, **_PLACE
    )


def dropdown(
    name: str, options: Sequence[Any] | Mapping[str, Any], value: Any
) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(options=options, value=value, description=name, **_PLACE)


def choice(name: str, options: Sequence[Any], value: Any) -> ipywidgets.ToggleButtons:
    """Buttons of which one is down."""
    return ipywidgets.ToggleButtons(
        options=options, value=value, description=name, style=_PLACE["style"]
    )


def explain(control: ipywidgets.Widget, words: str) -> None:
    """Say more of a control than its description: to a mouse at rest, and to a screen reader."""
    # ipywidgets 7 has tooltips of buttons and of descriptions alone.
    name = "tooltip" if control.has_trait("tooltip") else "description_tooltip"
    setattr(control, name, words)


def rest(control: ipywidgets.Widget, resting: bool) -> None:
    """Disable a control or enable it; the handle of a slider at rest is not white on white."""
    control.disabled = resting
    if "handle_color" in control.style.trait_names():
        control.style.handle_color = RESTING if resting else None


def methods(run: Run) -> list[str]:
    """Full fine-tuning and LoRA, and the run's own if it is another."""
    return list(dict.fromkeys(("full", "lora", run.method)))


_PLACE: dict[str, Any] = {"layout": {"width": "420px"}, "style": {"description_width": "90px"}}


class Settings(ipywidgets.VBox):
    """Sliders that turn a `Run` into another; rank and alpha rest while the method is full.

    Without `alpha` that slider is left out: where it would change nothing.
    """

    def __init__(self, run: Run, *, alpha: bool = True, on_release: bool = False):
        self._run = run
        self.method = choice("method", methods(run), run.method)
        self.rank = slider("rank", RANKS, run.rank, on_release=on_release)
        self.alpha = slider("alpha", ALPHAS, run.alpha)
        self.batch_size = slider("batch size", BATCHES, run.batch_size, on_release=on_release)
        self.controls = (
            self.method,
            self.rank,
            *([self.alpha] if alpha else []),
            self.batch_size,
        )
        super().__init__(self.controls)

    @property
    def run(self) -> Run:
        """The run that the controls stand for."""
        return replace(
            self._run.with_method(self.method.value),
            rank=self.rank.value,
            alpha=float(self.alpha.value),
            batch_size=self.batch_size.value,
        )

    def observe_all(self, callback: Callable) -> None:
        for control in self.controls:
            control.observe(callback, names="value")

    def rest_when_full(self) -> None:
        """Let rank and alpha rest while the method is full: then they decide nothing."""
        self.method.observe(self._rest, names="value")
        self._rest()

    def _rest(self, change=None) -> None:
        for control in (self.rank, self.alpha):
            rest(control, self.method.value == "full")
