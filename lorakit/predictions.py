"""A prediction: what was guessed before the result was seen, the result, and how far off it was.

A guess is one of three kinds, and so is its result: an option (str), a number (float), or a curve
(pairs of a place on the x axis and a number). Numbers are compared by their factor: 40 MB guessed
for 10 MB is 4 times too high, whatever is small or large here. Knows no widgets and no drawing.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from lorakit.answers import Answers

Curve = tuple[tuple[str, float], ...]
Value = str | float | Curve
NEAR = 2  # a number within this factor was well guessed
SAME = 1.05  # and within this one, right


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A question, its guess (None: nobody guessed), its result (None: nobody has seen it yet).

    `log` says that the numbers of a curve are compared by their factors, not their differences.
    """

    question: str
    guess: Value | None = None
    result: Value | None = None
    unit: str = ""
    log: bool = False

    @property
    def said(self) -> str:
        """The guess in words."""
        return "no guess was made" if self.guess is None else in_words(self.guess, self.unit)

    @property
    def found(self) -> str:
        """The result in words."""
        return "not seen yet" if self.result is None else in_words(self.result, self.unit)

    @property
    def verdict(self) -> str:
        """Right, or how far off; empty while there is nothing to compare."""
        guess, result = self.guess, self.result
        if isinstance(guess, str) and isinstance(result, str):
            return "right" if guess == result else "not right"
        if isinstance(guess, float) and isinstance(result, float):
            return how_far(guess, result, self.unit)
        if isinstance(guess, tuple) and isinstance(result, tuple):
            return how_far_apart(guess, result, self.unit, log=self.log)
        return ""

    @property
    def sentence(self) -> str:
        """Guess, result and verdict in one line."""
        guess = self.said if self.guess is None else f"you said {self.said}"
        end = f": {self.verdict}" if self.verdict else ""
        return f"{guess}, the result is {self.found}{end}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Any) -> "Prediction | None":
        """What `to_json` gave; None for anything else, which is nobody's prediction."""
        try:
            values = {name: _value(found[name]) for name in ("guess", "result")}
            made = cls(**{**found, **values})
        except (TypeError, KeyError, ValueError):
            return None
        words = isinstance(made.question, str) and isinstance(made.unit, str)
        return made if words and isinstance(made.log, bool) else None


def read(answers: Answers, prefix: str) -> dict[str, Prediction]:
    """Every prediction whose key begins with `prefix`, by its key."""
    found = {key: Prediction.from_json(answers.get(key)) for key in answers.keys(prefix)}
    return {key: prediction for key, prediction in found.items() if prediction}


def summary(predictions: Mapping[str, Prediction]) -> str:
    """How many results were guessed before they were seen, and how well."""
    seen = [p for p in predictions.values() if p.result is not None]
    guessed = [p for p in seen if p.guess is not None]
    if not predictions:
        return "no prediction is kept yet"
    parts = [f"{len(guessed)} of {len(seen)} results guessed before they were seen"]
    if choices := [p for p in guessed if isinstance(p.guess, str)]:
        right = sum(p.guess == p.result for p in choices)
        parts.append(f"{right} of {len(choices)} choices right")
    if numbers := [p for p in guessed if isinstance(p.guess, float)]:
        near = sum(_near(p.guess, p.result) for p in numbers)
        parts.append(f"{near} of {len(numbers)} numbers within a factor of {NEAR}")
    if open_ := len(predictions) - len(seen):
        parts.append(f"{open_} still without a result")
    return ", ".join(parts)


def in_words(value: Value, unit: str = "") -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{x}: {in_words(y, unit)}" for x, y in value)
    if isinstance(value, str):
        return value
    plain = 1000 <= abs(value) < 1e15 or value == round(value)
    number = f"{value:,.0f}" if plain and abs(value) < 1e15 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def how_far(guess: float, result: float, unit: str = "") -> str:
    """The factor between two numbers, and which way; their difference where one is not positive."""
    if guess == result:
        return "right"
    way = "too high" if guess > result else "too low"
    factor = _factor(guess, result)
    if factor is None:
        return f"{in_words(abs(guess - result), unit)} {way}"
    if factor <= SAME:
        return f"right, within a factor of {SAME}"
    return f"{_times(factor)} times {way}"


def how_far_apart(guess: Curve, result: Curve, unit: str = "", *, log: bool = False) -> str:
    """How far apart two curves typically are where both have points, where most, and their ways.

    With `log` by the factor between them, of points above zero; empty if there is nothing to say.
    """
    measured = dict(result)
    pairs = {x: (y, measured[x]) for x, y in guess if x in measured}
    if log:
        pairs = {x: (math.log(a), math.log(b)) for x, (a, b) in pairs.items() if min(a, b) > 0}
    gaps = {x: abs(a - b) for x, (a, b) in pairs.items()}
    if not gaps:
        return ""
    far = max(gaps, key=lambda x: gaps[x])
    if gaps[far] == 0:
        return "right"
    typical, most = (_gap(gap, unit, log=log) for gap in (median(gaps.values()), gaps[far]))
    off = f"off by {typical} (median of {len(gaps)} points), by {most} at {far}"
    if len(pairs) == 1:
        return off
    first, *_, last = pairs
    ways = [pairs[last][side] - pairs[first][side] for side in (0, 1)]
    level = math.log(SAME) if log else 1e-9 * max(abs(y) for pair in pairs.values() for y in pair)
    yours, found = (
        f"{'rises' if way > 0 else 'falls'} {'' if log else 'by '}{_gap(abs(way), unit, log=log)}"
        if abs(way) > level
        else "stays level"
        for way in ways
    )
    return f"{off}; from {first} to {last} yours {yours}, the result {found}"


def _gap(gap: float, unit: str, *, log: bool) -> str:
    """A difference of two values in words, or with `log` the factor that it stands for."""
    return f"{_times(math.exp(gap))} times" if log else in_words(gap, unit)


def _factor(guess: float, result: float) -> float | None:
    """How many times the smaller the larger is; None if that has no meaning."""
    if guess <= 0 or result <= 0:
        return None
    return max(guess, result) / min(guess, result)


def _near(guess: Any, result: Any) -> bool:
    factor = _factor(guess, result)
    return guess == result if factor is None else factor <= NEAR


def _times(factor: float) -> str:
    if factor < 9.95:
        return f"{factor:.1f}"
    return f"{factor:,.0f}" if factor < 1e6 else f"{factor:.1e}"


def _value(found: Any) -> Value | None:
    """A guess or result out of JSON. Raises what a wrong type raises."""
    if isinstance(found, bool):
        raise TypeError(found)
    if found is None or isinstance(found, str):
        return found
    if isinstance(found, list | tuple):
        return tuple((str(x), float(y)) for x, y in found)
    return float(found)
