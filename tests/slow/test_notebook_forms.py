"""Every notebook as readers run it: each cell twice, and each section after the first cell alone.

Copies are run in a folder of their own, and compared strictly with the stored outputs.
"""

from pathlib import Path

import nbformat
import pytest
from slow.forms import run_strictly, sections, twice

REAL = {"09_real_model"}
TOO_SLOW = pytest.mark.skip(reason="trains a real model for minutes, in one story from end to end")

pytestmark = pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=TOO_SLOW if path.stem in REAL else ())
        for path in sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
    ],
)


def assert_runs(notebooks, tmp_path) -> None:
    run = run_strictly(notebooks, tmp_path / "notebooks")
    assert run.returncode == 0, f"nbval says:\n{run.stdout[-6000:]}"


def test_each_cell_can_be_run_twice(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    assert_runs({path.stem: twice(notebook)}, tmp_path)


def test_each_section_needs_only_the_first_code_cell(path, tmp_path):
    parts = sections(nbformat.read(path, as_version=4))
    assert_runs({f"{path.stem}-{name}": part for name, part in parts.items()}, tmp_path)
