"""Overlaps, amplification and intruders: planted ones are found, and chance is where it should."""

import math

import pytest
import torch

from lorakit.subspaces import (
    amplification,
    intruders,
    overlaps,
    random_cosine,
    random_overlaps,
)


def directions(d: int, k: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64)).Q


# Overlaps


def by_hand(U1, U2) -> torch.Tensor:
    """Equation 4, one product for each pair."""
    return torch.tensor(
        [
            [
                (U1[:, :i].T @ U2[:, :j]).norm().item() ** 2 / min(i, j)
                for j in range(1, U2.shape[1] + 1)
            ]
            for i in range(1, U1.shape[1] + 1)
        ],
        dtype=torch.float64,
    )


@pytest.mark.parametrize(("k1", "k2"), [(1, 1), (3, 5), (5, 3), (12, 12)])
def test_overlaps_are_those_of_the_papers_equation(k1, k2):
    U1, U2 = directions(12, k1), directions(12, k2, seed=1)
    found = overlaps(U1, U2)
    assert found.shape == (k1, k2)
    torch.testing.assert_close(found, by_hand(U1, U2))


def test_a_subspace_overlaps_itself_wholly_and_one_at_right_angles_not_at_all():
    U = directions(12, 8)
    torch.testing.assert_close(overlaps(U, U).diagonal(), torch.ones(8, dtype=torch.float64))
    assert overlaps(U[:, :4], U[:, 4:]).abs().max() < 1e-12


