"""Who is ahead, in one number and in words."""

import math

import pytest

from lorakit.widgets.comparison import ahead, in_words
from lorakit.widgets.sweep_table import LOSS, MATCH


def rows(*pairs: tuple[float, float | None], diverged: bool = False) -> list[dict]:
    """Runs with these exact matches and losses."""
    return [{"heldout": list(pair), "own": 1.0, "diverged": diverged} for pair in pairs]


FULL = rows((0.9, 0.1), (0.7, 0.3))
LORA = rows((0.8, 0.5), (0.75, 0.3))


def test_of_losses_it_is_loras_mean_over_fulls():
    assert ahead(FULL, LORA, LOSS) == pytest.approx(0.4 / 0.2)


def test_of_matches_it_is_fulls_mean_less_loras():
    assert ahead(FULL, LORA, MATCH) == pytest.approx(0.8 - 0.775)


def test_a_diverged_run_leaves_no_ratio_of_losses():
    dead = rows((0.0, None), diverged=True)
    assert math.isnan(ahead(FULL, dead, LOSS)) and math.isnan(ahead(dead, LORA, LOSS))
    assert in_words(FULL, dead, LOSS, "rank 8") == "loss of full and rank 8: 0.2 and diverged"


def test_words_tell_both_numbers_the_winner_and_in_how_many_seeds_it_is():
    assert in_words(FULL, LORA, LOSS, "rank 8") == (
        "the loss of rank 8 is 2 times that of full (full and rank 8: 0.2 and 0.4): "
        "full is ahead, in 1 of 2 seeds"
    )
    assert in_words(LORA, FULL, LOSS, "rank 8").endswith("rank 8 is ahead, in 1 of 2 seeds")
    assert in_words(FULL, LORA, MATCH, "rank 8") == (
        "the exact match of full less that of rank 8 is +0.0250 "
        "(full and rank 8: 0.800 and 0.775): full is ahead, in 1 of 2 seeds"
    )


def test_of_a_single_run_no_seeds_are_counted():
    assert in_words(FULL[:1], LORA[:1], MATCH, "rank 1").endswith("full is ahead")


@pytest.mark.parametrize("measure", [LOSS, MATCH])
def test_the_same_runs_are_equal_also_in_another_order(measure):
    assert in_words(FULL, FULL[::-1], measure, "rank 8").endswith("they are equal")


def test_means_that_differ_in_their_last_bit_are_equal():
    a, b = rows((0.1, 0.1), (0.2, 0.2)), rows((0.15, 0.15), (0.15, 0.15))
    assert ahead(a, b, MATCH) != 0 and ahead(a, b, LOSS) != 1
    assert in_words(a, b, MATCH, "rank 8").endswith("they are equal")
    assert in_words(a, b, LOSS, "rank 8").endswith("they are equal")
