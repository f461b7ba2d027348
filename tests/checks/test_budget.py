"""Searches of other kinds, and gradients put together in other ways."""

import pytest
import torch
from torch.nn import functional as F

import lorakit as lk
from lorakit.checks import check_accumulate, check_largest


def by_halving(needs, budget):
    low, high = 0, 4096
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needs(middle) <= budget else (low, middle)
    return low


def test_another_search_is_right():
    check_largest(by_halving, strict=True)


@pytest.mark.parametrize("budget", [10**7, 20 * 10**6])
def test_the_solution_finds_what_the_lab_finds(budget):
    (largest,) = check_largest.answer(check_largest.solution)

    def setup(rows):
        return lk.Setup(model=lk.PRESETS["mini"], length=64, batch_size=rows)

    found = largest(lambda rows: lk.estimate(setup(rows)).device, budget)
    assert found == lk.largest_batch(budget, setup(1)).batch_size


def endless(needs, budget):
    while needs(1):
        pass


@pytest.mark.parametrize(
    ("largest", "name"),
    [
        (lambda needs, budget: by_halving(needs, budget) + 1, "first that does not fit"),
        (lambda needs, budget: max(1, by_halving(needs, budget)), "at least one row"),
        (
            lambda needs, budget: by_halving(needs, budget - 1),
            "a batch that fits to the byte left out",
        ),
        (lambda needs, budget: int(budget / needs(1)), "every row taken as dear as the first"),
        (lambda needs, budget: 2 * by_halving(needs, budget), None),
        (endless, None),
    ],
)
def test_what_others_do_wrong(largest, name):
    verdict = check_largest.judge(largest)
    assert (verdict.name, verdict.kind == "mistake") == (name, name is not None)


def test_a_search_that_never_ends_is_ended():
    assert "when does your search end?" in check_largest.judge(endless).text


def weighted(model, micro_batches):
    rows = [len(x) for x, _ in micro_batches]
    for (x, labels), n in zip(micro_batches, rows, strict=True):
        (F.cross_entropy(model(x), labels) * n / sum(rows)).backward()


def all_at_once(model, micro_batches):
    x, labels = (torch.cat(part) for part in zip(*micro_batches, strict=True))
    F.cross_entropy(model(x), labels).backward()


def summed(model, micro_batches):
    losses = [F.cross_entropy(model(x), labels) for x, labels in micro_batches]
    (sum(losses) / len(losses)).backward()


def half(model, micro_batches):
    all_at_once(model, micro_batches)
    model.weight.grad /= 2


@pytest.mark.parametrize("accumulate", [weighted, all_at_once])
def test_other_ways_to_the_same_gradient_are_right(accumulate):
    check_accumulate(accumulate, strict=True)


@pytest.mark.parametrize(("accumulate", "name"), [(summed, "mean of the means"), (half, None)])
def test_other_gradients(accumulate, name):
    assert check_accumulate.judge(accumulate).name == name


def test_a_gradient_of_half_the_size_is_told_so():
    told = check_accumulate.judge(half).text
    assert told == "the gradient, beside that of one batch: too small by about 2 times"
