"""Full fine-tuning beside LoRA, in one number and in words.

    loss           LoRA's / full's      above 1: full is ahead
    exact match    full's - LoRA's      above 0: full is ahead

Rows in, numbers out; which runs are compared is the caller's.
"""

import math
from collections.abc import Sequence
from statistics import fmean

from lorakit.sweep import Row
from lorakit.widgets.sweep_table import FULL, LOSS, MATCH, all_measured, written


def ahead(full: Sequence[Row], lora: Sequence[Row], measure: str) -> float:
    """How far full fine-tuning is ahead: LoRA's loss over its own, or its match less LoRA's."""
    mine, other = (fmean(all_measured(rows, measure)) for rows in (full, lora))
    if measure == MATCH:
        return mine - other
    return other / mine if math.isfinite(mine) and math.isfinite(other) else math.nan


def in_words(full: Sequence[Row], lora: Sequence[Row], measure: str, name: str) -> str:
    """The difference, the two numbers behind it, and in how many seeds it has that sign."""
    mine, other = (all_measured(rows, measure) for rows in (full, lora))
    value, even = ahead(full, lora, measure), 1.0 if measure == LOSS else 0.0
    numbers = f"{written(fmean(mine), measure)} and {written(fmean(other), measure)}"
    if not math.isfinite(value):
        return f"{measure} of full and {name}: {numbers}"
    if measure == LOSS:
        text = f"the loss of {name} is {value:.3g} times that of full"
    else:
        text = f"the exact match of full less that of {name} is {value:+.4f}"
    text += f" (full and {name}: {numbers}): "
    if math.isclose(value, even, abs_tol=1e-9):
        return text + "they are equal"
    by_seed = [ahead([a], [b], measure) for a, b in zip(full, lora, strict=True)]
    same = [one for one in by_seed if (one - even) * (value - even) > 0]
    text += f"{FULL if value > even else name} is ahead"
    return text + (f", in {len(same)} of {len(by_seed)} seeds" if len(by_seed) > 1 else "")
