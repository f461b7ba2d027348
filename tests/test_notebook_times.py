"""How long a page computes is told as it was measured: in its first cell, and in the README."""

import importlib.util
import json
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "data/results/notebooks.json"
PAGES = sorted((ROOT / "notebooks").glob("*.ipynb"))

_spec = importlib.util.spec_from_file_location("notebooks", ROOT / "benchmarks/notebooks.py")
assert _spec and _spec.loader
notebooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(notebooks)


def seconds() -> dict[str, float]:
    assert RESULTS.exists(), f"python benchmarks/notebooks.py measure {RESULTS.relative_to(ROOT)}"
    return {name: row["median"] for name, row in json.loads(RESULTS.read_text())["pages"].items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_tells_its_measured_time(page):
    first = nbformat.read(page, as_version=4).cells[0].source
    assert notebooks.header(first, seconds()[page.name], page.name) == first


def test_the_readme_tells_the_measured_times():
    text = (ROOT / "README.md").read_text()
    assert notebooks.table(text, seconds()) == text


def test_every_page_and_no_other_was_measured():
    assert [*seconds()] == [page.name for page in PAGES]


# Round numbers, and their places


@pytest.mark.parametrize(
    ("measured", "words", "short"),
    [
        (2.1, "5 seconds", "5 s"),
        (7, "5 seconds", "5 s"),
        (12, "10 seconds", "10 s"),
        (13, "15 seconds", "15 s"),
        (36, "40 seconds", "40 s"),
        (56, "a minute", "1 min"),
        (80, "a minute and a half", "1.5 min"),
        (131, "2 minutes", "2 min"),
        (140, "2.5 minutes", "2.5 min"),
        (575, "10 minutes", "10 min"),
        (1234, "21 minutes", "21 min"),
    ],
)
def test_times_are_told_in_round_numbers(measured, words, short):
    assert notebooks.in_words(measured) == words
    assert notebooks.in_short(measured) == short


@pytest.mark.parametrize("told", ["a minute", "half a minute", "10 seconds", "2.5 minutes"])
def test_a_sentence_is_told_anew_whatever_it_said(told):
    text = f"Now you know. About {told} of computing on two\ncores.\n\nAbout time."
    fresh = notebooks.header(text, 36, "00.ipynb")
    assert fresh == "Now you know. About 40 seconds of computing on two cores.\n\nAbout time."
    assert notebooks.header(fresh, 36, "00.ipynb") == fresh


def test_within_a_sentence_it_stays_small():
    text = "It takes about 10 seconds of computing on two cores."
    assert notebooks.header(text, 60, "") == "It takes about a minute of computing on two cores."


@pytest.mark.parametrize(
    "text", ["", "About 5 s. ", 2 * "About 5 seconds of computing on two cores. "]
)
def test_a_page_without_just_one_sentence_is_refused_by_name(text):
    with pytest.raises(ValueError, match=r"first cell of 00\.ipynb has [02] sentences"):
        notebooks.header(text, 5, "00.ipynb")


def test_a_row_of_the_table_keeps_all_but_its_time():
    row = "| [00 Start](notebooks/00.ipynb) | see, and believe | 10 s |\n"
    other = "| [01 Next](notebooks/01.ipynb) | on | 20 s |\n"
    fresh = notebooks.table(row + other, {"00.ipynb": 130})
    assert fresh == row.replace("10 s", "2 min") + other


def test_a_page_without_a_row_is_refused_by_name():
    with pytest.raises(ValueError, match=r"0 rows of 02\.ipynb"):
        notebooks.table("| page |", {"02.ipynb": 1})


@pytest.fixture
def lesson(tmp_path, monkeypatch) -> Path:
    """A clone with two pages, and their results."""
    (tmp_path / "notebooks").mkdir()
    for name in ("00.ipynb", "01.ipynb"):
        cell = nbformat.v4.new_markdown_cell("About a minute of computing on two cores.", id="a")
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebooks" / name)
    rows = "".join(f"| [{n}](notebooks/{n}.ipynb) | do | ? |\n" for n in ("00", "01"))
    (tmp_path / "README.md").write_text(rows)
    pages = {"00.ipynb": {"median": 21.2}, "01.ipynb": {"median": 61.0}}
    (tmp_path / "results.json").write_text(json.dumps({"pages": pages}))
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "PAGES", tmp_path / "notebooks")
    monkeypatch.setattr(notebooks, "README", tmp_path / "README.md")
    return tmp_path


def test_one_command_writes_pages_and_readme(lesson, capsys):
    notebooks.write(lesson / "results.json")
    assert "About 20 seconds of" in (lesson / "notebooks/00.ipynb").read_text()
    assert "| do | 20 s |" in (lesson / "README.md").read_text()
    assert "01.ipynb" not in capsys.readouterr().out, "it said a minute already"


def test_written_twice_it_changes_nothing(lesson, capsys):
    notebooks.write(lesson / "results.json")
    before = {path: path.read_bytes() for path in lesson.rglob("*.*") if path.is_file()}
    capsys.readouterr()
    notebooks.write(lesson / "results.json")
    assert capsys.readouterr().out == ""
    assert {path: path.read_bytes() for path in before} == before


def test_a_page_without_its_sentence_leaves_every_file_as_it_was(lesson):
    page = lesson / "notebooks/01.ipynb"
    page.write_text(page.read_text().replace("computing", "waiting"))
    before = (lesson / "README.md").read_text()
    with pytest.raises(ValueError, match=r"01\.ipynb has 0"):
        notebooks.write(lesson / "results.json")
    assert (lesson / "README.md").read_text() == before


def test_a_page_is_run_whole_in_a_kernel_of_its_own_beside_the_others(lesson):
    cells = [nbformat.v4.new_code_cell("import time, pathlib; time.sleep(0.2)")]
    cells += [nbformat.v4.new_code_cell("assert pathlib.Path('01.ipynb').exists()")]
    cells += [nbformat.v4.new_code_cell("pathlib.Path('../left').write_text('')")]
    page = lesson / "notebooks/00.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), page)
    assert notebooks.run_once(page) > 0.2
    assert not (lesson / "left").exists()
