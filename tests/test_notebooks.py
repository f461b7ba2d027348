"""Notebooks as they are stored: readable without a kernel, comparable, short-celled."""

import re
from pathlib import Path

import nbformat
import pytest
from nbconvert import HTMLExporter

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
IGNORED = "# NBVAL_IGNORE_OUTPUT"

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(path: Path) -> list:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_it_is_stored_with_its_outputs_and_without_errors(path):
    assert all(cell.execution_count for cell in code(path))
    outputs = [output for cell in code(path) for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


def test_it_stores_no_widget_state_and_no_times(path):
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata
    assert not [cell for cell in notebook.cells if "execution" in cell.metadata]


def test_every_explorable_has_its_picture_or_is_yet_to_run(path):
    shown = [
        output.data
        for cell in code(path)
        for output in cell.outputs
        if "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    ]
    with_picture = [data for data in shown if "image/png" in data]
    assert all(data["text/plain"].startswith("explorable: ") for data in shown)
    assert len(with_picture) >= len(shown) - 1


def test_a_page_made_of_it_shows_a_picture_for_each_explorable(path):
    with_picture = [
        output
        for cell in code(path)
        for output in cell.outputs
        if {"application/vnd.jupyter.widget-view+json", "image/png"} <= {*output.get("data", {})}
    ]
    page, _ = HTMLExporter().from_filename(str(path))
    assert len(re.findall(r'<img[^>]+src="data:image/png', page)) >= len(with_picture)
    assert "application/vnd.jupyter.widget-state+json" not in page


def test_at_most_15_percent_of_cells_are_not_compared_and_each_of_them_asserts(path):
    ignored = [cell.source for cell in code(path) if IGNORED in cell.source]
    assert len(ignored) <= 0.15 * len(code(path))
    assert all(source.splitlines()[0] == IGNORED for source in ignored)
    assert all("\nassert " in source for source in ignored)


def test_its_cells_are_short_and_know_no_machine(path):
    for cell in code(path):
        assert len(cell.source.splitlines()) <= 15
        assert not re.search(r"""["']/\w""", cell.source)


def test_nothing_compared_is_a_time_or_a_trained_number(path):
    text = "".join(
        output.get("text", "")
        for cell in code(path)
        if IGNORED not in cell.source
        for output in cell.outputs
    )
    assert " s left" not in text
    assert "seconds" not in text


GUESS = re.compile(r"^(\w+) = (?:widgets\.)?(?:Choice|Number|Sketch)\(", re.M)


# What these print between a guess and its result does not tell the result.
HARMLESS = (
    *("shares = sorted(", "short = replace(", "shape, lora = ", "print(*shows", "result = "),
    *("def best(", "rank_1 = ["),
)


def answers(path: Path) -> list[list]:
    """For each guess the cells of code from it, without it, to the text after its result."""
    cells = nbformat.read(path, as_version=4).cells
    found = []
    for place, cell in enumerate(cells):
        for name in GUESS.findall(cell.source) if cell.cell_type == "code" else ():
            after = cells[place + 1 :]
            result = next(n for n, other in enumerate(after) if f"{name}.reveal(" in other.source)
            text = next(
                n for n, other in enumerate(after) if n > result and other.cell_type != "code"
            )
            found.append([other for other in after[:text] if other.cell_type == "code"])
    return found


def test_the_cell_that_reveals_says_nothing_else(path):
    revealing = [cell.source for cell in code(path) if ".reveal(" in cell.source]
    assert len(revealing) == len(answers(path))
    assert not [source for source in revealing if "print(" in source]
    assert all(".reveal(" in source.splitlines()[-1] for source in revealing)


def test_nothing_tells_a_result_between_the_guess_and_its_reveal(path):
    for cells in answers(path):
        end = next(n for n, cell in enumerate(cells) if ".reveal(" in cell.source)
        for cell in cells[:end]:
            tells = "print(" in cell.source or "Image(" in cell.source
            assert not tells or cell.source.startswith(HARMLESS), cell.source


def test_what_comes_of_a_prediction_that_is_asked_for_in_the_text_is_folded_too(path):
    asked = False
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            asked = "**predict" in cell.source.lower()
        elif asked and not GUESS.search(cell.source) and cell.id != "colab":
            assert cell.metadata.get("jupyter", {}).get("outputs_hidden"), cell.source


def test_what_answers_a_guess_is_folded_until_it_is_run(path):
    for cells in answers(path):
        for cell in cells:
            folded = cell.metadata.get("jupyter", {}).get("outputs_hidden", False)
            assert folded != bool(GUESS.search(cell.source)), cell.source
