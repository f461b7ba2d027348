"""Codes are those of the lab, and of others."""

import pytest
import torch

from lorakit.checks import check_quantize
from lorakit.quantize import CODEBOOKS, dequantize
from lorakit.quantize import quantize as by_the_lab

LEVELS = torch.tensor(CODEBOOKS["nf4"])


def test_the_solution_makes_the_labs_numbers():
    (quantize,) = check_quantize.answer(check_quantize.solution)
    W = torch.randn(6, 64, generator=torch.Generator().manual_seed(3))
    codes, absmax = quantize(W, LEVELS)
    held = by_the_lab(W, block=64, double=False)
    torch.testing.assert_close(absmax, held.absmax, rtol=0, atol=0)
    torch.testing.assert_close(LEVELS[codes] * absmax[:, None], dequantize(held), rtol=0, atol=0)


def by_borders(W, levels):
    """Scales as a column, codes in bytes."""
    absmax = W.abs().max(dim=1, keepdim=True).values
    middles = (levels[1:] + levels[:-1]) / 2
    return torch.bucketize(W / absmax, middles).to(torch.uint8), absmax


def test_another_way_is_right():
    check_quantize(by_borders, strict=True)


@pytest.mark.parametrize(
    ("quantize", "name"),
    [
        (lambda W, levels: (by_borders(W, levels)[0], W.max()), None),
        (lambda W, levels: by_borders(W.flatten()[None], levels), None),
        (
            lambda W, levels: (
                ((W / W.abs().amax(1, keepdim=True) + 1) / 2 * 15).round().int(),
                W.abs().amax(1),
            ),
            "nearest by index, as if levels were evenly spaced",
        ),
        (lambda W, levels: (by_borders(W, levels)[0] + 1, W.abs().amax(1)), None),
    ],
    ids=["one scale", "one block", "by index", "from 1"],
)
def test_what_others_do_wrong(quantize, name):
    verdict = check_quantize.judge(quantize)
    assert (verdict.name, verdict.kind == "mistake") == (name, name is not None)
