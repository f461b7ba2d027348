"""Pages for students and for instructors: the same but for the cells of exercises."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lorakit.checks import EXERCISES
from lorakit.checks.versions import cells, text, version, write_versions

PAGES = Path(__file__).parents[2] / "notebooks"


def output(words: str) -> dict:
    return {"name": "stdout", "output_type": "stream", "text": [words]}


@pytest.fixture
def page() -> dict:
    """All exercises on one page that has been run, between cells of another kind."""
    made = [cell for exercise in EXERCISES.values() for cell in cells(exercise)]
    for number, cell in enumerate(made):
        if cell["cell_type"] == "code":
            cell |= {"execution_count": number, "outputs": [output("not answered yet\n")]}
    plain = {
        "cell_type": "code",
        "execution_count": 99,
        "id": "plain",
        "metadata": {"tags": ["other"]},
        "outputs": [output("é\n")],
        "source": ["print('é')"],
    }
    return {"cells": [*made, plain], "metadata": {"a": 1}, "nbformat": 4, "nbformat_minor": 5}


def exercise_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["id"].startswith("exercise-")]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_an_instructors_page_has_the_solutions_and_a_students_the_starters(page):
    for kind, part in (("instructor", "solution"), ("student", "starter")):
        made = exercise_cells(version(page, kind, EXERCISES))
        for cell, exercise in zip(made, EXERCISES.values(), strict=True):
            assert source(cell) == exercise.cell(getattr(exercise, part))
            assert getattr(exercise, part) in source(cell)
            assert source(cell).endswith(exercise.call)


def test_from_instructor_to_student_and_back_is_the_identity(page):
    instructor = version(page, "instructor", EXERCISES)
    student = version(instructor, "student", EXERCISES)
    assert text(version(student, "instructor", EXERCISES)) == text(instructor)
    assert text(version(version(student, "instructor", EXERCISES), "student", EXERCISES)) == text(
        student
    )
    assert text(student) != text(instructor)


def test_a_students_page_made_of_a_students_page_is_the_same_to_the_byte(page):
    assert text(version(page, "student", EXERCISES)) == text(page)


def test_the_page_given_is_left_as_it_was(page):
    before = copy.deepcopy(page)
    version(page, "instructor", EXERCISES)
    assert page == before


def test_a_cell_with_another_source_loses_the_output_of_the_old_one(page):
    for cell in exercise_cells(version(page, "instructor", EXERCISES)):
        assert cell["outputs"] == [] and cell["execution_count"] is None


def test_an_answer_that_somebody_gave_gives_way_to_the_starter(page):
    answered = copy.deepcopy(page)
    for cell in exercise_cells(answered):
        cell["source"] = ["my_answer = 7"]
    made = version(answered, "student", EXERCISES)
    assert list(map(source, exercise_cells(made))) == list(map(source, exercise_cells(page)))


def test_everything_but_exercises_is_left_alone(page):
    made = version(page, "instructor", EXERCISES)
    assert {key: value for key, value in made.items() if key != "cells"} == {
        key: value for key, value in page.items() if key != "cells"
    }
    for old, new in zip(page["cells"], made["cells"], strict=True):
        changed = {key for key in new if old[key] != new[key]}
        if old["id"].startswith("exercise-"):
            assert changed == {"source", "outputs", "execution_count"}
        else:
            assert not changed


def test_its_cells_make_a_valid_notebook_with_an_id_each(page):
    nbformat.validate(nbformat.reads(text(page), as_version=4))
    ids = [cell["id"] for cell in page["cells"]]
    assert len(set(ids)) == len(ids)


def test_an_unknown_exercise_or_kind_is_refused_by_name(page):
    page["cells"][1]["metadata"]["tags"] = ["exercise-nothing"]
    with pytest.raises(ValueError, match=r"'exercise-lora-linear' is of the exercise 'nothing'"):
        version(page, "student", EXERCISES)
    with pytest.raises(ValueError, match="for student or instructor, got 'teacher'"):
        version(page, "teacher", EXERCISES)


# Files


def test_the_labs_own_pages_are_the_students(tmp_path):
    written = write_versions(PAGES, "student", tmp_path / "out", EXERCISES)
    assert [path.name for path in written] == sorted(path.name for path in PAGES.glob("*.ipynb"))
    for path in written:
        assert path.read_bytes() == (PAGES / path.name).read_bytes()


def test_there_and_back_on_files(page, tmp_path):
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "02_page.ipynb").write_text(text(page), encoding="utf-8")
    folders = [pages, *(tmp_path / name for name in ("first", "student", "second"))]
    kinds = ("instructor", "student", "instructor")
    for before, kind, after in zip(folders, kinds, folders[1:], strict=False):
        write_versions(before, kind, after, EXERCISES)
    first, student, second = ((f / "02_page.ipynb").read_bytes() for f in folders[1:])
    assert first == second != student
    assert "é".encode() in first


def test_nothing_is_written_if_a_page_cannot_be(page, tmp_path):
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "01.ipynb").write_text(text(page), encoding="utf-8")
    page["cells"][1]["metadata"]["tags"] = ["exercise-nothing"]
    (pages / "02.ipynb").write_text(text(page), encoding="utf-8")
    with pytest.raises(ValueError, match="'nothing'"):
        write_versions(pages, "student", tmp_path / "out", EXERCISES)
    assert not (tmp_path / "out").exists()


def test_the_pages_themselves_are_never_written_over(page, tmp_path):
    (tmp_path / "01.ipynb").write_text(text(page), encoding="utf-8")
    with pytest.raises(ValueError, match="holds the pages themselves: name another folder"):
        write_versions(tmp_path, "instructor", tmp_path / "." / "", EXERCISES)
    assert json.loads((tmp_path / "01.ipynb").read_text()) == page


def test_a_folder_without_pages_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no notebook"):
        write_versions(tmp_path, "student", tmp_path / "out", EXERCISES)


def test_the_command_writes_them_and_names_them(page, tmp_path):
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "01.ipynb").write_text(text(page), encoding="utf-8")
    command = [sys.executable, "-m", "lorakit.checks", "instructor", "pages", "out"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(run.stdout.strip()) == Path("out", "01.ipynb")
    made = (tmp_path / "out" / "01.ipynb").read_text(encoding="utf-8")
    assert made == text(version(page, "instructor", EXERCISES))
    again = subprocess.run([*command[:-1], "pages"], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 1
    assert again.stderr == "error: pages holds the pages themselves: name another folder\n"
