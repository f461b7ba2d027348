"""Singular values: the product's are the dense matrix's, and a random matrix is the yardstick."""

import math

import pytest
import torch

from lorakit.spectrum import (
    Spectrum,
    effective_rank,
    energy,
    random_values,
    rank_for,
    singular_values,
    singular_values_of_product,
    stable_rank,
    truncate,
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Values


@pytest.mark.parametrize(
    ("out_features", "in_features", "rank"),
    [(24, 40, 1), (24, 40, 4), (40, 24, 24), (24, 40, 33), (5, 40, 64), (40, 5, 8)],
)
def test_the_spectrum_of_a_product_is_that_of_the_dense_matrix(out_features, in_features, rank):
    B, A = draw(out_features, rank), draw(rank, in_features, seed=1)
    values = singular_values_of_product(B, A, scale=2.0)
    expected = torch.linalg.svdvals(2.0 * B.double() @ A.double())
    assert values.shape == (min(out_features, in_features, rank),)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), expected[: len(values)], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_factors_are_measured_in_full_precision(dtype):
    B, A = draw(24, 4).to(dtype), draw(4, 40, seed=1).to(dtype)
    values = singular_values_of_product(B, A)
    assert torch.equal(values, singular_values_of_product(B.float(), A.float()))
    assert singular_values_of_product(B, A.double()).dtype == torch.float64


def test_an_untrained_adapter_has_a_spectrum_of_zeros():
    assert singular_values_of_product(torch.zeros(24, 4), draw(4, 40)).tolist() == [0.0] * 4


def test_the_sign_of_the_scale_does_not_show():
    B, A = draw(24, 4), draw(4, 40)
    values = singular_values_of_product(B, A, scale=-3.0)
    assert torch.equal(values, singular_values_of_product(B, A, scale=3.0))
    torch.testing.assert_close(values, 3 * singular_values_of_product(B, A))


@pytest.mark.parametrize("shapes", [((24, 4), (5, 40)), ((24,), (4, 40))])
def test_factors_that_do_not_multiply_are_refused(shapes):
    B, A = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=r"do not multiply: B is \(out, rank\)"):
        singular_values_of_product(B, A)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused(bad):
    matrix = draw(6, 9)
    matrix[2, 3] = bad
    with pytest.raises(ValueError, match=r"\(6, 9\) holds a number that is not finite"):
        singular_values(matrix)
    with pytest.raises(ValueError, match=r"\(6, 9\) holds a number that is not finite"):
        singular_values_of_product(matrix, draw(9, 5))


@pytest.mark.parametrize("shape", [(1, 7), (24, 40), (40, 24), (30, 30)])
def test_dense_values_are_those_of_a_double_precision_svd(shape):
    matrix = draw(*shape)
    expected = torch.linalg.svdvals(matrix.double())
    torch.testing.assert_close(singular_values(matrix), expected, rtol=1e-10, atol=1e-10)


def test_the_tail_of_a_steep_spectrum_is_right_to_1e_7_of_the_largest_value():
    U, _, Vh = torch.linalg.svd(draw(40, 60).double(), full_matrices=False)
    expected = torch.logspace(0, -12, 40, dtype=torch.float64)
    error = singular_values((U * expected) @ Vh) - expected
    assert error.abs().max() < 1e-7


def test_a_batch_is_measured_matrix_by_matrix():
    batch = draw(3, 8, 12)
    values = singular_values(batch)
    assert values.shape == (3, 8)
    torch.testing.assert_close(values, torch.stack([singular_values(matrix) for matrix in batch]))


def test_turning_a_matrix_keeps_its_values():
    matrix = draw(20, 30).double()
    left, _ = torch.linalg.qr(draw(20, 20, seed=1).double())
    right, _ = torch.linalg.qr(draw(30, 30, seed=2).double())
    turned = left @ matrix @ right
    assert (turned - matrix).abs().max() > 1
    torch.testing.assert_close(singular_values(turned), singular_values(matrix))


