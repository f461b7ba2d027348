"""Energies are those of the lab."""

import pytest
import torch

from lorakit import spectrum
from lorakit.checks import check_energy, check_rank_for


def test_the_labs_own_functions_are_right():
    check_energy(spectrum.energy, strict=True)
    check_rank_for(spectrum.rank_for, strict=True)


def by_norms(values, k):
    return values[:k].norm() ** 2 / values.norm() ** 2


def by_search(values, share):
    return next(k for k in range(1, 99) if spectrum.energy(values, k) >= share)


def test_a_tensor_is_a_number_too():
    check_energy(by_norms, strict=True)


def test_another_way_is_right():
    check_rank_for(by_search, strict=True)


@pytest.mark.parametrize(
    ("energy", "name"),
    [
        (lambda v, k: v[:k].sum() / v.sum(), "sum instead of squares"),
        (lambda v, k: v[:k].norm() / v.norm(), "norm instead of energy"),
        (lambda v, k: spectrum.energy(v, k + 1), "one value too many"),
        (lambda v, k: 100 * spectrum.energy(v, k), None),
        (lambda v, k: torch.linspace(0, 1, 9)[k], None),
    ],
)
def test_what_others_do_wrong(energy, name):
    verdict = check_energy.judge(energy)
    assert (verdict.name, verdict.kind == "mistake") == (name, name is not None)


@pytest.mark.parametrize(
    ("rank_for", "name"),
    [
        (lambda v, s: by_search(v, s) - 1, "a place taken for a number"),
        (lambda v, s: by_search(v.sqrt(), s), "sum instead of squares"),
        (lambda v, s: 3, None),
    ],
)
def test_what_others_do_wrong_with_ranks(rank_for, name):
    verdict = check_rank_for.judge(rank_for)
    assert (verdict.name, verdict.kind == "mistake") == (name, name is not None)
