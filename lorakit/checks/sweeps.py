"""The exercise on sweeps: choose a learning rate, and say whether the search was wide enough."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lorakit.checks.exercise import Exercise, Facet, Mistake

Row = dict[str, Any]


def _rows(losses: Mapping[float, list[tuple[float, float]]]) -> list[Row]:
    """Rows as the lab's sweeps have them; losses by rate, a pair a seed: validation, held-out.

    A validation loss of NaN is a run that diverged.
    """
    return [
        {
            "run": {"lr": rate, "seed": seed},
            "diverged": math.isnan(validation),
            "validation": [1 / (1 + rate), None if math.isnan(validation) else validation],
            "heldout": [1 / (1 + rate), heldout],
        }
        for rate, pairs in losses.items()
        for seed, (validation, heldout) in enumerate(pairs)
    ]


# A rate of its own for each way to choose.
INSIDE = {
    0.001: [(0.50, 0.50), (0.52, 0.52), (0.51, 0.51)],
    0.002: [(0.30, 0.19), (0.34, 0.18), (0.32, 0.20)],  # the best on held-out examples
    0.004: [(0.25, 0.26), (0.26, 0.27), (0.27, 0.28)],  # the best
    0.008: [(0.10, 0.30), (0.55, 0.60), (0.54, 0.60)],  # has the best run
    0.016: [(0.60, 0.60), (0.62, 0.63), (0.64, 0.64)],
}
AT_AN_END = {rate: pairs for rate, pairs in INSIDE.items() if rate in (0.001, 0.002, 0.004)}
DIVERGED = INSIDE | {0.008: [(0.20, 0.21), (math.nan, 9.0), (0.21, 0.22)]}


def _chosen(choose: Callable[[list[Row]], tuple[float, bool]]) -> Iterator[Facet]:
    for what, losses in {"": INSIDE, ", narrow": AT_AN_END, ", a run diverged": DIVERGED}.items():
        rate, enough = choose(_rows(losses))
        yield f"the rate{what}", rate
        yield f"a better one beyond can be ruled out{what}", bool(enough)


check_choose = Exercise(
    key="choose",
    page="04",
    prompt="""\
### Exercise: read a sweep

`rows` are the runs of one method: several rates, several seeds each. `row["run"]["lr"]` is the
rate, `row["validation"]` and `row["heldout"]` are exact match and loss on either set of examples,
`row["diverged"]` tells of a run that went astray (its loss is None). Choose a learning rate by
loss, and say whether the search was wide enough to trust it.

Yours reads the lab's sweeps, too: `evidence.grid("rank")`, one task and one rank of it.""",
    imports="import math\nfrom statistics import mean",
    starter="""\
def choose(rows: list[dict]) -> tuple[float, bool]:
    losses = {}
    for row in rows:
        losses.setdefault(row["run"]["lr"], []).append(...)
    return ...""",
    solution="""\
def choose(rows: list[dict]) -> tuple[float, bool]:
    losses = {}
    for row in rows:
        loss = math.inf if row["diverged"] else row["validation"][1]
        losses.setdefault(row["run"]["lr"], []).append(loss)
    best = min(losses, key=lambda rate: mean(losses[rate]))
    return best, min(losses) < best < max(losses)""",
    answers=("choose",),
    observe=_chosen,
    first="Which of the two sets of examples may choose, if the other one is to judge?",
    hints=(
        "one number for each rate, out of several seeds. What do you do with a rate at which a "
        "seed went astray?",
        "if the best rate is the lowest that was tried, what may lie below it?",
    ),
    example="",
    right="Chosen on validation, over seeds, and not at an end of what was tried",
    mistakes=(
        Mistake(
            "best on held-out examples",
            "These examples are to judge the rate. What are they worth if they have chosen it?",
            {'row["validation"][1]': 'row["heldout"][1]'},
        ),
        Mistake(
            "exact match taken for the loss",
            "That is the lowest of the other number. Which of the two is better when it is low?",
            {'row["validation"][1]': 'row["validation"][0]'},
        ),
        Mistake(
            "best single run",
            "One lucky seed chose it. How did the other seeds fare at that rate?",
            {"mean(losses[rate])": "min(losses[rate])"},
        ),
        Mistake(
            "highest loss",
            "Nowhere is the loss as high as at your rate. Is a low or a high loss better?",
            {"best = min(losses, key": "best = max(losses, key"},
        ),
        Mistake(
            "an end not looked at",
            "In one sweep the best rate is the last that was tried. What is known of the next one?",
            {"min(losses) < best < max(losses)": "True"},
        ),
        Mistake(
            "wide enough at an end, too narrow inside",
            "The rate is right, and the other answer the wrong way round. Which one is True when "
            "it can be trusted?",
            {"min(losses) < best < max(losses)": "best in (min(losses), max(losses))"},
        ),
        Mistake(
            "diverged run left out",
            "The rate that you chose loses one run of three. Would you train with it?",
            {
                "        loss = math.inf if": (
                    "        if row['diverged']:\n            continue\n        loss = math.inf if"
                )
            },
        ),
    ),
)
