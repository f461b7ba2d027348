"""Which notebook cell is running, so that a cell run again can let go of what it made before.

Jupyter keeps every widget that was ever made, for the page might still show it. A cell run ten
times would keep ten models.
"""

from typing import NamedTuple

from IPython import get_ipython


class Cell(NamedTuple):
    """A cell, and how many cells had run when it ran."""

    name: str
    execution: int


def current_cell() -> Cell | None:
    """The cell that is running; None outside of a notebook.

    A cell is known by the id that the page gives it, else by its text.
    """
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    metadata = shell.get_parent().get("metadata", {})
    name = metadata.get("cellId") or shell.user_ns.get("_ih", [""])[-1]
    return Cell(name, shell.execution_count)
