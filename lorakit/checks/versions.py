"""Two audiences, one source: a page's exercise cells with starters, or with solutions, in them.

A cell belongs to the exercise that its tag names, `exercise-KEY`. Only such cells are touched; one
that gets another source loses its output, which was the other's.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorakit.checks.exercise import Exercise
from lorakit.files import read_json, replacing

TAG = "exercise-"
KINDS = {"student": "starter", "instructor": "solution"}


def cells(exercise: Exercise) -> list[dict[str, Any]]:
    """The two cells to put into a page: what is asked, and the starter. In nbformat 4.5."""
    prompt = {
        "cell_type": "markdown",
        "id": f"ask-{exercise.key}",
        "metadata": {},
        "source": _lines(exercise.prompt),
    }
    starter = {
        "cell_type": "code",
        "execution_count": None,
        "id": f"{TAG}{exercise.key}",
        "metadata": {"tags": [f"{TAG}{exercise.key}"]},
        "outputs": [],
        "source": _lines(exercise.cell(exercise.starter)),
    }
    return [prompt, starter]


def version(
    notebook: Mapping[str, Any], kind: str, exercises: Mapping[str, Exercise]
) -> dict[str, Any]:
    """The same page for students or for instructors; the notebook given is left as it was.

    Raises ValueError for another kind, or a cell of an exercise that there is not.
    """
    if kind not in KINDS:
        raise ValueError(f"a version is for {' or '.join(KINDS)}, got {kind!r}")
    new = [_cell(cell, KINDS[kind], exercises) for cell in notebook["cells"]]
    return {**notebook, "cells": new}


def write_versions(
    pages: Path, kind: str, out: Path, exercises: Mapping[str, Exercise]
) -> list[Path]:
    """Write every page of a folder to `out`, and return the files.

    Links in a page go to neighbours of its folder: put `out` beside `pages`. Raises ValueError, and
    writes nothing, if `out` is `pages` itself, if there are no pages, or as `version` does.
    """
    if out.resolve() == pages.resolve():
        raise ValueError(f"{out} holds the pages themselves: name another folder")
    found = {path.name: read_json(path) for path in sorted(pages.glob("*.ipynb"))}
    if not found:
        raise ValueError(f"{pages} holds no notebook: name the folder of the pages")
    made = {out / name: version(page, kind, exercises) for name, page in found.items()}
    for path, page in made.items():
        with replacing(path) as fresh:
            fresh.write_text(text(page), encoding="utf-8")
    return list(made)


def text(notebook: Mapping[str, Any]) -> str:
    """A notebook as Jupyter stores it."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _cell(cell: dict[str, Any], part: str, exercises: Mapping[str, Exercise]) -> dict[str, Any]:
    tags = cell["metadata"].get("tags", [])
    keys = [tag.removeprefix(TAG) for tag in tags if tag.startswith(TAG)]
    if not keys:
        return cell
    if unknown := [key for key in keys if key not in exercises]:
        raise ValueError(
            f"cell {cell.get('id')!r} is of the exercise {unknown[0]!r}, and there is none; there "
            f"are: {', '.join(exercises)}"
        )
    exercise = exercises[keys[0]]
    source = exercise.cell(getattr(exercise, part))
    if "".join(cell["source"]) == source:
        return cell
    return {**cell, "source": _lines(source), "outputs": [], "execution_count": None}


def _lines(source: str) -> list[str]:
    return source.splitlines(keepends=True)
