"""Levels as published, the nearest level exactly, bytes as promised, and nothing lost unsaid."""

import math

import pytest
import torch
from torch import Tensor

from lorakit.quantize import CODEBOOKS, GROUP, dequantize, quantize

# QLoRA, arXiv 2305.14314, appendix E.
PUBLISHED = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
EVERY = pytest.mark.parametrize("codebook", CODEBOOKS)
DOUBLE = pytest.mark.parametrize("double", [False, True], ids=["plain", "double"])


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_hand(W: Tensor, levels: Tensor, block: int) -> Tensor:
    """The nearest of the levels for each number, looked for among all 16, block by block."""
    found = []
    for part in W.flatten().split(block):
        absmax = part.abs().max()
        x = part / absmax if absmax else part
        nearest = (x.double()[:, None] - levels.double()).abs().argmin(dim=1)
        found.append(levels[nearest] * absmax)
    return torch.cat(found).view(W.shape)


def relative_error(W: Tensor, **options) -> float:
    return ((dequantize(quantize(W, **options)) - W).norm() / W.norm()).item()


# Levels


def test_the_levels_of_nf4_are_those_that_were_published():
    assert CODEBOOKS["nf4"] == pytest.approx(PUBLISHED, abs=1e-6)


def test_nf4_meets_a_normal_distribution_about_equally_often():
    x = gaussian(400_000)
    levels = torch.tensor(CODEBOOKS["nf4"]) * x.abs().max()
    scaled = torch.tensor(CODEBOOKS["nf4"]) * 1.8481  # the outermost quantile
    assert scaled[-1] < levels[-1]
    nearest = (x[:, None] - scaled).abs().argmin(dim=1)
    shares = nearest.bincount(minlength=16) / len(x)
    assert shares.min() > 0.04 and shares.max() < 0.09


@EVERY
def test_a_codebook_has_16_levels_that_rise_from_minus_1_to_1_by_way_of_0(codebook):
    levels = CODEBOOKS[codebook]
    assert len(levels) == 16 and list(levels) == sorted(levels)
    assert (levels[0], levels[-1]) == (-1, 1) and 0 in levels


@pytest.mark.parametrize("codebook", ["fp4", "int4"])
def test_fp4_and_int4_are_symmetric(codebook):
    assert {-level for level in CODEBOOKS[codebook]} == {*CODEBOOKS[codebook]}


def test_fp4_has_one_bit_of_fraction_and_int4_even_steps():
    positive = [12 * level for level in CODEBOOKS["fp4"] if level > 0]
    assert positive == pytest.approx([1, 2, 3, 4, 6, 8, 12])
    assert sorted({7 * level for level in CODEBOOKS["int4"]}) == pytest.approx(range(-7, 8))


# Numbers


@EVERY
@pytest.mark.parametrize("block", [2, 16, 64, 1024])
def test_every_number_gets_the_nearest_level_of_its_block_exactly(codebook, block):
    W = gaussian(96, 256)
    found = dequantize(quantize(W, codebook=codebook, block=block, double=False))
    assert torch.equal(found, by_hand(W, torch.tensor(CODEBOOKS[codebook]), block))


def test_the_published_levels_give_the_same_matrix_but_for_their_seventh_digit():
    W = gaussian(96, 256)
    expected = by_hand(W, torch.tensor(PUBLISHED), 64)
    torch.testing.assert_close(dequantize(quantize(W, double=False)), expected, rtol=0, atol=1e-6)


@EVERY
def test_around_the_middle_of_two_levels_each_number_still_gets_the_nearest(codebook):
    levels = torch.tensor(CODEBOOKS[codebook])
    middle = (levels[1:] + levels[:-1]) / 2
    up, down = torch.full_like(middle, math.inf), torch.full_like(middle, -math.inf)
    near = torch.cat([middle, middle.nextafter(up), middle.nextafter(down), torch.ones(3)])
    assert torch.equal(
        dequantize(quantize(near, codebook=codebook, block=48, double=False)),
        by_hand(near, levels, 48),
    )


@EVERY
@DOUBLE
def test_a_level_times_its_scale_comes_back(codebook, double):
    levels = torch.tensor(CODEBOOKS[codebook]).repeat(40)
    found = dequantize(quantize(3 * levels, codebook=codebook, block=32, double=double))
    torch.testing.assert_close(found, 3 * levels, rtol=1e-6, atol=0)


@DOUBLE
def test_zeros_stay_zeros(double):
    W = gaussian(8, 64)
    W[2], W[5, ::2] = 0, 0
    found = dequantize(quantize(W, double=double))
    assert not found[2].any() and not found[5, ::2].any()
    assert not dequantize(quantize(torch.zeros(8, 64), double=double)).any()


