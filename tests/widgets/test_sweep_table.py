"""A sweep as a table: its cells are the raw rows, the best rate is best by validation, lines."""

import math
from statistics import fmean

import pytest
from sweep_rows import best_of, raw

from lorakit.claims.evidence import grid
from lorakit.grids import GRIDS
from lorakit.widgets.sweep_table import (
    BEST,
    FORGOTTEN,
    LOSS,
    MATCH,
    SweepTable,
    measured,
    told,
    which_rate,
)

AXES = {
    "rank": ("task", "kind", "lr"),
    "data": ("task", "sample", "kind", "lr"),
    "targets": ("task", "targets", "lr"),
    "scaling": ("kind", "lr"),
    "batch": ("batch_size", "kind", "lr"),
}


@pytest.fixture
def table() -> SweepTable:
    return SweepTable("rank", grid("rank"))


def seeds_and_losses(rows) -> list[tuple[int, float]]:
    return sorted((row["run"].get("seed", 0), row["heldout"][1]) for row in rows)


@pytest.mark.parametrize("name", GRIDS)
def test_a_sweeps_cells_are_all_its_rows_once_with_a_seed_each(name):
    table = SweepTable(name, grid(name))
    assert table.axes == AXES[name]
    assert sum(map(len, table.cells.values())) == len(raw(name))
    for rows in table.cells.values():
        assert [row["run"]["seed"] for row in rows] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("name", "choice", "wanted"),
    [
        (
            "rank",
            {"task": "json", "kind": "full", "lr": 0.001},
            {"task": "json", "method": "full", "lr": 0.001},
        ),
        (
            "data",
            {"task": "deep", "sample": 512, "kind": "rank 64", "lr": 0.005},
            {"task": "deep", "sample": 512, "method": "lora", "rank": 64, "lr": 0.005},
        ),
        (
            "targets",
            {"task": "json", "targets": "q, v", "lr": 0.01},
            {"task": "json", "targets": ["q_proj", "v_proj"], "lr": 0.01},
        ),
        (
            "batch",
            {"batch_size": 64, "kind": "rank 8", "lr": 0.01},
            {"batch_size": 64, "method": "lora", "rank": 8, "lr": 0.01},
        ),
    ],
)
def test_a_cell_is_the_raw_rows_of_its_setting(name, choice, wanted):
    found = SweepTable(name, grid(name)).cell(choice)
    assert len(found) == 5
    assert seeds_and_losses(found) == seeds_and_losses(raw(name, **wanted))


@pytest.mark.parametrize(("kind", "wanted"), [("full", {"method": "full"}), ("rank 64", None)])
def test_the_best_rate_is_the_best_by_validation(table, kind, wanted):
    wanted = wanted or {"method": "lora", "rank": 64}
    expected = best_of(raw("rank", task="manners-dialect", **wanted))
    for _ in range(2):  # what is remembered is the same
        found = table.cell({"task": "manners-dialect", "kind": kind, "lr": BEST})
        assert seeds_and_losses(found) == seeds_and_losses(expected)


def test_a_rate_at_which_a_run_diverged_is_not_the_best(table):
    choice = {"task": "json", "kind": "full", "lr": BEST}
    best = table.cell(choice)[0]["run"]["lr"]
    rows = [
        row | {"diverged": True} if row["run"]["lr"] == best and row["run"]["seed"] == 3 else row
        for row in grid("rank")
    ]
    assert SweepTable("rank", rows).cell(choice)[0]["run"]["lr"] != best


def test_a_setting_without_runs_is_an_empty_cell(table):
    choice = {"task": "json", "kind": "full", "lr": 0.04}
    assert table.cell(choice) == []
    assert table.rates(choice) == [1.25e-4 * 2**i for i in range(6)]


def test_along_the_rate_there_is_a_line_a_kind_with_its_own_rates(table):
    lines = table.lines("lr", {"task": "json", "kind": "rank 8", "lr": BEST})
    assert list(lines) == ["full", *(f"rank {2**i}" for i in range(7))]
    assert list(lines["full"]) == [1.25e-4 * 2**i for i in range(6)]
    assert list(lines["rank 4"]) == [6.25e-4 * 2**i for i in range(7)]
    for lr, rows in lines["rank 4"].items():
        expected = raw("rank", task="json", method="lora", rank=4, lr=lr)
        assert seeds_and_losses(rows) == seeds_and_losses(expected)


def test_along_the_rank_lora_is_one_line_and_full_a_point(table):
    lines = table.lines("kind", {"task": "json", "kind": "rank 8", "lr": BEST})
    assert {name: list(points) for name, points in lines.items()} == {
        "full": ["full"],
        "LoRA": [str(2**i) for i in range(7)],
    }
    expected = best_of(raw("rank", task="json", method="lora", rank=32))
    assert seeds_and_losses(lines["LoRA"]["32"]) == seeds_and_losses(expected)


def test_at_one_rate_what_was_not_run_at_it_has_no_line(table):
    lines = table.lines("kind", {"task": "json", "kind": "rank 8", "lr": 0.04})
    assert list(lines) == ["LoRA"]


def test_what_is_chosen_sits_on_its_line(table):
    choice = {"task": "json", "kind": "rank 8", "lr": BEST}
    (lr,) = {row["run"]["lr"] for row in best_of(raw("rank", task="json", method="lora", rank=8))}
    assert table.seat("kind", choice) == ("LoRA", "8")
    assert table.seat("kind", choice | {"kind": "full"}) == ("full", "full")
    assert table.seat("lr", choice) == ("rank 8", lr)
    assert table.seat("lr", choice | {"lr": 0.02}) == ("rank 8", 0.02)


def test_an_unknown_sweep_is_refused_by_name():
    with pytest.raises(ValueError, match="there is no sweep 'ranks': it is one of rank, data"):
        SweepTable("ranks", [])


# Numbers in words


def test_a_run_gives_what_its_row_says_and_a_diverged_ones_loss_is_infinite():
    row = {"heldout": [0.8, 0.25], "own": 1.1, "diverged": False}
    assert [measured(row, measure) for measure in (MATCH, LOSS, FORGOTTEN)] == [0.8, 0.25, 1.1]
    dead = row | {"diverged": True}
    assert [measured(dead, m) for m in (MATCH, LOSS, FORGOTTEN)] == [0.8, math.inf, math.inf]
    assert measured(row | {"heldout": [0.0, None]}, LOSS) == math.inf


def test_the_mean_is_told_with_the_lowest_and_the_highest():
    values = [0.25, 0.5, 0.3]
    assert told(values, LOSS) == f"{fmean(values):.3g}, mean of 3 seeds, 0.25 to 0.5"
    assert told([0.5], MATCH) == "0.500"
    assert told([0.5, math.inf], LOSS) == "diverged, mean of 2 seeds, 0.5 to diverged"


@pytest.mark.parametrize(
    ("lr", "words"),
    [
        (0.1, "lr 0.1, the best of 3 on validation and the lowest of them"),
        (0.2, "lr 0.2, the best of 3 on validation"),
        (0.4, "lr 0.4, the best of 3 on validation and the highest of them"),
    ],
)
def test_a_best_rate_at_the_edge_of_those_tried_is_told(lr, words):
    assert which_rate(lr, [0.1, 0.2, 0.4], BEST) == words
    assert which_rate(lr, [0.1, 0.2, 0.4], lr) == f"lr {lr}"
