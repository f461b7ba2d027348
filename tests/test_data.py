"""What stands in data/ is what data/README.md says, and what the code makes again."""

import importlib.util
from pathlib import Path

import pytest

from lorakit.mini_tasks import COUNTS, MINI_TASKS
from lorakit.orders import FORMS
from lorakit.tasks import load_task, read_examples

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"


def data_table() -> list[str]:
    path = ROOT / "benchmarks" / "data_table.py"
    spec = importlib.util.spec_from_file_location("data_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.table()


def test_the_readme_has_every_file_with_its_rows_bytes_and_hash():
    told = (DATA / "README.md").read_text().splitlines()
    start = told.index("| file | rows | bytes | sha256 |")
    assert told[start : start + len(data_table())] == data_table()
    assert not told[start + len(data_table())].startswith("|")


@pytest.mark.parametrize("name", [*FORMS, *MINI_TASKS])
def test_the_files_of_a_task_are_what_the_generator_makes(name):
    task = load_task(name)
    made = {split: getattr(task, split) for split in ("train", "validation", "heldout")}
    stored = {
        path.stem: tuple(read_examples(path)) for path in (DATA / "tasks" / name).glob("*.jsonl")
    }
    assert stored == {split: examples for split, examples in made.items() if examples}


@pytest.mark.parametrize("name", MINI_TASKS)
def test_a_mini_task_has_at_least_500_examples_held_out(name):
    task = load_task(name)
    assert {split: len(set(getattr(task, split))) for split in COUNTS} == COUNTS
    assert COUNTS["heldout"] >= 500


def test_the_base_stays_under_8_megabytes():
    assert (DATA / "base" / "model.safetensors").stat().st_size < 8_000_000


def test_nothing_there_is_a_pickle():
    kinds = {path.suffix for path in DATA.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".jsonl", ".safetensors", ".md", ".png"}
