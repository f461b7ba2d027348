"""How long each page of the lesson computes, and the places that tell it.

    python benchmarks/notebooks.py measure data/results/notebooks.json   on a quiet machine
    python benchmarks/notebooks.py write data/results/notebooks.json        into headers and README

Every page is run whole in a kernel of its own, in a copy of the notebooks' folder, on the CPU with
two threads, as a learner's: the seconds are those of its cells, without the start of the kernel.
What is told is rounded, and is written from the results alone: the first cell of a page has a
sentence with "about ... of computing on two cores", and the README's table a last column.
"""

import argparse
import datetime
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import nbformat
from nbclient import NotebookClient

from lorakit.files import read_json, replacing, write_json

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "notebooks"
README = ROOT / "README.md"
LEARNER = {"LORAKIT_DEVICE": "cpu", "OMP_NUM_THREADS": "2"}
# Seconds that are told; from ten minutes on, whole minutes.
ROUND = (5, 10, 15, 20, 30, 40, 50, 60, 90, 120, 150, *range(180, 600, 60))
SENTENCE = re.compile(r"\b(about)\s+(?:[\w.]+\s+){1,6}?of\s+computing\s+on\s+two\s+cores", re.I)


def rounded(seconds: float) -> int:
    """The nearest of the round numbers of seconds, by ratio: 12 is 10, 13 is 15."""
    if seconds >= ROUND[-1] + 30:
        return 60 * round(seconds / 60)
    return min(ROUND, key=lambda step: max(step / seconds, seconds / step))


def in_words(seconds: float) -> str:
    """40 seconds, a minute, a minute and a half, 3 minutes."""
    whole = rounded(seconds)
    if whole < 60:
        return f"{whole} seconds"
    special = {60: "a minute", 90: "a minute and a half"}
    return special.get(whole, f"{whole / 60:g} minutes")


def in_short(seconds: float) -> str:
    """40 s, 1 min, 1.5 min, 3 min."""
    whole = rounded(seconds)
    return f"{whole} s" if whole < 60 else f"{whole / 60:g} min"


def header(text: str, seconds: float, page: str) -> str:
    """A page's first cell with that time in its sentence. Raises ValueError if it has none."""
    fresh, times = SENTENCE.subn(rf"\1 {in_words(seconds)} of computing on two cores", text)
    if times != 1:
        raise ValueError(
            f"the first cell of {page} has {times} sentences with 'about ... of computing on two "
            "cores': it has to have one"
        )
    return fresh


def table(readme: str, seconds: Mapping[str, float]) -> str:
    """The README with a time at the end of every page's row.

    Raises ValueError for a page without a row.
    """
    for page, time_ in seconds.items():
        row = re.compile(rf"^(\| \[[^]]+\]\(notebooks/{re.escape(page)}\) \|.*\|)[^|]*\|$", re.M)
        readme, times = row.subn(rf"\1 {in_short(time_)} |", readme)
        if times != 1:
            raise ValueError(
                f"the README has {times} rows of {page} in its table: it has to have one"
            )
    return readme


def run_once(page: Path) -> float:
    """Seconds that all its cells take, in a fresh kernel; raises what a cell raises."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(PAGES, Path(folder, "notebooks"), ignore=shutil.ignore_patterns(".*"))
        where = {"metadata": {"path": str(Path(folder, "notebooks"))}}
        client = NotebookClient(nbformat.read(page, as_version=4), timeout=1800, resources=where)
        with client.setup_kernel():
            began = time.perf_counter()
            for index, cell in enumerate(client.nb.cells):
                client.execute_cell(cell, index)
            return time.perf_counter() - began


def measure(out: Path, rounds: int, only: list[str]) -> None:
    """Run the pages, a round of all before the next; pages that are left out keep their times."""
    os.environ.update(LEARNER)
    os.environ.pop("LORAKIT_TEST", None)
    pages = [page for page in sorted(PAGES.glob("*.ipynb")) if not only or page.name[:2] in only]
    times: dict[str, list[float]] = {page.name: [] for page in pages}
    load = os.getloadavg()[0]
    for number in range(rounds):
        for page in pages:
            times[page.name].append(run_once(page))
            print(f"round {number + 1}: {page.name} {times[page.name][-1]:.1f} s", flush=True)
    found = read_json(out)["pages"] if out.exists() and only else {}
    made: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "cpu": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),  # that these processes may use
        "load_before": round(load, 2),  # of a quiet machine well below 1
        "torch": version("torch"),
        "python": platform.python_version(),
    }
    for name, seconds in times.items():
        spread = {"median": median(seconds), "min": min(seconds), "max": max(seconds)}
        found[name] = {**{key: round(value, 1) for key, value in spread.items()}, **made}
    command = " ".join(["python benchmarks/notebooks.py", *sys.argv[1:]])
    write_json(out, {"command": command, "pages": dict(sorted(found.items()))})


def write(results: Path) -> None:
    """Tell the times in every page and in the README; nothing is written if one has no place."""
    seconds = {name: row["median"] for name, row in read_json(results)["pages"].items()}
    fresh = {README: table(README.read_text(encoding="utf-8"), seconds)}
    for name, time_ in seconds.items():
        notebook = nbformat.read(PAGES / name, as_version=4)
        first = notebook.cells[0]
        first.source = header(first.source, time_, name)
        fresh[PAGES / name] = nbformat.writes(notebook) + "\n"
    for path, text in fresh.items():
        if path.read_text(encoding="utf-8") != text:
            with replacing(path) as file:
                file.write_text(text, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["measure", "write"])
    parser.add_argument("results", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="pages by number: 00 01")
    options = parser.parse_args()
    if options.what == "measure":
        measure(options.results, options.rounds, options.only)
    else:
        write(options.results)


if __name__ == "__main__":
    main()
