"""How long one waits for anything: the import, the program's help, a page's first slider.

    python benchmarks/startup.py --out data/results/startup.json        a quiet machine, 3 minutes

import     `import lorakit` and one of its names, which loads all of it, beside `import torch`
help       `lorakit --help`, the whole process
slider     a page's code cells from the first to that of its first explorable, which has one, in a
           process without a kernel, less what `import torch` takes there: pages 00 and 02

Every time is taken in a process of its own, in turns; the first round warms up and is not counted.
Milliseconds: median, least and most. The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RATIO, HELP, SLIDER = 1.1, 500.0, 3000.0  # the bars: of torch's import, and milliseconds
TORCH, LORAKIT = "import torch", "import lorakit; lorakit.Run"
PAGES = {"00": "Handshake(", "02": "StepExplorer("}  # the first explorable

# In a process: what torch's import takes, then the cells, and the traits that a slider must have.
PAGE = """
import sys, time, json, contextlib, io
started = time.perf_counter()
import torch
torch_ms = 1000 * (time.perf_counter() - started)
cells = json.loads(sys.stdin.read())
space = {"__name__": "__main__"}
started = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    for cell in cells:
        exec(cell, space)
ms = 1000 * (time.perf_counter() - started)
import ipywidgets
sliders = [w for w in ipywidgets.Widget.widgets.values() if "Slider" in type(w).__name__]
assert sliders, "no slider was made"
print(json.dumps([torch_ms, ms]))
"""


def process(*words: str, told: str | None = None) -> tuple[float, str]:
    """Milliseconds of a whole process, and what it printed."""
    start = time.perf_counter()
    ran = subprocess.run(words, input=told, capture_output=True, text=True, check=True, cwd=ROOT)
    return 1000 * (time.perf_counter() - start), ran.stdout


def whole(*words: str) -> float:
    return process(*words)[0]


def cells_to_slider(page: str, explorable: str) -> list[str]:
    """The page's code cells up to the first that makes `explorable`, exercises left out."""
    (path,) = (ROOT / "notebooks").glob(f"{page}_*.ipynb")
    found = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        tags = cell["metadata"].get("tags", [])
        if cell["cell_type"] != "code" or any(tag.startswith("exercise") for tag in tags):
            continue
        found.append("".join(cell["source"]))
        if explorable in found[-1]:
            return found
    raise ValueError(f"page {page} has no {explorable}")


def first_slider(cells: list[str]) -> float:
    return json.loads(process(sys.executable, "-c", PAGE, told=json.dumps(cells))[1])[1]


def taken(rounds: int) -> dict[str, list[float]]:
    program = Path(sys.executable).with_name("lorakit")
    acts: dict[str, Callable[[], float]] = {
        "python": partial(whole, sys.executable, "-c", "pass"),
        "import torch": partial(whole, sys.executable, "-c", TORCH),
        "import lorakit": partial(whole, sys.executable, "-c", LORAKIT),
        "help": partial(whole, str(program), "--help"),
    }
    for page, explorable in PAGES.items():
        acts[f"slider, page {page}"] = partial(first_slider, cells_to_slider(page, explorable))
    found: dict[str, list[float]] = {name: [] for name in acts}
    for number in range(rounds + 1):
        for name, act in acts.items():
            ms = act()
            if number:
                found[name].append(ms)
    return found


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 1) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    os.environ.setdefault("LORAKIT_DEVICE", "cpu")
    found = {name: spread(ms) for name, ms in taken(options.rounds).items()}
    ratio = found["import lorakit"]["median"] / found["import torch"]["median"]
    sliders = {name: of["median"] for name, of in found.items() if name.startswith("slider")}
    misses = [f"importing takes {ratio:.3f} times torch's"] if ratio > RATIO else []
    misses += [f"help takes {ms:.0f} ms"] if (ms := found["help"]["median"]) > HELP else []
    misses += [f"{name} takes {ms:.0f} ms" for name, ms in sliders.items() if ms > SLIDER]

    from lorakit.files import write_json
    from lorakit.sweep import machine

    told: dict[str, Any] = {
        "what": "milliseconds until something can be done",
        **machine(),
        "rounds": options.rounds,
        "milliseconds": found,
        "import_over_torch": round(ratio, 3),
        "bars": {"import_over_torch": RATIO, "help": HELP, "slider": SLIDER},
        "misses": misses,
    }
    for name, of in found.items():
        print(f"{name:16} {of['median']:8.1f} ms ({of['min']:.1f} to {of['max']:.1f})")
    if options.out is not None:
        write_json(options.out, told)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