def test_one_shared_direction_of_two_is_half_an_overlap():
    U = directions(12, 3)
    found = overlaps(U[:, [0, 1]], U[:, [0, 2]])
    expected = torch.tensor([[1.0, 1.0], [1.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_rows_belong_to_the_first_and_columns_to_the_second():
    U = directions(12, 3)
    found = overlaps(U[:, [0, 1]], U[:, [2, 1]])
    expected = torch.tensor([[0.0, 0.0], [0.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    turned = overlaps(U[:, :2], U[:, [1]])
    torch.testing.assert_close(turned, torch.tensor([[0.0], [1.0]], dtype=torch.float64))


def test_the_sign_of_a_direction_does_not_show():
    U1, U2 = directions(12, 4), directions(12, 4, seed=1)
    torch.testing.assert_close(overlaps(-U1, U2), overlaps(U1, U2))


def test_the_first_few_are_the_corner_of_all():
    U1, U2 = directions(12, 5), directions(12, 4, seed=1)
    torch.testing.assert_close(overlaps(U1, U2, most=2), overlaps(U1, U2)[:2, :2])


def test_single_precision_directions_are_near_enough_to_orthonormal():
    U = directions(64, 4)
    assert overlaps(U.float(), U).diagonal().min() > 0.9999
    with pytest.raises(ValueError, match="not orthonormal"):
        overlaps(1.01 * U, U)


@pytest.mark.parametrize(
    ("U1", "U2", "message"),
    [
        (torch.ones(6, 2), directions(6, 2), r"\(6, 2\) are not orthonormal \(off by 6\)"),
        (directions(6, 2), torch.full((6, 2), math.nan), "not orthonormal"),
        (directions(6, 2), directions(7, 2), r"\(6, 2\) and \(7, 2\) cannot be compared"),
        (directions(6, 2)[:, 0], directions(6, 2), r"\(6,\) and \(6, 2\) cannot be compared"),
    ],
)
def test_what_are_no_directions_of_one_space_is_refused(U1, U2, message):
    with pytest.raises(ValueError, match=message):
        overlaps(U1, U2)


def test_no_directions_are_refused():
    with pytest.raises(ValueError, match="most must be at least 1, or None for all, got 0"):
        overlaps(directions(6, 2), directions(6, 2), most=0)


def test_random_subspaces_overlap_by_the_larger_share_of_the_space():
    d, seeds = 40, range(50)
    mean = torch.stack([random_overlaps(d, 8, 20, seed) for seed in seeds]).mean(0)
    assert mean.shape == (8, 20)
    for i, j in [(1, 1), (8, 8), (8, 20), (2, 20)]:
        assert mean[i - 1, j - 1].item() == pytest.approx(max(i, j) / d, rel=0.35)
    assert mean[7, 19].item() == pytest.approx(0.5, rel=0.05)


def test_random_overlaps_are_the_same_for_a_seed_and_whole_in_a_full_space():
    assert torch.equal(random_overlaps(12, 3, 4), random_overlaps(12, 3, 4))
    assert not torch.equal(random_overlaps(12, 3, 4), random_overlaps(12, 3, 4, seed=1))
    assert random_overlaps(12, 12, 12)[-1, -1].item() == pytest.approx(1)


@pytest.mark.parametrize(("k1", "k2"), [(0, 1), (1, 7)])
def test_more_random_directions_than_the_space_has_are_refused(k1, k2):
    with pytest.raises(ValueError, match=f"6 dimensions hold 1 to 6 directions, got {k1} and {k2}"):
        random_overlaps(6, k1, k2)


# Amplification


@pytest.fixture
def weight() -> torch.Tensor:
    """A W of 24 x 40 with the values 24, 23, ..., 1 in known directions."""
    U, V = directions(24, 24), directions(40, 24, seed=1)
    return (U * torch.arange(24, 0, -1, dtype=torch.float64)) @ V.T


def in_weight(first: int, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A delta along W's own directions first, first + 1, ..., with the values 6, 3, ..."""
    U, V = directions(24, 24), directions(40, 24, seed=1)
    values = 6.0 / torch.arange(1, k + 1, dtype=torch.float64)
    return U[:, first : first + k], values, V[:, first : first + k]


def test_a_delta_along_a_direction_of_w_is_held_against_w_s_value_there(weight):
    found = amplification(*in_weight(21, 1), weight, rank=1)  # W's value there is 3
    assert found.delta_norm == pytest.approx(6)
    assert found.in_delta == pytest.approx(3)
    assert found.in_W == pytest.approx(24)
    assert found.factor == pytest.approx(2)


def test_with_two_directions_all_norms_are_of_two(weight):
    found = amplification(*in_weight(20, 3), weight, rank=2)  # W's values there are 4 and 3
    assert found.delta_norm == pytest.approx(math.hypot(6, 3))
    assert found.in_delta == pytest.approx(5)
    assert found.in_W == pytest.approx(math.hypot(24, 23))
    assert found.factor == pytest.approx(math.hypot(6, 3) / 5)


def test_directions_beyond_the_rank_do_not_count_on_either_side(weight):
    U, V = directions(24, 3, seed=8), directions(40, 3, seed=9)
    found = amplification(U, torch.ones(3), V, weight, rank=2)
    assert found.in_delta == pytest.approx((U[:, :2].T @ weight @ V[:, :2]).norm().item())


def test_a_random_delta_finds_as_much_of_w_as_chance(weight):
    """rank / sqrt(out * in) of W's norm, on average."""
    expected = weight.norm().item() * 3 / math.sqrt(24 * 40)
    U, values, V = directions(24, 3, seed=8), torch.ones(3), directions(40, 3, seed=9)
    seen = [amplification(U, values, V, weight, 3, seed).in_random for seed in range(60)]
    assert math.sqrt(sum(x * x for x in seen) / 60) == pytest.approx(expected, rel=0.15)
    assert amplification(U, values, V, weight, 3).in_delta == pytest.approx(expected, rel=0.6)
    assert len(set(seen)) == 60


def test_what_w_lacks_altogether_is_amplified_without_end(weight):
    silent = torch.zeros_like(weight)
    assert amplification(*in_weight(0, 1), silent, rank=1).factor == math.inf


@pytest.mark.parametrize("rank", [0, 4])
def test_a_rank_that_the_delta_has_not_is_refused(weight, rank):
    with pytest.raises(ValueError, match=f"rank must be 1 to 3, the delta's own, got {rank}"):
        amplification(*in_weight(0, 3), weight, rank)


def test_a_delta_of_another_layer_is_refused(weight):
    with pytest.raises(ValueError, match=r"not of a delta of W \(40, 24\)"):
        amplification(*in_weight(0, 3), weight.T, 1)


# Intruders


@pytest.mark.parametrize("planted", [0, 1, 3])
def test_planted_intruders_are_counted(planted):
    """New strong output directions, at 45 degrees and more to each that W had."""
    before = torch.diag(torch.arange(16, 0, -1, dtype=torch.float64))
    after = before.clone()
    # Columns of a Hadamard matrix: every one has the cosine 1/4 with every axis.
    H = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(4):
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)]) / math.sqrt(2)
    for n in range(planted):
        after += 1000 * (n + 1) * H[:, [n]] @ H[:, [n]].T
    count, cosines = intruders(before, after, k=max(1, planted))
    assert count == planted
    assert cosines == pytest.approx([0.25] * planted or [1.0], abs=0.02)


def test_a_change_of_values_and_not_of_directions_brings_no_intruder(weight):
    count, cosines = intruders(weight, -3 * weight, k=8)
    assert count == 0
    assert cosines == pytest.approx([1.0] * 8)


def test_a_weak_direction_of_before_that_grew_strong_is_no_intruder(weight):
    U, V = directions(24, 24), directions(40, 24, seed=1)
    count, cosines = intruders(weight, weight + 100 * U[:, [23]] @ V[:, [23]].T, k=1)
    assert (count, cosines) == (0, [pytest.approx(1)])


def test_output_directions_are_looked_at_and_not_input_ones():
    """A turn on the right changes the input directions alone."""
    before = torch.diag(torch.arange(64, 0, -1, dtype=torch.float64))
    turned = before @ directions(64, 64).T
    assert intruders(before, turned, k=6)[0] == 0
    assert intruders(before.T, turned.T, k=6)[0] > 0


def test_the_threshold_decides():
    before = torch.diag(torch.tensor([3.0, 2.0]))
    angle = math.radians(30)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    after = turn @ before
    assert intruders(before, after, k=2, threshold=0.9)[0] == 2
    count, cosines = intruders(before, after, k=2, threshold=0.8)
    assert count == 0
    assert cosines == pytest.approx([math.cos(angle)] * 2)


def test_no_more_directions_than_the_matrix_has(weight):
    assert len(intruders(weight, weight, k=99)[1]) == 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"after": torch.ones(40, 24)}, r"before \(24, 40\) and after \(40, 24\)"),
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"threshold": 0.0}, r"threshold must be above 0 and at most 1, got 0\.0"),
    ],
)
def test_intruders_without_sense_are_refused(weight, change, message):
    with pytest.raises(ValueError, match=message):
        intruders(**{"before": weight, "after": weight} | change)


@pytest.mark.parametrize(("d", "among"), [(128, None), (352, 128), (8, 3)])
def test_a_random_direction_is_as_near_to_a_basis_as_one_drawn(d, among):
    basis = directions(d, among or d)
    draws = torch.nn.functional.normalize(
        torch.randn(400, d, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    )
    expected = (draws @ basis).abs().amax(1).mean().item()
    assert random_cosine(d, among) == pytest.approx(expected, rel=0.03)


def test_among_more_directions_one_is_nearer_and_in_more_dimensions_none_is():
    assert random_cosine(64, 8) < random_cosine(64) < random_cosine(16)
    assert random_cosine(1) == pytest.approx(1)
    with pytest.raises(ValueError, match="6 dimensions hold 1 to 6 orthonormal directions, got 7"):
        random_cosine(6, 7)
