"""Where the lab is kept, told to every page: a first code cell for Google Colab, and a badge.

    python benchmarks/pages.py        writes them into all pages, and a line into the README

The address stands in pyproject.toml alone, as Repository under [project.urls]. The cell fetches the
lab from there on Colab, and does nothing elsewhere. Without an address there is no badge, and the
cell says on Colab what is missing. A page that is new to it has to be run once more.
"""

import json
import re
import tomllib
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from lorakit.files import replacing

ROOT = Path(__file__).resolve().parents[1]
TAG = "colab"  # of the cell; tests that take a page apart pass it over by this
FIRST = "00_start_here.ipynb"
GITHUB = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
UNSET = "this copy of the lab does not say where it is kept"
SET = "set Repository under [project.urls] in pyproject.toml, and run python benchmarks/pages.py"
BADGE = re.compile(r"\n\n\[!\[Open in Colab\].*")
LINE = re.compile(r"^\*\*Colab:\*\* .*$", re.M)

FETCHING = """\
# On Google Colab: fetch the lab, and install what it lacks there. Anywhere else: nothing.
import runpy
import subprocess
import sys
from pathlib import Path

if "google.colab" in sys.modules:
    address = ADDRESS
    lab = Path.home() / "lorakit"
    clone = ["git", "clone", "--quiet", "--depth", "1", address, str(lab)]
    if not (lab / "lorakit/colab.py").exists() and subprocess.call(clone):
        raise RuntimeError(f"git cannot clone {address} to {lab}, which has to be public, and free")
    runpy.run_path(str(lab / "lorakit/colab.py"), run_name="__main__")"""

SAYING = f"""\
# On Google Colab the lab would have to be fetched first. Anywhere else this does nothing.
import importlib.util
import sys

if "google.colab" in sys.modules and not importlib.util.find_spec("lorakit"):
    raise RuntimeError(
        "{UNSET}, so Colab cannot fetch it: "
        "{SET}"
    )"""


def address(root: Path = ROOT) -> str | None:
    """Where the lab is kept, or None. Raises ValueError for what a stranger could not clone."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = project.get("urls", {}).get("Repository")
    if found is not None and not re.fullmatch(r"https://[\w.-]+/[\w./~-]+", found):
        raise ValueError(
            f"Repository is {found!r} in pyproject.toml: it has to begin with https://"
        )
    return found


def cell(where: str | None) -> str:
    """The source of the first code cell of every page."""
    return SAYING if where is None else FETCHING.replace("= ADDRESS", f"= {json.dumps(where)}")


def opened(where: str | None, page: str) -> str | None:
    """The address that opens a page on Colab, which knows GitHub alone; else None."""
    if where is None or not (repository := GITHUB.fullmatch(where)):
        return None
    return f"https://colab.research.google.com/github/{repository[1]}/blob/main/notebooks/{page}"


def with_cell(notebook: NotebookNode, where: str | None, page: str) -> NotebookNode:
    """The page with its cell and its badge, in the place of earlier ones.

    Raises ValueError if it does not begin with a cell of text that begins with a title.
    """
    head, *rest = notebook.cells
    if head.cell_type != "markdown" or not head.source.startswith("# "):
        raise ValueError(f"{page} does not begin with a title: its first cell has to, '# ...'")
    title, *text = BADGE.sub("", head.source, count=1).split("\n", 1)
    if link := opened(where, page):
        image = "https://colab.research.google.com/assets/colab-badge.svg"
        title += f"\n\n[![Open in Colab]({image})]({link})"
    source = "\n".join([title, *text])
    old = [other for other in rest if TAG in other.metadata.get("tags", ())]
    # Off Colab it shows nothing either way, so that a page that has run it stays as if run.
    count = old[0].execution_count if old else None
    metadata = {"tags": [TAG], "jupyter": {"source_hidden": True}}
    first = nbformat.v4.new_code_cell(cell(where), id=TAG, metadata=metadata, execution_count=count)
    cells = [NotebookNode(head, source=source), first, *(c for c in rest if c not in old)]
    return NotebookNode(notebook, cells=cells)


def readme(text: str, where: str | None) -> str:
    """The README with its line on Colab. Raises ValueError if it has no line of that beginning."""
    if where is None:
        how = SET.replace("python b", "`python b")
        told = f"{UNSET}, so Colab cannot fetch it. To publish it, {how}`."
    elif link := opened(where, FIRST):
        told = f"[open the first page]({link}); its first cell fetches the lab."
    else:
        told = f"open a page by hand; its first cell fetches the lab from {where}."
    fresh, times = LINE.subn(lambda _: f"**Colab:** {told}", text)
    if times != 1:
        raise ValueError(f"the README has {times} lines with '**Colab:** ...': it has to have one")
    return fresh


def write(root: Path = ROOT) -> None:
    """Write every page and the README anew; nothing is written if one of them is refused."""
    where = address(root)
    fresh = {root / "README.md": readme((root / "README.md").read_text(encoding="utf-8"), where)}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        page = with_cell(nbformat.read(path, as_version=4), where, path.name)
        fresh[path] = nbformat.writes(page) + "\n"
    for path, text in fresh.items():
        if path.read_text(encoding="utf-8") != text:
            with replacing(path) as file:
                file.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(root)}")


if __name__ == "__main__":
    write()
