"""Verdicts on when full fine-tuning is ahead turn with the rows that they rest on."""

import pytest

from lorakit.claims import FAILS, HOLDS, UNKNOWN, directions, evidence, regimes
from lorakit.claims.finding import ratio


def change(monkeypatch, rows: list[dict], loss: float) -> None:
    """Every one of the rows has this loss, on validation and on held-out examples."""
    assert rows
    for row in rows:
        monkeypatch.setitem(row, "heldout", [row["heldout"][0], loss])
        if "validation" in row:
            monkeypatch.setitem(row, "validation", [row["validation"][0], loss])


def test_full_is_not_furthest_ahead_on_the_deep_task_as_there_are_others(monkeypatch):
    assert regimes.full_wins().verdict == FAILS
    others = [r for r in evidence.grid("data") if r["run"]["task"] != "deep"]
    change(monkeypatch, others, 0.5)
    assert regimes.full_wins().verdict == HOLDS


def test_the_lead_would_be_of_rank_if_all_directions_took_it_up(monkeypatch):
    assert regimes.lead_is_of_rank().verdict == FAILS
    change(monkeypatch, evidence.embedding("json", "linear layers"), 0.001)
    assert regimes.lead_is_of_rank().verdict == FAILS, "json does not decide"
    change(monkeypatch, evidence.embedding("deep", "linear layers"), 0.7)
    assert regimes.lead_is_of_rank().verdict == HOLDS


def test_of_the_deep_task_five_seeds_are_needed(monkeypatch):
    rows = evidence.embedding("deep", "linear layers")
    few = [row for row in rows if row["run"]["seed"] < 4]
    real = evidence.embedding

    def embedding(task: str, arm: str) -> list:
        return few if (task, arm) == ("deep", "linear layers") else real(task, arm)

    monkeypatch.setattr(regimes, "embedding", embedding)
    found = regimes.lead_is_of_rank()
    assert (found.seeds, found.verdict) == (4, UNKNOWN)


def test_rates_at_an_end_leave_the_batches_undecided_and_others_do_not(monkeypatch):
    assert regimes.batch_gap().verdict == HOLDS
    with monkeypatch.context() as ends:
        ends.setattr(regimes, "at_an_end", lambda rows: True)
        assert regimes.batch_gap().verdict == UNKNOWN
        assert "best rate at an end of those tried: full at 8" in regimes.batch_gap().measured
    monkeypatch.setattr(regimes, "at_an_end", lambda rows: False)  # of equal rows the first is best
    large = [row for row in evidence.grid("batch") if row["run"]["batch_size"] == 128]
    change(monkeypatch, large, 0.3)
    change(monkeypatch, [row for row in large if row["run"]["method"] == "lora"], 0.01)
    assert regimes.batch_gap().verdict == FAILS


@pytest.mark.parametrize(("full", "chance", "verdict"), [(90, 99, HOLDS), (20, 99, FAILS)])
def test_a_rank_is_high_or_not_where_chance_could_be(monkeypatch, full, chance, verdict):
    assert directions.full_is_high_rank("mini").verdict == UNKNOWN
    for row in evidence.anatomy("mini")["deltas"]:
        monkeypatch.setitem(row, "random_rank_90", chance)
        if row["method"] == "full":
            monkeypatch.setitem(row, "rank_90", full)
    assert directions.full_is_high_rank("mini").verdict == verdict


def test_a_ratio_is_that_of_the_means_and_its_spread_that_of_the_seeds():
    assert ratio(32, [1.0, 3.0], [1.0, 1.0]) == (32, 2, 1, 3)
    assert ratio(32, [2.0, 2.0], [0.01, 3.99]) == (32, 1, 0.50125, 200), "no seed outweighs all"
