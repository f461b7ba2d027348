"""The lesson on a real model: one command makes every table, here on a base of no size."""

import sys
from dataclasses import replace

import pytest

from lorakit import real_model
from lorakit.adapters import load_adapter
from lorakit.checkpoint import load_base
from lorakit.files import read_json
from lorakit.real_model import METHODS, record
from lorakit.run import Run

TASKS = ("json", "quiz")


@pytest.fixture
def small(small_base) -> Run:
    return Run(base=small_base, task="json", batch_size=4, steps=2, heldout=6, answers=0, sample=20)


@pytest.fixture
def tables(small, tmp_path) -> dict:
    tables: dict = {}
    told: list = []
    thin = replace(small, rank=2, targets=("q_proj",))
    for name, rows in record(small, thin, (0, 1), tmp_path / "shelf", told.append, TASKS):
        tables.setdefault(name, []).extend(rows)
    assert len(told) == 6 + 3 + 2
    return tables


def test_there_is_a_row_for_each_method_and_seed(tables):
    runs = [(row["run"]["method"], row["run"]["seed"]) for row in tables["runs"]]
    assert runs == [(method, seed) for seed in (0, 1) for method in METHODS]
    assert [len(row["answers"]) for row in tables["runs"]] == [3, 3, 3, 0, 0, 0]
    assert all(len(row["losses"]) == 2 for row in tables["runs"])


def test_memory_is_foretold_to_the_byte_and_measured(tables):
    assert [row["method"] for row in tables["memory"]] == [*METHODS]
    for row in tables["memory"]:
        measured, foretold = row["measured"], row["estimated"]
        assert measured["peak"]["tensors"] == foretold["peak"]["tensors"] > 0
        assert measured["phases"] == foretold["phases"]


def test_energy_is_told_beside_chance(tables):
    for row in tables["runs"]:
        shares, chance = row["energy"], row["random_energy"]
        assert [*shares] == [1, 2, 4, 8]
        assert all(chance[k] < shares[k] < 1 for k in (1, 2, 4))


def test_the_first_seed_is_looked_into(tables, tmp_path):
    assert tables.keys() == {"runs", "memory", "cuts", "merges", "quantised", "swaps"}
    assert {(row["method"], row["seed"]) for row in tables["cuts"]} == {("full", 0), ("lora", 0)}
    assert len(tables["swaps"]) == len(TASKS) ** 2


def test_the_adapters_are_left_on_a_shelf(tables, small, tmp_path):
    for task in TASKS:
        model, _ = load_base(small.base)
        config = load_adapter(model, tmp_path / "shelf" / task)
        assert (config.rank, config.targets) == (2, ("q_proj",))


def test_the_command_writes_what_it_was_and_all_rows(small, tmp_path, monkeypatch):
    monkeypatch.setattr(real_model, "RUN", small)
    monkeypatch.setattr(real_model, "SMALL", replace(small, rank=1))
    monkeypatch.setattr(real_model, "FORMS", dict.fromkeys(TASKS))
    out, shelf = tmp_path / "out.json", tmp_path / "shelf"
    monkeypatch.setattr(sys, "argv", ["real_model", str(out), str(shelf), "--seeds", "1"])
    real_model.main()
    stored = read_json(out)
    assert stored["command"] == f"python -m lorakit.real_model {out} {shelf} --seeds 1"
    assert {"device", "torch", "python", "date"} <= stored["made"].keys()
    assert len(stored["runs"]) == len(METHODS) and {*TASKS} == {p.name for p in shelf.iterdir()}
