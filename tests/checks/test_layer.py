"""Layers that others wrote: right in another way, or wrong in one that has a name."""

import math

import pytest
import torch
from torch import nn

from lorakit.checks import check_lora_linear
from lorakit.lora import LoRAConfig, LoRALinear


class Others(nn.Module):
    """A layer as another person writes it, to be changed in one place."""

    start_A, start_B = staticmethod(torch.rand), staticmethod(torch.zeros)

    def __init__(self, base, rank, alpha):
        super().__init__()
        self.W = self.frozen(base)
        self.r, self.alpha = rank, alpha
        self.A = nn.Parameter(self.start_A(rank, base.in_features))
        self.B = nn.Parameter(self.start_B(base.out_features, rank))

    def frozen(self, base):
        for p in base.parameters():
            p.requires_grad = False
        return base

    def scale(self):
        return self.alpha / self.r

    def forward(self, x):
        return self.W(x) + nn.functional.linear(x, self.B @ self.A) * self.scale()


class NotFrozen(Others):
    def frozen(self, base):
        return base


class OnlyWeightFrozen(Others):
    def frozen(self, base):
        base.weight.requires_grad_(False)
        return base


class BothZero(Others):
    start_A = staticmethod(torch.zeros)


class BothRandom(Others):
    start_B = staticmethod(torch.ones)


class AZero(BothZero, BothRandom):
    pass


class NoScale(Others):
    def scale(self):
        return 1


class OnlyAlpha(Others):
    def scale(self):
        return self.alpha


class Root(Others):
    def scale(self):
        return self.alpha / math.sqrt(self.r)


class Twice(Others):
    def scale(self):
        return (self.alpha / self.r) ** 2


class Times(Others):
    def scale(self):
        return self.alpha * self.r


class Without(Others):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


class NoBias(Others):
    def forward(self, x):
        W = self.W.weight + self.scale() * self.B @ self.A
        return x @ W.T


class NoBiasAndNoScale(NoBias, NoScale):
    pass


class NotFrozenAndNoScale(NotFrozen, NoScale):
    pass


@pytest.mark.parametrize(
    "make",
    [Others, lambda base, rank, alpha: LoRALinear(base, LoRAConfig(rank=rank, alpha=alpha))],
    ids=["another's", "the lab's"],
)
def test_other_layers_are_right(make):
    check_lora_linear(make, strict=True)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (NotFrozen, "base not frozen"),
        (OnlyWeightFrozen, "base not frozen"),
        (BothZero, "both zero"),
        (BothRandom, "both random"),
        (AZero, "A zero instead of B"),
        (NoScale, "alpha / r missing"),
        (OnlyAlpha, "alpha not divided by the rank"),
        (Root, "divided by the root of the rank"),
        (Twice, "scale applied twice"),
        (Times, None),
        (NoBias, "bias lost"),
        (Without, "gradient cut off"),
        (NoBiasAndNoScale, "bias lost"),
        (NotFrozenAndNoScale, "base not frozen"),
    ],
)
def test_what_others_do_wrong_has_the_same_name(make, name):
    verdict = check_lora_linear.judge(make)
    assert verdict.kind == ("mistake" if name else "unknown")
    assert verdict.name == name


def test_a_wrong_scale_that_is_right_at_one_rank_is_told_by_how_far_it_is_off():
    assert check_lora_linear.judge(Times).text == (
        "the delta at rank 2, alpha 8: too large by about 4 times"
    )


def test_factors_under_other_names_are_told():
    class Named(Others):
        def __init__(self, base, rank, alpha):
            super().__init__(base, rank, alpha)
            self.lora_A = self.A
            del self.A

    assert check_lora_linear.judge(Named).text == "what A is: expected Parameter, got missing"


@pytest.mark.parametrize("left", ["A", "B"])
def test_a_layer_that_is_half_written_is_not_answered_yet(left):
    class Half(Others):
        def __init__(self, base, rank, alpha):
            super().__init__(base, rank, alpha)
            delattr(self, left)
            setattr(self, left, ...)

    assert check_lora_linear.judge(Half).kind == "open"
