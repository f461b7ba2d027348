"""A bar holds or falls with the numbers, and names where they are worst."""

import copy

import pytest

from lorakit.bars import bars
from lorakit.mini_tasks import DEEP, GRADED, NARROW


def spread(mean: float, width: float = 0.0) -> dict[str, float]:
    return {"mean": mean, "sd": width, "min": mean - width, "max": mean + width}


def line(task, method, rank, match, *, shuffled=0.0, loss=0.1):
    return {
        "task": task,
        "method": method,
        "rank": rank,
        "exact_match": spread(match),
        "shuffled": spread(shuffled),
        "loss": spread(loss, 0.05),
    }


@pytest.fixture
def good() -> dict[str, list[dict]]:
    """Numbers on which every bar holds."""
    summary = [line(task, "full", None, 0.99) for task in NARROW]
    summary += [line(task, "lora", rank, 0.98) for task in NARROW for rank in (1, 8)]
    for task in GRADED:
        summary += [line(task, "full", None, 0.99), line(task, "lora", 1, 0.8)]
        summary += [line(task, "lora", 8, 0.98)]
    summary += [line(DEEP, "full", None, 0.0, loss=0.5)]
    summary += [line(DEEP, "lora", rank, 0.0, loss=1.0) for rank in (1, 8)]
    return {
        "base": [{"task": task, "exact_match": 0.05} for task in NARROW],
        "summary": summary,
        "cuts": [
            {
                "task": task,
                "heldout": spread(1.0),
                "cut": spread(0.95),
                "cut_alone": spread(0.92),
                "energy": spread(0.8),
                "energy_random": spread(0.2),
            }
            for task in NARROW
        ],
    }


def fallen(numbers) -> list[tuple[str, str]]:
    return [(bar["what"], bar["where"]) for bar in bars(**numbers) if not bar["holds"]]


def change(numbers, part, values, **where):
    changed = copy.deepcopy(numbers)
    (found,) = (x for x in changed[part] if all(x[key] == where[key] for key in where))
    found |= values
    return changed


def test_on_good_numbers_every_bar_holds(good):
    assert fallen(good) == []


@pytest.mark.parametrize(
    ("part", "where", "values", "what", "told"),
    [
        ("base", {"task": "json"}, {"exact_match": 0.2}, "base's exact match", "json"),
        ("base", {"task": "label"}, {"exact_match": 0.6}, "label task", "label"),
        (
            "summary",
            {"task": "quiz", "method": "lora", "rank": 8},
            {"shuffled": spread(0.2)},
            "names shuffled",
            "quiz lora 8",
        ),
        (
            "summary",
            {"task": "quiz", "method": "lora", "rank": 8},
            {"exact_match": spread(0.9)},
            "ahead of LoRA, rank 8",
            "quiz",
        ),
        (
            "summary",
            {"task": "quiz", "method": "lora", "rank": 1},
            {"exact_match": spread(0.9)},
            "ahead of LoRA, rank 1",
            "quiz",
        ),
        (
            "summary",
            {"task": DEEP, "method": "lora", "rank": 8},
            {"loss": spread(0.5)},
            "deep task",
            "8",
        ),
        ("cuts", {"task": "json"}, {"energy": spread(0.3)}, "energy of full's delta", "json"),
        ("cuts", {"task": "json"}, {"cut": spread(0.5)}, "cut to rank 8", "json"),
        ("cuts", {"task": "json"}, {"cut_alone": spread(0.5)}, "as an adapter", "json"),
    ],
)
def test_a_bad_number_fells_its_bar_and_is_named(good, part, where, values, what, told):
    ((bar, place),) = fallen(change(good, part, values, **where))
    assert what in bar
    assert place == told


def test_full_fine_tuning_has_a_bar_of_its_own(good):
    worse = {"exact_match": spread(0.9)}
    numbers = good
    for method, rank in (("full", None), ("lora", 1), ("lora", 8)):
        numbers = change(numbers, "summary", worse, task="json", method=method, rank=rank)
    assert fallen(numbers) == [("full fine-tuning on a narrow task", "json")]


def test_where_rank_matters_a_higher_rank_must_be_enough(good):
    numbers = good
    for task in list(GRADED)[:-1]:  # rank 8 falls short as well
        numbers = change(
            numbers, "summary", {"exact_match": spread(0.9)}, task=task, method="lora", rank=8
        )
    ((bar, _),) = fallen(numbers)
    assert "rank 1 is 0.1 behind full" in bar


def test_rank_must_be_visible_on_two_tasks(good):
    some = list(GRADED)[:-1]
    numbers = good
    for task in some:  # rank 1 does as well as full
        numbers = change(
            numbers, "summary", {"exact_match": spread(0.95)}, task=task, method="lora", rank=1
        )
    ((bar, _),) = fallen(numbers)
    assert "rank 1 is 0.1 behind full" in bar
