"""Models that others adapted, and alphas that others chose."""

import math

import pytest
import torch

import lorakit as lk
from lorakit.checks import EXERCISES, check_adapt, check_alpha_for


def by_inject(model, rank, alpha):
    lk.inject(model, lk.LoRAConfig(rank=rank, alpha=alpha))
    return torch.optim.AdamW(lk.trainable(model))


def with_frozen_ones(model, rank, alpha):
    """The optimizer holds the frozen weights too: without a gradient it never moves them."""
    lk.inject(model, lk.LoRAConfig(rank=rank, alpha=alpha))
    return torch.optim.SGD(model.parameters(), lr=1)


def optimizer_first(model, rank, alpha):
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    lk.inject(model, lk.LoRAConfig(rank=rank, alpha=alpha))
    return optimizer


def thawed(model, rank, alpha):
    lk.inject(model, lk.LoRAConfig(rank=rank, alpha=alpha))
    lk.unfreeze(model)
    return torch.optim.AdamW(lk.trainable(model))


def norms_too(model, rank, alpha):
    lk.inject(model, lk.LoRAConfig(rank=rank, alpha=alpha))
    model.model.norm.weight.requires_grad_(True)
    return torch.optim.AdamW(lk.trainable(model))


def attention(model, rank, alpha):
    lk.inject(model, lk.LoRAConfig(rank=rank, alpha=alpha, targets=("q_proj", "v_proj")))
    return torch.optim.AdamW(lk.trainable(model))


@pytest.mark.parametrize("adapt", [by_inject, with_frozen_ones])
def test_other_ways_to_adapt_are_right(adapt):
    check_adapt(adapt, strict=True)


@pytest.mark.parametrize(
    ("adapt", "name"),
    [
        (optimizer_first, "optimizer built before the adapters"),
        (thawed, "base not frozen"),
        (norms_too, "base not frozen"),
        (attention, "q and v alone"),
        (
            lambda model, rank, alpha: by_inject(model, 8, 16.0),
            "rank and alpha left at their defaults",
        ),
        (lambda model, rank, alpha: by_inject(model, rank, 16.0), None),
    ],
)
def test_what_others_do_wrong_has_the_same_name(adapt, name):
    assert check_adapt.judge(adapt).name == name


def test_the_solutions_alpha_leaves_the_labs_scale_as_it_was():
    (alpha_for,) = check_alpha_for.answer(EXERCISES["alpha-for"].solution)
    for root in (False, True):
        before = lk.LoRAConfig(rank=8, alpha=16.0, use_rslora=root)
        after = lk.LoRAConfig(rank=32, alpha=alpha_for(8, 16.0, 32, root), use_rslora=root)
        assert after.scale == pytest.approx(before.scale)


@pytest.mark.parametrize(
    ("alpha_for", "name"),
    [
        (lambda r, a, n, root: a / math.sqrt(r) * math.sqrt(n), "root everywhere"),
        (lambda r, a, n, root: a * (n / r) ** 2, None),
        (lambda r, a, n, root: 2.0 * n, None),
    ],
)
def test_other_alphas(alpha_for, name):
    verdict = check_alpha_for.judge(alpha_for)
    assert (verdict.name, verdict.kind == "mistake") == (name, name is not None)