@DOUBLE
@pytest.mark.parametrize("shape", [(1,), (3, 5), (7, 11, 13), (63,), (65,), (64, 64)])
def test_any_number_of_numbers_comes_back_in_its_shape(shape, double):
    W = gaussian(*shape)
    found = dequantize(quantize(W, double=double))
    assert found.shape == W.shape
    assert (found - W).norm() < 0.2 * W.norm()
    if not double:
        assert torch.equal(found, by_hand(W, torch.tensor(CODEBOOKS["nf4"]), 64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_quantised_as_their_values_in_float32(dtype):
    W = gaussian(32, 64).to(dtype)
    found, expected = quantize(W), quantize(W.float())
    assert found.tensors.keys() == expected.tensors.keys()
    assert all(torch.equal(t, expected.tensors[name]) for name, t in found.tensors.items())
    assert torch.equal(dequantize(found, dtype), dequantize(expected).to(dtype))


def test_the_order_of_blocks_is_row_after_row_and_a_transposed_matrix_is_no_trap():
    W = gaussian(64, 96)
    assert torch.equal(dequantize(quantize(W.T)), dequantize(quantize(W.T.contiguous())))


def test_the_matrix_is_left_as_it_was():
    W = gaussian(8, 64)
    before = W.clone()
    quantize(W)
    assert torch.equal(W, before)


# Double quantisation


def test_scales_in_8_bits_are_off_by_half_a_step_of_their_group_at_most():
    W = gaussian(1000, 64) * torch.linspace(0.5, 2, 1000)[:, None]
    plain, double = quantize(W, double=False), quantize(W)
    largest = W.abs().argmax(dim=1)
    found = dequantize(double)[range(1000), largest].abs()  # a block's largest is its scale
    steps = double.scales.repeat_interleave(GROUP)[:1000]
    assert ((found - plain.absmax).abs() <= 0.501 * steps).all()
    for group in range(4):  # the scale of each group is its own
        part = plain.absmax[GROUP * group : GROUP * (group + 1)] - plain.absmax.mean()
        assert double.scales[group] == pytest.approx(part.abs().max().item() / 127)


def test_double_quantisation_costs_next_to_no_precision():
    W = gaussian(576, 1536)
    plain, double = relative_error(W, double=False), relative_error(W)
    assert plain <= double < 1.001 * plain


def test_scales_that_are_all_alike_lose_nothing():
    W = torch.ones(10, 64)
    assert torch.equal(dequantize(quantize(W)), W)


# Errors and bytes


def test_of_the_three_codebooks_nf4_is_best_on_gaussian_weights_and_its_error_is_a_tenth():
    W = gaussian(576, 1536)
    errors = {name: relative_error(W, codebook=name) for name in CODEBOOKS}
    assert 0.09 < errors["nf4"] < 0.1
    assert errors["nf4"] < 0.9 * min(errors["fp4"], errors["int4"])


@EVERY
def test_larger_blocks_have_larger_errors(codebook):
    W = gaussian(576, 1536)
    errors = [relative_error(W, codebook=codebook, block=2**n) for n in range(4, 11)]
    assert errors == sorted(errors)


@pytest.mark.parametrize(("double", "bytes_"), [(True, 0.5 + 1 / 64), (False, 0.5 + 4 / 64)])
def test_the_bytes_of_a_weight_are_those_of_the_tensors(double, bytes_):
    held = quantize(gaussian(576, 1536), double=double)
    stored = sum(t.untyped_storage().nbytes() for t in held.tensors.values())
    assert held.nbytes == stored
    assert stored / (576 * 1536) == pytest.approx(bytes_, rel=0.005)
    assert stored / (576 * 1536) == pytest.approx(0.516 if double else 0.5625, rel=0.005)


# Refusals


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_with_the_name_of_the_layer(bad):
    W = gaussian(8, 64)
    W[3, 3] = bad
    with pytest.raises(ValueError, match="up_proj holds a number that is not finite"):
        quantize(W, name="up_proj")


@pytest.mark.parametrize(
    ("W", "options", "said"),
    [
        (torch.ones(2, 2), {"block": 0}, "block must be an even .* got 0"),
        (torch.ones(2, 2), {"block": 33}, "block must be an even .* got 33"),
        (torch.ones(2, 2), {"block": 64.0}, "block must be an even .* got 64.0"),
        (torch.ones(2, 2), {"codebook": "nf3"}, "one of nf4, fp4, int4, got 'nf3'"),
        (torch.ones(2, 2, dtype=torch.int8), {}, "W is of torch.int8: only floating point"),
        (torch.ones(0, 4), {}, r"W of shape \(0, 4\) is empty"),
    ],
)
def test_nonsense_is_refused(W, options, said):
    with pytest.raises(ValueError, match=said):
        quantize(W, **options)