def test_the_values_are_as_long_as_the_matrix():
    matrix = draw(20, 30).double()
    torch.testing.assert_close(singular_values(matrix).norm(), matrix.norm())


# The baseline


def test_random_values_are_those_of_a_gaussian_matrix_scaled_to_the_norm():
    matrix = draw(24, 40, seed=5)
    expected = singular_values(matrix * (3.0 / matrix.norm()))
    torch.testing.assert_close(random_values((24, 40), 3.0, seed=5), expected, rtol=1e-5, atol=0)


def test_random_values_scale_with_the_norm_and_stay_the_same():
    first = random_values((24, 40), 1.0)
    first += 100  # what a caller does to its own copy must not reach the next caller
    again = random_values((24, 40), 1.0)
    assert again.norm().item() == pytest.approx(1.0)
    torch.testing.assert_close(random_values((24, 40), 7.0), 7 * again)
    assert not torch.equal(random_values((24, 40), 1.0, seed=1), again)
    assert not random_values((24, 40), 0.0).any()


def test_the_baseline_is_flatter_than_a_low_rank_matrix():
    values = singular_values(draw(64, 3) @ draw(3, 96) + 0.01 * draw(64, 96, seed=1))
    baseline = random_values((64, 96), values.norm().item())
    assert energy(values, 3) > 0.99
    assert energy(baseline, 3) < 0.15
    assert effective_rank(baseline) > 5 * effective_rank(values)


# Measures of a spectrum


def test_all_values_hold_all_the_energy_and_none_hold_none():
    values = singular_values(draw(20, 30))
    assert energy(values, 0) == 0.0
    assert energy(values, 20) == 1.0
    assert energy(values, 99) == 1.0
    shares = [energy(values, k) for k in range(21)]
    assert shares == sorted(shares)


def test_energy_is_the_share_of_the_squares():
    assert energy([4.0, 2.0, 2.0, 1.0], 1) == pytest.approx(16 / 25)
    assert energy(torch.tensor([4.0, 2.0, 2.0, 1.0]), 3) == pytest.approx(24 / 25)


@pytest.mark.parametrize(("share", "rank"), [(0.5, 1), (0.64, 1), (0.65, 2), (0.9, 3), (1.0, 4)])
def test_the_rank_for_a_share_is_the_first_that_reaches_it(share, rank):
    assert rank_for([4.0, 2.0, 2.0, 1.0], share) == rank


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_a_low_rank_matrix_is_found(rank):
    values = singular_values(draw(24, rank).double() @ draw(rank, 40, seed=1).double())
    assert rank_for(values, 1 - 1e-9) == rank
    assert energy(values, rank) == pytest.approx(1.0, abs=1e-12)
    assert effective_rank(values) < rank + 1e-3


@pytest.mark.parametrize("count", [1, 4, 9])
def test_equal_values_have_an_effective_rank_of_their_number(count):
    assert effective_rank([0.3] * count + [0.0] * 5) == pytest.approx(count)


def test_the_effective_rank_is_the_exponential_of_the_entropy():
    shares = [0.5, 0.25, 0.25]
    entropy = -sum(p * math.log(p) for p in shares)
    assert effective_rank([2.0, 1.0, 1.0]) == pytest.approx(math.exp(entropy))


def test_a_spectrum_of_zeros_has_no_energy_and_no_rank():
    zeros = [0.0, 0.0, 0.0]
    assert (energy(zeros, 3), rank_for(zeros), effective_rank(zeros)) == (0.0, 0, 0.0)


def test_values_without_sense_are_refused():
    with pytest.raises(ValueError, match="k must be at least 0, got -1"):
        energy([1.0], -1)
    with pytest.raises(ValueError, match=r"share must be above 0 and at most 1, got 1\.5"):
        rank_for([1.0], 1.5)


# One layer's spectrum


def test_a_spectrum_knows_its_norm_its_energy_and_its_baseline():
    spectrum = Spectrum(layer="layers.0.q_proj", shape=(24, 40), values=(4.0, 3.0))
    assert spectrum.norm == 5.0
    assert spectrum.energy(1) == pytest.approx(16 / 25)
    assert len(spectrum.random) == 2
    assert math.hypot(*spectrum.random) == pytest.approx(5.0)


