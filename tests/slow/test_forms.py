"""The forms on tiny notebooks: what they are made of, and that nbval finds what they are for."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from slow.forms import run_strictly, sections, twice


def notebook(*sources: str):
    """Text is a cell of code, or of markdown if it begins with #; "code -> text" prints text."""
    cells = []
    for source in sources:
        if source.startswith("#"):
            cells.append(new_markdown_cell(source))
            continue
        code, _, printed = source.partition(" -> ")
        outputs = [new_output("stream", text=f"{printed}\n")] if printed else []
        cells.append(new_code_cell(code, execution_count=len(cells) + 1, outputs=outputs))
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def sources(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells]


def test_twice_repeats_code_alone_in_place():
    page = notebook("# Title", "a = 1", "## Part", "b = a")
    assert sources(twice(page)) == ["# Title", "a = 1", "a = 1", "## Part", "b = a", "b = a"]
    assert sources(page) == ["# Title", "a = 1", "## Part", "b = a"]


def test_twice_gives_each_cell_its_own_id_and_keeps_counts_and_outputs():
    cells = twice(notebook("print(1) -> 1", "print(2) -> 2")).cells
    assert len({cell.id for cell in cells}) == 4
    assert [cell.execution_count for cell in cells] == [1, 1, 2, 2]
    assert [cell.outputs[0].text for cell in cells] == ["1\n", "1\n", "2\n", "2\n"]


def test_sections_begin_at_headings_of_level_two_and_have_code():
    page = notebook("# Title", "a = 1", "## One, two!", "b = a", "### Deeper", "c = b", "## Words")
    assert list(sections(page)) == ["0", "1-one-two-"]
    assert sources(sections(page)["1-one-two-"]) == [
        *("a = 1", "## One, two!", "b = a", "### Deeper", "c = b")
    ]


def test_the_first_code_cell_stands_once_in_its_own_section():
    page = notebook("# Title", "## One", "a = 1", "b = a", "## Two", "c = a")
    one, two = sections(page).values()
    assert sources(one) == ["## One", "a = 1", "b = a"]
    assert sources(two) == ["a = 1", "## Two", "c = a"]


def test_a_cell_like_the_first_is_not_taken_for_it():
    page = notebook("a = 1", "## Two", "a = 1")
    assert sources(sections(page)["1-two"]) == ["a = 1", "## Two", "a = 1"]


def test_a_cell_for_colab_is_passed_over_as_the_first():
    page = notebook("# Title", "fetch()", "a = 1", "## Two", "b = a")
    page.cells[1].metadata["tags"] = ["colab"]
    assert sources(sections(page)["1-two"]) == ["a = 1", "## Two", "b = a"]


def test_the_cell_for_colab_alone_makes_no_section():
    page = notebook("# Title", "fetch()", "## One", "a = 1", "## Two", "b = a")
    page.cells[1].metadata["tags"] = ["colab"]
    one, two = sections(page).values()
    assert sources(one) == ["## One", "a = 1"]
    assert sources(two) == ["a = 1", "## Two", "b = a"]


@pytest.mark.parametrize(
    ("cells", "passes"),
    [
        (["x = 1", "x += 1", "x = 5; print(x) -> 5"], True),
        (["assert 'x' not in globals(); x = 1"], False),
        (["x = 0", "x += 1; print(x) -> 1"], False),
        (["x = 0", "# NBVAL_IGNORE_OUTPUT\nx += 1; print(x) -> 1"], True),
    ],
    ids=["good", "fails the second time", "prints another number", "is not compared"],
)
def test_twice_finds_a_cell_that_cannot_be_run_again(tmp_path, cells, passes):
    page = notebook(*cells)
    assert run_strictly({"once": page}, tmp_path).returncode == 0
    assert (run_strictly({"twice": twice(page)}, tmp_path).returncode == 0) == passes


@pytest.mark.parametrize(
    ("cells", "passes"),
    [
        (["x = 1", "## A", "y = x; print(y) -> 1", "## B", "z = x; print(z) -> 1"], True),
        (["x = 1", "## A", "y = x", "## B", "print(y) -> 1"], False),
        (["x = 1", "## A", "x = 2", "## B", "print(x) -> 2"], False),
    ],
    ids=["good", "uses another's name", "prints another's number"],
)
def test_sections_find_one_that_needs_another(tmp_path, cells, passes):
    page = notebook(*cells)
    assert run_strictly({"whole": page}, tmp_path).returncode == 0
    assert (run_strictly(sections(page), tmp_path).returncode == 0) == passes


def test_a_failure_tells_the_file_and_the_error(tmp_path):
    shown = run_strictly(sections(notebook("x = 1", "## A", "y")), tmp_path)
    assert "1-a.ipynb" in shown.stdout
    assert "name 'y' is not defined" in shown.stdout


def test_cells_run_in_the_folder_and_in_the_environment_of_the_tests(tmp_path):
    page = notebook(
        "import os, pathlib; pathlib.Path('../beside').touch()",
        "print(os.environ['LORAKIT_DEVICE'], os.environ['LORAKIT_TEST']) -> cpu 1",
    )
    assert run_strictly({"page": page}, tmp_path / "notebooks").returncode == 0
    assert (tmp_path / "beside").exists()
