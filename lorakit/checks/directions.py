"""Exercises on singular values: how much a few of them hold, and how few are enough."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lorakit.checks.exercise import Exercise, Facet, Mistake

# Singular values, largest first, and what is asked of them. No share is met exactly, where rounding
# would decide.
SPECTRA = {
    "of a steep spectrum": (8.0, 3.0, 2.0, 1.0, 0.5),
    "of a flat one": (2.0, 1.9, 1.8, 1.7, 1.6, 1.5),
}


def _values(name: str) -> Tensor:
    return torch.tensor(SPECTRA[name], dtype=torch.float64)


def _energies(energy: Callable[[Tensor, int], float]) -> Iterator[Facet]:
    for name in SPECTRA:
        for k in (1, 2, 4):
            yield f"the energy in the first {k} {name}", energy(_values(name), k)


check_energy = Exercise(
    key="energy",
    page="03",
    prompt="""\
### Exercise: energy

Which share of a delta's energy do its first $k$ singular values hold? (Energy is the squared norm:
page 02 said of what it is the sum.) `values` is a tensor, the largest first.""",
    imports="import torch\nfrom torch import Tensor",
    starter='''\
def energy(values: Tensor, k: int) -> float:
    """A share, from 0 to 1."""
    return ...''',
    solution='''\
def energy(values: Tensor, k: int) -> float:
    """A share, from 0 to 1."""
    squares = values**2
    return (squares[:k].sum() / squares.sum()).item()''',
    answers=("energy",),
    observe=_energies,
    first="What is the energy of all values together?",
    hints=(
        "a share is a part by the whole. The part is made of `values[:k]`",
        "a delta's squared norm is the sum of what, over its singular values?",
    ),
    example="energy(torch.tensor([3.0, 2.0, 1.0]), 1)",
    right="A loud direction counts by its square: that is why a few hold so much",
    mistakes=(
        Mistake(
            "sum instead of squares",
            "That is a share of the sum of the values. Is the squared norm of a matrix their sum?",
            {"values**2": "values"},
        ),
        Mistake(
            "norm instead of energy",
            "That is a share of the norm. Which power of the norm is the energy?",
            {"(squares[:k].sum() / squares.sum())": "(squares[:k].sum() / squares.sum()).sqrt()"},
        ),
        Mistake(
            "the last values instead of the first",
            "It is small where it should be large. At which end of `values` is the loudest?",
            {"squares[:k].sum()": "squares[-k:].sum()"},
        ),
        Mistake(
            "one value too few",
            "How many values are in your slice when k is 1?",
            {"squares[:k].sum()": "squares[: k - 1].sum()"},
        ),
        Mistake(
            "one value too many",
            "How many values are in your slice when k is 1?",
            {"squares[:k].sum()": "squares[: k + 1].sum()"},
        ),
        Mistake(
            "share of the largest, not of all",
            "It goes beyond 1. By what do you divide?",
            {"/ squares.sum()": "/ squares[0]"},
        ),
    ),
)


def _fewest(rank_for: Callable[[Tensor, float], int]) -> Iterator[Facet]:
    for name in SPECTRA:
        for share in (0.5, 0.9, 0.97):
            yield f"for {share:.0%} {name}", rank_for(_values(name), share)


check_rank_for = Exercise(
    key="rank-for",
    page="03",
    prompt="""\
### Exercise: how few are enough?

The fewest singular values that hold at least `share` of the energy: the best rank to cut a delta
to, if that share is what you want to keep.""",
    imports="import torch\nfrom torch import Tensor",
    starter="""\
def rank_for(values: Tensor, share: float) -> int:
    return ...""",
    solution="""\
def rank_for(values: Tensor, share: float) -> int:
    held = (values**2).cumsum(0) / (values**2).sum()
    return int((held < share).sum()) + 1""",
    answers=("rank_for",),
    observe=_fewest,
    first="What do the first 1, 2, 3 ... values hold? (`cumsum` adds up)",
    hints=(
        "go along the shares: which is the first that is large enough?",
        "a place counts from 0. Which number of values ends at place 0?",
    ),
    example="rank_for(torch.tensor([3.0, 2.0, 1.0]), 0.9)",
    right="A steep spectrum needs few, a flat one nearly all: a cut suits the first",
    mistakes=(
        Mistake(
            "sum instead of squares",
            "Too many. Are you adding up the values themselves?",
            {
                "(values**2).cumsum(0) / (values**2).sum()": "values.cumsum(0) / values.sum()",
            },
        ),
        Mistake(
            "a place taken for a number",
            "One too few, everywhere. What do your values hold: the share, or just less?",
            {"int((held < share).sum()) + 1": "int((held < share).sum())"},
        ),
        Mistake(
            "values counted from the wrong end",
            "That is how many are beyond the share. Which are before it?",
            {"(held < share)": "(held > share)"},
        ),
        Mistake(
            "a share of the number of values",
            "The spectrum's shape does not matter to it. Do all values hold the same?",
            {"int((held < share).sum()) + 1": "int(share * len(values)) + 1"},
        ),
    ),
)
