"""What science.json says follows from its rows, and its rows from runs that can be done again."""

import json
from collections import Counter
from pathlib import Path

import pytest

from lorakit.bars import bars
from lorakit.experiment import finetune
from lorakit.mini_tasks import MINI_TASKS
from lorakit.run import Run
from lorakit.science import PLANS, RATES, SEEDS, judge_base, write_science
from lorakit.summary import readme_rows, summarise, summarise_cuts
from lorakit.sweep import source_of

PATH = Path(__file__).parent.parent / "data" / "results" / "science.json"
SCIENCE = json.loads(PATH.read_text())
ROWS = SCIENCE["rows"]
LINES = {(line["task"], line["method"], line["rank"]): line for line in SCIENCE["summary"]}


def test_the_summary_is_that_of_the_rows():
    assert SCIENCE["summary"] == summarise(ROWS)


def test_the_rows_are_all_runs_of_the_plans_once_each():
    planned = Counter(run for plan in PLANS for run in plan.runs())
    assert Counter(Run(**row["run"]) for row in ROWS) == planned
    assert len(SEEDS) >= 5
    assert len({len(rates) for rates in RATES.values()}) == 1
    further = sum(len(plan.further) for plan in PLANS)
    assert further == 1, "the docstring and the README tell of one"


def test_every_row_says_where_and_when_it_was_made():
    for row in ROWS:
        made = SCIENCE["made"][row["made"]]
        assert made["device"] and made["torch"] and made["python"] and made["date"]
    assert SCIENCE["command"].startswith("python -m lorakit.science")


def test_the_readmes_table_is_the_summary():
    told = (PATH.parent / "README.md").read_text().splitlines()
    rows = readme_rows(SCIENCE["base"], SCIENCE["summary"])
    start = told.index(rows[0])
    assert told[start : start + len(rows)] == rows
    assert {row.split(" | ")[0].strip("| ").split(",")[0] for row in rows} == {*MINI_TASKS}


def whole(rows):
    return [row | {"made": SCIENCE["made"][row["made"]]} for row in rows]


def test_writing_again_gives_the_same_file(tmp_path):
    write_science(tmp_path / "science.json", whole(ROWS), whole(SCIENCE["cuts"]), SCIENCE["base"])
    assert (tmp_path / "science.json").read_bytes() == PATH.read_bytes()


def test_no_best_rate_lies_at_the_edge_of_its_grid_and_no_best_run_diverged():
    assert [line for line in SCIENCE["summary"] if line["edge"] or line["diverged"]] == []


def test_every_row_is_of_this_base_and_these_tasks():
    assert {row["source"] == source_of(Run(**row["run"])) for row in ROWS} == {True}


def test_the_bars_hold_but_for_what_the_readme_tells():
    assert SCIENCE["bars"] == bars(SCIENCE["base"], SCIENCE["summary"], SCIENCE["cut_summary"])
    assert SCIENCE["cut_summary"] == summarise_cuts(SCIENCE["cuts"])
    fallen = [(bar["measured"], bar["where"]) for bar in SCIENCE["bars"] if not bar["holds"]]
    assert fallen == [(pytest.approx(0.127, abs=0.001), "label"), (1, "manners-dialect")]


def test_the_bases_line_is_what_the_base_does():
    (line,) = judge_base(["json"])
    (stored,) = (line for line in SCIENCE["base"] if line["task"] == "json")
    assert line["exact_match"] == pytest.approx(stored["exact_match"], abs=0.01)
    assert line["own_loss"] == pytest.approx(stored["own_loss"], abs=1e-3)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_done_again_on_this_cpu_scores_as_it_did(method):
    line = LINES["json", method, 8 if method == "lora" else None]
    (stored,) = (
        row
        for row in ROWS
        if (row["run"]["task"], row["run"]["method"], row["run"]["lr"], row["run"]["seed"])
        == ("json", method, line["lr"], 0)
        and row["run"]["rank"] == 8
    )
    run = Run(**stored["run"])
    assert finetune(run).after.exact_match == pytest.approx(stored["heldout"][0], abs=0.03)
