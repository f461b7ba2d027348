"""The lesson's sweeps: what they run, and that the committed rows are theirs, whole and current."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lorakit import grids as module
from lorakit import sweep as sweeping
from lorakit.counts import count
from lorakit.grids import GRIDS, RANKS, SEEDS, Grid, main, read_grid, run_of, run_steps, write_grid
from lorakit.presets import PRESETS
from lorakit.run import Run
from lorakit.sweep import source_of

RESULTS = Path(__file__).parents[1] / "data" / "results" / "sweeps"


@pytest.mark.parametrize("name", GRIDS)
def test_the_committed_rows_are_every_run_of_the_sweep(name):
    rows = read_grid(RESULTS / f"{name}.json")
    assert [run_of(row) for row in rows] == GRIDS[name].runs()
    assert {row["run"]["seed"] for row in rows} == set(SEEDS)
    for row in rows:
        assert row["made"]["device"] and row["made"]["torch"] and row["made"]["date"]
        assert row["curve"][-1][0] == row["run"]["steps"]


def test_the_committed_rows_are_of_this_base_and_these_tasks():
    for name in GRIDS:
        rows = read_grid(RESULTS / f"{name}.json")
        by_task = {row["run"]["task"]: row for row in rows}
        for row in by_task.values():
            assert {r["source"] for r in rows if r["run"]["task"] == row["run"]["task"]} == {
                source_of(run_of(row))
            }


@pytest.mark.parametrize("name", ["rank", "data", "batch"])
def test_full_fine_tuning_stands_beside_lora_with_the_same_batches(name):
    runs = GRIDS[name].runs()
    seen = {
        method: {
            (r.task, r.sample, r.batch_size, r.steps, r.seed) for r in runs if r.method == method
        }
        for method in ("full", "lora")
    }
    assert seen["full"] == seen["lora"]


def test_every_rank_meets_the_same_rates():
    for task in module.STEPS:
        rates = {
            rank: {r.lr for r in GRIDS["rank"].runs() if r.method == "lora" and r.rank == rank}
            for rank in RANKS
        }
        assert len({frozenset(found) for found in rates.values()}) == 1, task


def test_targets_have_about_the_same_parameters():
    runs = {run.targets: run for run in GRIDS["targets"].runs()}
    assert len(runs) == 9
    numbers = [count(PRESETS["mini"], run.lora).trainable for run in runs.values()]
    assert max(numbers) / min(numbers) < 1.2


def test_alpha_over_the_root_of_the_rank_is_what_scaling_means():
    for run in GRIDS["scaling"].runs():
        assert run.lora.scale == pytest.approx(module.ALPHA / math.sqrt(run.rank))


def test_each_run_of_the_data_sweep_sees_all_of_its_examples():
    assert all(run.steps * run.batch_size >= run.sample for run in GRIDS["data"].runs())


def test_each_run_of_the_batch_sweep_sees_as_many_examples():
    seen = [run.steps * run.batch_size for run in GRIDS["batch"].runs()]
    assert max(seen) - min(seen) < max(module.BATCHES)


@pytest.fixture
def few(small_base, monkeypatch) -> list[Run]:
    run = Run(base=small_base, task="label", batch_size=4, steps=2, heldout=5, answers=0)
    runs = [replace(run, targets=("q_proj",)), replace(run, batch_size=2, alpha=math.sqrt(2))]
    grid = Grid("What then?", ("targets",), lambda: iter(runs))
    monkeypatch.setitem(module.GRIDS, "targets", grid)
    whole = sweeping.judges

    def judges(*args):
        return sweeping.Judges(*(part[:5] for part in vars(whole(*args)).values()))

    monkeypatch.setattr(sweeping, "judges", judges)
    return runs


def test_a_sweep_is_run_and_written_by_one_command(few, tmp_path, monkeypatch):
    out = tmp_path / "sweeps" / "targets.json"
    rows = tmp_path / "rows.jsonl"
    monkeypatch.setattr(sys, "argv", ["grids", "targets", str(out), "--rows", str(rows)])
    main()
    found = read_grid(out)
    assert [run_of(row) for row in found] == few
    before = out.read_bytes()
    main()  # all of it is there
    assert out.read_bytes() == before


def test_what_is_written_is_read_again_to_the_last_number(few, tmp_path):
    rows = sweeping.sweep(few, tmp_path / "rows.jsonl")
    write_grid(tmp_path / "targets.json", "targets", rows)
    again = read_grid(tmp_path / "targets.json")
    assert [run_of(row) for row in again] == [run_of(row) for row in rows]
    for old, new in zip(rows, again, strict=True):
        assert {k: v for k, v in old.items() if k != "run"} == {
            k: v for k, v in new.items() if k != "run"
        }


def test_without_a_name_the_sweeps_and_what_they_cost_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["grids"])
    main()
    told = capsys.readouterr().out
    runs = GRIDS["rank"].runs()
    assert f"rank: {len(runs)} runs, {run_steps(runs):,} steps of 16 rows" in told
    assert run_steps([replace(runs[0], steps=10, batch_size=8)]) == 5
