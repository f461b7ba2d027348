"""Two things compared: are they the same, and if not, how do they differ, without telling a number.

Floats are the same within a ten-thousandth. Knows nothing of exercises.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from torch import Tensor

CLOSE = 1e-4  # relative; MB and MiB differ by a twentieth


def plain(value: Any) -> Any:
    """Tensors as numbers and lists, so that they compare as these do."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def times(found: Tensor, unit: Tensor) -> float:
    """How many times `unit` there is in `found`, of the same shape."""
    return ((found * unit).sum() / unit.square().sum()).item()


def same(one: Any, other: Any) -> bool:
    one, other = plain(one), plain(other)
    if _is_number(one) and _is_number(other):
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=1e-6)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


def difference(wanted: Any, came: Any) -> str:
    """How `came` differs from `wanted`: of numbers the ratio alone, so that none is given away."""
    wanted, came = plain(wanted), plain(came)
    if _is_number(wanted) and _is_number(came):
        return _ratio(wanted, came)
    if isinstance(wanted, list) and isinstance(came, list):
        return _first_difference(wanted, came)
    return f"expected {_shown(wanted)}, got {_shown(came)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_number(value):
        return "a number"
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _ratio(wanted: float, came: float) -> str:
    if not math.isfinite(came):
        return f"not a finite number, {came}"
    if same(wanted, 0):
        return "it should be 0, and is not"
    if same(came, 0):
        return "it is 0, and should not be"
    times = came / wanted
    if times < 0:
        return "its sign is wrong"
    size = times if times > 1 else 1 / times
    return f"too {'large' if times > 1 else 'small'} by {_about(size)}"


def _about(times: float) -> str:
    """Roughly: who answers 1 would otherwise be told the number."""
    if times < 1.1:
        return f"about {100 * (times - 1):.1g} percent"
    digits = 1 if times < 2 else -math.floor(math.log10(times))
    return f"about {round(times, digits):,g} times"


def _first_difference(wanted: Sequence, came: Sequence) -> str:
    if not all(map(_is_number, [*wanted, *came])) or len(wanted) != len(came):
        return f"expected {_shown(wanted)}, got {_shown(came)}"
    wrong = [i for i in range(len(wanted)) if not same(wanted[i], came[i])]
    first = wrong[0]
    return (
        f"{len(wrong)} of {len(wanted)} differ, the first at position {first}: "
        f"{difference(wanted[first], came[first])}"
    )