def test_the_baseline_has_the_rank_of_what_it_stands_beside():
    low = Spectrum(layer="layers.0.q_proj", shape=(576, 1536), values=(9.0, *[1.0] * 7))
    assert 0.25 < energy(low.random, 2) < 0.4 < 0.9 < low.energy(2)
    B, A = draw(576, 8), draw(8, 1536)
    product = singular_values_of_product(B, A)
    assert energy(low.random, 2) == pytest.approx(energy(product, 2), abs=0.05)
    whole = Spectrum(layer="layers.0.q_proj", shape=(24, 40), values=tuple([1.0] * 24))
    assert whole.random == tuple(random_values((24, 40), whole.norm).tolist())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((), r"q_proj: a matrix \(2, 3\) has 1 to 2 singular values, got 0"),
        ((3.0, 2.0, 1.0), "1 to 2 singular values, got 3"),
        ((1.0, 2.0), "largest first"),
        ((1.0, -2.0), "at least 0"),
        ((1.0, math.nan), "finite"),
        ((math.inf, 1.0), "finite"),
    ],
)
def test_a_spectrum_that_no_matrix_has_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Spectrum(layer="q_proj", shape=(2, 3), values=values)


@pytest.mark.parametrize("factor", [0.5, 3.0, -3.0])
def test_a_scaled_spectrum_is_that_of_the_scaled_matrix(factor):
    def of(matrix: torch.Tensor) -> Spectrum:
        values = tuple(singular_values(matrix).tolist())
        return Spectrum(layer="layers.0.q_proj", shape=(24, 40), values=values)

    delta = draw(24, 40)
    scaled, expected = of(delta).scaled(factor), of(factor * delta)
    assert scaled.values == pytest.approx(expected.values, rel=1e-6)
    assert (scaled.layer, scaled.shape) == (expected.layer, expected.shape)
    assert scaled.energy(3) == pytest.approx(of(delta).energy(3))
    assert scaled.random == pytest.approx(expected.random, rel=1e-6)


def test_scaling_leaves_the_spectrum_itself_as_it_was():
    spectrum = Spectrum(layer="layers.0.q_proj", shape=(24, 40), values=(4.0, 3.0))
    assert spectrum.scaled(2).values == (8.0, 6.0)
    assert spectrum.scaled(0).values == (0.0, 0.0)
    assert spectrum.values == (4.0, 3.0)


@pytest.mark.parametrize("shape", [(7, 12), (12, 7), (3, 8, 5)])
@pytest.mark.parametrize("k", [0, 1, 3, 5, 99])
def test_a_truncated_matrix_is_the_svd_cut_off(shape, k):
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    U, S, Vh = torch.linalg.svd(delta, full_matrices=False)
    expected = U[..., :k] @ torch.diag_embed(S[..., :k]) @ Vh[..., :k, :]
    torch.testing.assert_close(truncate(delta, k), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_equal_values_have_a_stable_rank_of_their_number(count):
    assert stable_rank([0.3] * count + [0.0] * 5) == pytest.approx(count)


def test_the_stable_rank_is_the_squared_norm_over_the_largest_square():
    assert stable_rank([4.0, 2.0, 2.0, 1.0]) == pytest.approx(25 / 16)
    matrix = draw(24, 40)
    expected = matrix.norm() ** 2 / torch.linalg.matrix_norm(matrix, 2) ** 2
    assert stable_rank(singular_values(matrix)) == pytest.approx(expected.item(), rel=1e-5)


def test_small_values_hardly_count_in_the_stable_rank_and_do_in_the_effective_one():
    values = [1.0] + [0.05] * 100
    assert stable_rank(values) == pytest.approx(1.25)
    assert effective_rank(values) > 30
    assert stable_rank([0.0, 0.0]) == 0.0
    assert stable_rank([1e-200, 1e-200]) == pytest.approx(2)
