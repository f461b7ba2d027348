"""Exercises that know the mistake: a check names what is wrong by a question, not by the answer.

difference.py   are two things the same, and how do they differ
exercise.py     an exercise as one value, and how an answer is judged
ladder.py       hint, hint, what gives the number that you get, solution
versions.py     pages with starters, for students, or with solutions, for instructors
layer.py, injection.py, counting.py, shapes.py, directions.py, sweeps.py, budget.py, saving.py,
merging.py, briefs.py, bits.py
                the exercises

On a page: `from lorakit import checks`, then `checks.check_lora_linear(MyLoRA)` and
`checks.hint("lora-linear")`. A check leaves nothing behind, and raises only if it is `strict`.
"""

from lorakit.checks.bits import check_quantize
from lorakit.checks.briefs import check_methods
from lorakit.checks.budget import check_accumulate, check_largest
from lorakit.checks.counting import (
    check_adapter_parameters,
    check_training_mebibytes,
)
from lorakit.checks.directions import check_energy, check_rank_for
from lorakit.checks.exercise import Exercise, Mistake, Verdict, Wrong
from lorakit.checks.injection import check_adapt, check_alpha_for
from lorakit.checks.ladder import Ladder
from lorakit.checks.layer import check_lora_linear
from lorakit.checks.merging import check_merge
from lorakit.checks.saving import check_save_load
from lorakit.checks.shapes import check_highest_rank
from lorakit.checks.sweeps import check_choose

# In the order of the pages.
EXERCISES: dict[str, Exercise] = {
    exercise.key: exercise
    for exercise in (
        check_lora_linear,
        check_adapt,
        check_adapter_parameters,
        check_highest_rank,
        check_energy,
        check_rank_for,
        check_alpha_for,
        check_choose,
        check_training_mebibytes,
        check_largest,
        check_accumulate,
        check_save_load,
        check_merge,
        check_methods,
        check_quantize,
    )
}
_ladder = Ladder(EXERCISES)
hint, solution = _ladder.hint, _ladder.solution

__all__ = [
    "EXERCISES",
    "Exercise",
    "Ladder",
    "Mistake",
    "Verdict",
    "Wrong",
    "check_accumulate",
    "check_adapt",
    "check_adapter_parameters",
    "check_alpha_for",
    "check_choose",
    "check_energy",
    "check_highest_rank",
    "check_largest",
    "check_lora_linear",
    "check_merge",
    "check_methods",
    "check_quantize",
    "check_rank_for",
    "check_save_load",
    "check_training_mebibytes",
    "hint",
    "solution",
]
