"""Sameness has a tolerance, and a difference tells no number."""

import math

import pytest
import torch

from lorakit.checks.difference import difference, same, times


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1.0, 1 + 5e-5),
        (0.0, 1e-8),
        ((1, 2), [1, 2]),
        (torch.tensor([1.0, 2.0]), (1, 2)),
        (torch.tensor(3), 3),
        ({"a": torch.tensor(1.0)}, {"a": 1}),
        ("full", "full"),
        (True, True),
    ],
)
def test_the_same(one, other):
    assert same(one, other) and same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (2**20, 10**6),
        (1.0, 1.001),
        (1, True),
        (0, False),
        ((1, 2), (1, 2, 3)),
        ({"a": 1}, {"b": 1}),
        ({"a": 1}, {"a": 2}),
        ("full", ["full"]),
        (1, None),
        (math.nan, math.nan),
        ((2, 6), (6, 2)),
    ],
)
def test_not_the_same(one, other):
    assert not same(one, other) and not same(other, one)


@pytest.mark.parametrize(
    ("wanted", "came", "words"),
    [
        (100, 400, "too large by about 4 times"),
        (100, 25, "too small by about 4 times"),
        (100, 105, "too large by about 5 percent"),
        (100, 100_000, "too large by about 1,000 times"),
        (100, -100, "its sign is wrong"),
        (100, 0, "it is 0, and should not be"),
        (0, 7, "it should be 0, and is not"),
        (100, math.inf, "not a finite number, inf"),
        (100, math.nan, "not a finite number, nan"),
        (
            [1, 2, 3],
            [1, 4, 9],
            "2 of 3 differ, the first at position 1: too large by about 2 times",
        ),
        ((4, 2), (2,), "expected [4, 2], got [2]"),
        (["A", "B"], ["A"], "expected ['A', 'B'], got ['A']"),
        (True, False, "expected yes, got no"),
        (5, "five", "expected a number, got five"),
        ("a", "b" * 100, f"expected a, got {'b' * 77}..."),
    ],
)
def test_how_they_differ(wanted, came, words):
    assert difference(wanted, came) == words


@pytest.mark.parametrize("came", [1, 3.5, -2.0, 0, 10**9])
def test_of_a_number_nothing_but_the_ratio_is_told(came):
    assert "77" not in difference(77, came)


def test_times_are_those_of_the_unit_alone():
    unit, across = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 5.0])
    assert times(3 * unit + across, unit) == pytest.approx(3)
