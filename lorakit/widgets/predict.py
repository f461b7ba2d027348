"""Questions to guess at before the result shows: an option, a number, a curve.

    guess = Choice("02/changed", "Which matrix moves first?", ["A", "B", "both"])
    guess                                    # the controls; what they say is kept on a press
    guess.reveal("B")                        # in a later cell: the result, behind the guess

What happens between guess and result is `guess.py`'s.
"""

import math
import re
from collections.abc import Mapping, Sequence
from math import inf

import ipywidgets
from matplotlib.axes import Axes

from lorakit.plots.guesses import draw_guessed_curve, draw_guessed_number, draw_guessed_option
from lorakit.predictions import Curve, Value, in_words
from lorakit.widgets.explorable import shown
from lorakit.widgets.guess import Guess
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import explain
from lorakit.widgets.still import still

NUMBER = re.compile(r"[+-]?(\d{1,3}(,\d{3})+|\d+|(?=\.))(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE)
STOPS = 60  # of a slider, from one end to the other


class Choice(Guess):
    """Which of these? `reveal(option)` takes the right one."""

    def __init__(self, key: str, question: str, options: Sequence[str]):
        self.options = tuple(options)
        if len(set(self.options)) < max(2, len(self.options)):
            raise ValueError(f"a choice has at least two options, all different, got {options}")
        self.size = (760, 50 + 40 * len(self.options))
        layout = ipywidgets.Layout(width="max-content", max_width="100%")
        self.choice = ipywidgets.RadioButtons(options=self.options, value=None, layout=layout)
        explain(self.choice, question)
        children = [self.choice, still(question, [f"- {option}" for option in self.options])]
        super().__init__(key, question, [self.choice], children)

    def said(self) -> str:
        if self.choice.value is None:
            raise ValueError("nothing is chosen yet: choose an option, then keep it")
        return self.choice.value

    def put(self, value: str) -> None:
        self.choice.value = value

    def fits(self, value: Value) -> bool:
        return value in self.options

    def measured(self, result: str) -> str:
        if result not in self.options:
            raise ValueError(f"{result!r} is none of the options {list(self.options)}")
        return result

    def draw(self, ax: Axes, guess: str | None, result: str | None) -> None:
        draw_guessed_option(ax, self.options, guess, result)


class Number(Guess):
    """How many? `reveal(number)` says by which factor the guess is off; `log` is for its axis."""

    size = (760, 150)

    def __init__(self, key: str, question: str, unit: str = "", *, log: bool = False):
        # The press of a button can overtake the last of many messages, but not a single one.
        self.box = ipywidgets.Text(
            description="your guess", placeholder="a number", continuous_update=False
        )
        explain(self.box, question)
        of = f"- a number of {unit}" if unit else "- a number"
        row = ipywidgets.HBox([self.box, ipywidgets.Label(unit)])
        super().__init__(
            key, question, [self.box], [row, still(question, [of])], unit=unit, log=log
        )

    def said(self) -> float:
        number = as_number(self.box.value)
        if self._open.log and number <= 0:
            raise ValueError(f"a guess on a log axis is above zero, got {self.box.value!r}")
        return number

    def put(self, value: float) -> None:
        self.box.value = f"{value:,.15g}"

    def fits(self, value: Value) -> bool:
        return isinstance(value, float) and (value > 0 or not self._open.log)

    def measured(self, result: float) -> float:
        number = float(result)
        if not -inf < number < inf or not self.fits(number):
            raise ValueError(f"the result of this question is no such number: {result!r}")
        return number

    def draw(self, ax: Axes, guess: float | None, result: float) -> None:
        draw_guessed_number(ax, guess, result, unit=self._open.unit, log=self._open.log)


class Sketch(Guess):
    """What will the curve look like? A slider for each of `x`, from `y[0]` to `y[1]`.

    `reveal({x: y, ...})` takes what was measured, at all of these places; others are left out. With
    `log` the y axis is logarithmic, and guess and result are compared by their factors.
    """

    size = (760, 330)

    def __init__(
        self,
        key: str,
        question: str,
        *,
        x: Sequence[float | str],
        y: tuple[float, float],
        x_label: str = "",
        y_label: str = "",
        unit: str = "",
        log: bool = False,
    ):
        self.places = tuple(map(place, x))
        low, high = self.bounds = float(y[0]), float(y[1])
        if len(set(self.places)) < max(2, len(self.places)):
            raise ValueError(f"a curve has at least two places, all different, got {x}")
        if not low < high or (log and low <= 0):
            above = " above zero" if log else ""
            raise ValueError(f"y goes from a lower to a higher number{above}, got {y}")
        self.x_label, self.y_label = x_label, f"{y_label} ({unit})" if unit else y_label
        self.sliders = [upright(name, low, high, log=log) for name in self.places]
        for slider in self.sliders:
            explain(slider, f"{x_label} {slider.description}: your guess")
            slider.observe(self._sketch, names="value")
        self.picture = Picture(*self.size, alt=f"a curve to guess: {question}")
        row = ipywidgets.HBox(self.sliders)
        super().__init__(key, question, self.sliders, [row, self.picture], unit=unit, log=log)
        self._sketch()

    @shown
    def _sketch(self, change=None) -> None:
        with self.picture.drawing(blit=True) as ax:
            self.draw(ax, self.said(), None)
        self.picture.text = f"your curve: {in_words(self.said(), self._open.unit)}"

    def said(self) -> Curve:
        return tuple((s.description, float(s.value)) for s in self.sliders)

    def put(self, value: Curve) -> None:
        for slider, (_, y) in zip(self.sliders, value, strict=True):
            slider.value = y

    def fits(self, value: Value) -> bool:
        return isinstance(value, tuple) and tuple(x for x, _ in value) == self.places

    def measured(self, result: Mapping[float | str, float]) -> Curve:
        found = {place(x): float(y) for x, y in result.items()}
        if missing := [x for x in self.places if x not in found]:
            raise ValueError(f"the curve was guessed at {', '.join(missing)} too: measure there")
        wrong = [x for x in self.places if not (0 if self._open.log else -inf) < found[x] < inf]
        if wrong:
            raise ValueError(f"what was measured at {wrong[0]} has no place: {found[wrong[0]]}")
        return tuple((x, found[x]) for x in self.places)

    def draw(self, ax: Axes, guess: Curve | None, result: Curve | None) -> None:
        heights = [None if curve is None else [y for _, y in curve] for curve in (guess, result)]
        draw_guessed_curve(
            ax,
            self.places,
            heights[0],
            heights[1],
            bounds=self.bounds,
            x=self.x_label,
            y=self.y_label,
            log=self._open.log,
        )


def place(x: float | str) -> str:
    """What a place on the x axis is called: 8, 0.5, "all"."""
    return x if isinstance(x, str) else f"{x:,g}"


def upright(name: str, low: float, high: float, *, log: bool) -> ipywidgets.Widget:
    """A slider that stands, at the middle of its way."""
    style = {"orientation": "vertical", "description": name, "readout_format": ".3g"}
    kind = ipywidgets.FloatLogSlider if log else ipywidgets.FloatSlider
    ends = (math.log10(low), math.log10(high)) if log else (low, high)
    middle, step = sum(ends) / 2, (ends[1] - ends[0]) / STOPS
    return kind(10**middle if log else middle, min=ends[0], max=ends[1], step=step, **style)


def as_number(text: str) -> float:
    """1200, 1,200, 0.5 or 3e6. Raises ValueError for anything else."""
    text = text.strip()
    number = float(text.replace(",", "")) if NUMBER.fullmatch(text) else inf
    if math.isinf(number):
        raise ValueError(f"a number is asked for, such as 1,200 or 0.5 or 3e6, got {text!r}")
    return number
