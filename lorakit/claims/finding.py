"""What became of a claim: a sentence with numbers, a verdict, and the curves behind it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import mean

# x (may be words), mean or ratio of means, lowest, highest
Point = tuple[float | str, float, float, float]
Lines = dict[str, list[Point]]

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot tell"
ENOUGH = 5  # seeds; with fewer nothing is decided


@dataclass(frozen=True)
class Curves:
    """Lines over one axis, by name."""

    x: str
    y: str
    lines: Lines = field(default_factory=dict)
    log: tuple[bool, bool] = (False, False)


@dataclass(frozen=True)
class Finding:
    """What was measured on one base."""

    measured: str
    verdict: str
    seeds: int | None  # None: counted, and the same for every seed
    rows: str  # where the raw rows are
    curves: Curves | None = None


def decided(holds: bool, seeds: int | None) -> str:
    """The verdict of a comparison over so many seeds."""
    if seeds is not None and seeds < ENOUGH:
        return UNKNOWN
    return HOLDS if holds else FAILS


def point(x: float | str, values: Iterable[float]) -> Point:
    """One point of a curve, with its spread over seeds."""
    seen = list(values)
    return x, round(mean(seen), 5), round(min(seen), 5), round(max(seen), 5)


def ratio(x: float | str, values: Sequence[float], others: Sequence[float]) -> Point:
    """The mean of `values` over that of `others`; the spread is that of the seeds' own ratios."""
    apart = [value / other for value, other in zip(values, others, strict=True)]
    middle = mean(values) / mean(others)
    return x, round(middle, 5), round(min(apart), 5), round(max(apart), 5)


def listed(values: Sequence[float], digits: int = 2) -> str:
    """0.12, 0.3, 4 and so on, as a sentence has them."""
    return ", ".join(f"{value:.{digits}f}" for value in values)
