"""Two forms of a notebook that a reader makes without knowing, and nbval to run them.

    twice(notebook)      every code cell two times in a row
    sections(notebook)   each section apart, after the notebook's first code cell

A section begins at a markdown cell that begins with "## ". A code cell with the tag `colab` is not
the first, whatever it stands before: it does nothing here. Both keep the stored outputs, so the
forms are compared with what the notebook itself shows. Knows no notebook of the lab.
"""

import copy
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode


def twice(notebook: NotebookNode) -> NotebookNode:
    """A copy in which every code cell is followed by itself, under an id of its own."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "code":
            cells.append(NotebookNode(cell, id=f"{cell.id}-2"))
    return _with_cells(notebook, cells)


def sections(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """A copy for each section that has code, by the section's number and heading.

    What stands before the first heading is section 0.
    """
    parts: dict[str, list[NotebookNode]] = {"0": []}
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            heading = cell.source.splitlines()[0].removeprefix("## ")
            parts[f"{len(parts)}-{re.sub(r'[^a-z0-9]+', '-', heading.lower())}"] = []
        parts[next(reversed(parts))].append(cell)
    first = next((cell for cell in notebook.cells if _runs_here(cell)), None)
    return {
        name: _with_cells(
            notebook, cells if any(cell is first for cell in cells) else [first, *cells]
        )
        for name, cells in parts.items()
        if any(_runs_here(cell) for cell in cells)
    }


def run_strictly(
    notebooks: Mapping[str, NotebookNode], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Write notebooks, by their names, into `folder`, and run each under nbval in a kernel of
    its own, which starts in that folder. The return code is 0 if all outputs are as stored."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, notebook in notebooks.items():
        nbformat.validate(notebook)
        nbformat.write(notebook, folder / f"{name}.ipynb")
    command = [
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir=."),
        *("--nbval", "--nbval-current-env", "--nbval-cell-timeout=1800"),
        *(f"{name}.ipynb" for name in notebooks),
    ]
    settings = {"LORAKIT_DEVICE": "cpu", "LORAKIT_TEST": "1", "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _runs_here(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and "colab" not in cell.metadata.get("tags", ())


def _with_cells(notebook: NotebookNode, cells: list[NotebookNode]) -> NotebookNode:
    return copy.deepcopy(NotebookNode(notebook, cells=cells))
