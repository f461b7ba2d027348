"""The summary chooses by validation alone, and tells what the seeds gave."""

import pytest

from lorakit.summary import own_loss_at, summarise


def row(heldout, *, lr=1e-3, validation=(0.5, 1.0), seed=0, **more):
    run = {"task": "json", "method": "lora", "rank": 1, "lr": lr, "seed": seed, "steps": 10}
    return {
        "run": run,
        "validation": list(validation),
        "heldout": [heldout, 0.1],
        "shuffled": 0.0,
        "own": 1.0,
        "diverged": False,
        "curve": [[5, 0.0, 1.0], [10, 1.0, 2.0]],
        **more,
    }


def test_the_rate_is_chosen_by_validation_not_by_what_is_held_out():
    rows = [row(0.9, lr=1e-3, validation=(0.4, 1)), row(0.6, lr=2e-3, validation=(0.5, 1))]
    (line,) = summarise(rows)
    assert (line["lr"], line["exact_match"]["mean"]) == (2e-3, 0.6)
    assert line["edge"]


def test_among_equal_matches_the_lower_loss_is_chosen():
    rows = [
        row(0.1, lr=lr, validation=(1.0, loss)) for lr, loss in ((1e-3, 3), (2e-3, 1), (4e-3, 2))
    ]
    (line,) = summarise(rows)
    assert line["lr"] == 2e-3
    assert not line["edge"]


def test_where_no_rate_gets_one_answer_in_ten_right_luck_does_not_choose():
    rows = [row(0.0, lr=1e-3, validation=(0.01, 3)), row(0.0, lr=2e-3, validation=(0.0, 1))]
    (line,) = summarise(rows)
    assert line["lr"] == 2e-3


def test_a_rate_at_which_a_run_diverged_comes_last():
    rows = [row(0.9, lr=1e-3, validation=(0.9, None), diverged=True), row(0.5, lr=2e-3)]
    (line,) = summarise(rows)
    assert (line["lr"], line["diverged"]) == (2e-3, 0)


def test_the_spread_is_over_seeds():
    (line,) = summarise([row(match, seed=i) for i, match in enumerate((0.2, 0.4, 0.6))])
    assert line["exact_match"] == {"mean": 0.4, "sd": 0.2, "min": 0.2, "max": 0.6}
    assert line["seeds"] == 3


def test_forgetting_is_compared_where_the_match_is_reached():
    curve = [[5, 0.0, 1.0], [10, 0.8, 2.0], [20, 1.0, 4.0]]
    assert own_loss_at(curve, 0.9) == pytest.approx(3.0)
    assert own_loss_at(curve, 0.0) == 1.0
    assert own_loss_at(curve[:2], 0.9) is None
