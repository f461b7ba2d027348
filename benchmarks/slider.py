"""From a key press on a slider to new pixels in JupyterLab, every explorable beside `interact`.

    python benchmarks/slider.py --out data/results/slider.json      25 minutes; a quiet machine
    python benchmarks/slider.py --only budget --out FILE            that case anew, the rest stays

For each control that is followed while it is dragged, a cell with the explorable and one with
`interact` and `plt.show` of the same drawing: keys in turns on either, a round each, so that what
else the machine does meets both. Timed in the page: from the key to the first frame on the screen
with the new picture. Then a key is held for `HOLD` seconds: how long after its release the last
picture comes, and in every frame until then whether the picture is there, whole and of its height.

Before that, every place of the slider is visited once and rested at. What an explorable works out
when its slider rests (advice, a real step, a score) is known from then on and delays no key; how
long a key takes at a place that is new stands apart, as "first visit".

A case that fails is told, and the others go on. Results are written after each case.

Needs a Chromium (LORAKIT_BROWSER, or on the PATH) and the tools of the tests.
"""

import argparse
import datetime
import platform
import re
import shlex
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import TimeoutError, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from slow.browser import FLAGS, PANEL, Cell, Lab, Server, closing, find_browser  # noqa: E402

from lorakit.device import describe, pick_device  # noqa: E402
from lorakit.files import read_json, write_json  # noqa: E402

HOLD = 3.0  # seconds that a key is held
REPEAT = 0.033  # between the key's repeats, as a keyboard sends them
QUIET = 1500  # milliseconds without a change: the last picture has come
RESTED = 0.6  # seconds until an explorable takes its slider to be at rest
LONG = 600  # seconds, for what a kernel works out
BAR, SETTLED = 50.0, 150.0  # milliseconds: the lesson's bars
SHARE = 0.5  # of interact's median, where that is more than BAR

SETUP = """
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
import ipywidgets, matplotlib.pyplot as plt
from IPython.display import display
import lorakit as lk
from lorakit import widgets
run = lk.Run(base="mini", task="json", rank=8, alpha=16, batch_size=16, steps=20, heldout=32)

def beside(explorable, name):
    # The same drawings by `interact`: the explorable computes and draws, on figures of pyplot's.
    slider = control(explorable, name)
    for picture in explorable.pictures:
        picture.drawing = partial(on_pyplot, picture)
    kind = ipywidgets.SelectionSlider if hasattr(slider, "options") else ipywidgets.IntSlider
    traits = ("options",) if hasattr(slider, "options") else ("min", "max")
    twin = kind(value=slider.value, description="x", **{t: getattr(slider, t) for t in traits})
    def show(x):
        if x == slider.value:
            explorable.refresh()
        slider.value = x
        plt.show()
    ipywidgets.interact(show, x=twin)

def control(widget, name):
    if getattr(widget, "description", "") == name:
        return widget
    found = (control(child, name) for child in getattr(widget, "children", ()))
    return next(filter(None, found), None)

@contextmanager
def on_pyplot(picture, blit=False):
    size = picture._figure.get_size_inches()
    yield plt.figure(figsize=size, dpi=100, layout="constrained").add_subplot()
"""


class Case(NamedTuple):
    """An explorable as a page makes it, and a slider that it follows while it is dragged.

    At each of the slider's places, of which there are four or more, it shows another picture: the
    explorable's first, or that of this number.
    """

    make: str
    control: str
    picture: int = 0


CASES = {
    "handshake": Case("widgets.Handshake()", "move me"),
    "parameters": Case('widgets.ParametersExplorer("mini")', "rank"),
    "memory": Case(
        'widgets.MemoryExplorer(lk.PRESETS["mini"], run, length=80, measure=False)', "rank"
    ),
    "budget": Case('widgets.BudgetExplorer("mini", batch_size=4, budget=0.1)', "batch size"),
    "spectrum": Case("widgets.SpectrumExplorer(full, lora)", "cut at rank"),
    "truncation": Case("widgets.TruncationExplorer(full)", "rank"),
    "sweep": Case('widgets.SweepExplorer("rank")', "method"),
    "when full wins": Case("widgets.WhenFullWinsExplorer()", "examples"),
    "adapter file": Case('widgets.AdapterFileExplorer("smollm2-135m")', "rank"),
    "quantize": Case('widgets.QuantizeExplorer(lk.load_base("mini")[0])', "block"),
    "merge": Case("widgets.MergeExplorer(lora)", "alpha"),
    "shelf": Case("widgets.ShelfExplorer()", "tasks", picture=1),
}
TRAINED = """
full = lk.finetune(replace(run.with_method("full"), answers=0))
lora = lk.finetune(replace(run, answers=0))
"""

# Looks at the picture before every frame that the browser paints; `cell` is a node of the page.
WATCH = """(cell) => {
    const look = () => {
        const img = cell.querySelectorAll(SELECTOR)[NUMBER];
        const src = img?.complete && img.naturalWidth > 0 ? img.src : null;
        // While the next picture loads, the browser paints the earlier one: that is not blank.
        const painted = img && (!img.complete || img.naturalWidth > 0);
        return [src, painted ? img.getBoundingClientRect().height : 0];
    };
    const [old, height] = look();
    const watch = {old, height, key: null, first: null, last: null, changes: 0, lowest: height,
        frames: 0, blank: 0, stop: false};
    cell.watch = watch;
    const press = () => { watch.key ??= performance.now(); };
    document.addEventListener("keydown", press, {capture: true, once: true});
    const step = () => {
        if (watch.stop) return;
        const [src, height] = look();
        watch.frames++;
        watch.blank += height === 0;
        watch.lowest = Math.min(watch.lowest, height);
        if (src !== null && src !== watch.old && watch.key !== null) {
            watch.old = src;
            watch.changes++;
            watch.last = performance.now();
            watch.first ??= watch.last;
        }
        requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
}"""
FIRST = "(cell) => cell.watch.first !== null"
STILL = f"""(cell) => cell.watch.last !== null && performance.now() - cell.watch.last > {QUIET}"""
READ = """(cell) => {
    cell.watch.stop = true;
    const {old, ...seen} = cell.watch;
    return seen;
}"""
# Answered when the kernel has nothing else to do: noted down, for no page waits without a limit.
REST = f"""() => {{ {PANEL}
    window.rested = false;
    panel.sessionContext.session.kernel.requestExecute({{code: ""}}).done.then(
        () => {{ window.rested = true; }});
}}"""
OURS = '".jp-OutputArea img.figure"'
PYPLOT = '".jp-OutputArea .jp-RenderedImage img"'


class Way:
    """A cell, its slider, and what of it is watched."""

    def __init__(self, cell: Cell, slider: str, selector: str, number: int = 0):
        self.cell, self.slider = cell, slider
        self.watch = WATCH.replace("SELECTOR", selector).replace("NUMBER", str(number))
        self.node = cell.node.element_handle()
        self.right = True

    def place(self) -> tuple[float, float, float]:
        """Where the slider is, the first of its places, and the last."""
        handle = self.cell.handle(self.slider)
        now, first, last = (handle.get_attribute(f"aria-value{x}") for x in ("now", "min", "max"))
        return float(now or 0), float(first or 0), float(last or 0)

    def press(self) -> float:
        """Milliseconds from a key to the frame with the new picture; turns round at an end."""
        page, (now, first, last) = self.cell.lab.page, self.place()
        self.right = now < last if self.right else now <= first
        key = "ArrowRight" if self.right else "ArrowLeft"
        self.cell.handle(self.slider).focus()
        self.node.evaluate(self.watch)
        page.keyboard.press(key)
        try:
            page.wait_for_function(FIRST, arg=self.node, timeout=30_000)
        except TimeoutError as error:
            raise RuntimeError(
                f"{key} on {self.slider!r} at {now:g} of {first:g} to {last:g} changed no picture"
            ) from error
        seen = self.node.evaluate(READ)
        time.sleep(0.2)
        return seen["first"] - seen["key"]

    def home(self) -> None:
        """To the slider's first place, and rest there."""
        self.cell.handle(self.slider).focus()
        self.cell.lab.page.keyboard.press("Home")
        self.rest()

    def rest(self) -> None:
        """Wait until the explorable has worked out what it does when its slider rests."""
        time.sleep(RESTED)
        self.cell.lab.page.evaluate(REST)
        self.cell.lab.wait_for("a kernel at rest", "() => window.rested", timeout=LONG)

    def visit_all(self) -> list[float]:
        """From the first place to the last, resting at each: what each key took."""
        self.home()
        self.press()  # not told: fonts, first layout
        self.home()
        times: list[float] = []
        while not times or self.place()[0] < self.place()[2]:
            times.append(self.press())
            self.rest()
        return times

    def hold(self) -> dict[str, float]:
        """A held key: what is seen meanwhile, and how long until the last picture after it."""
        page = self.cell.lab.page
        self.home()
        self.node.evaluate(self.watch)
        end = time.monotonic() + HOLD
        keys = ["ArrowRight"] * 3 + ["ArrowLeft"] * 3  # from the first place: none at an end
        number = 0
        while time.monotonic() < end:
            page.keyboard.press(keys[number % len(keys)])
            number += 1
            time.sleep(REPEAT)
        released = page.evaluate("performance.now()")
        page.wait_for_function(STILL, arg=self.node, timeout=30_000)
        seen = self.node.evaluate(READ)
        return {
            "settles": max(seen["last"] - released, 0.0),
            "pictures": seen["changes"],
            "lowest": seen["lowest"] / seen["height"],
            "blank": seen["blank"] / seen["frames"],
        }


def measured(lab: Lab, case: Case, path: Path, rounds: int, presses: int) -> dict[str, Any]:
    trained = TRAINED if re.search(r"\b(full|lora)\b", case.make) else ""
    ours, theirs = f"e = {case.make}\ne", f"beside({case.make}, {case.control!r})"
    cells = [new_code_cell(text) for text in (SETUP + trained, ours, theirs)]
    nbformat.write(new_notebook(cells=cells), path)
    lab.open(path)
    lab.run_all(timeout=LONG)
    ways = {
        "explorable": Way(lab.cell(1), case.control, OURS, case.picture),
        "interact": Way(lab.cell(2), "x", PYPLOT),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    first = {name: way.visit_all() for name, way in ways.items()}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name] += [way.press() for _ in range(presses)]
            way.rest()
    held: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(3):
        for name, way in ways.items():
            held[name].append(way.hold())
    found = {
        name: {"key to pixels": spread(times[name]), "first visit": spread(first[name])}
        | over(held[name])
        for name in ways
    }
    bar = max(BAR, SHARE * found["interact"]["key to pixels"]["median"])
    mine = found["explorable"]
    found["bars"] = {
        "key to pixels": bar,
        "fast": mine["key to pixels"]["median"] <= bar,
        "settles": mine["settles"]["median"] <= SETTLED,
        "steady": mine["lowest"] > 0.99 and mine["blank"] == 0,
    }
    return found


def over(rounds: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "settles": spread([one["settles"] for one in rounds]),
        "pictures": spread([one["pictures"] for one in rounds]),
        "lowest": round(min(one["lowest"] for one in rounds), 3),
        "blank": round(max(one["blank"] for one in rounds), 3),
    }


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 1) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--presses", type=int, default=6, help="a round")
    parser.add_argument(
        "--only", nargs="+", choices=CASES, help="the others stay as they are in --out"
    )
    options = parser.parse_args()
    program = find_browser()
    if program is None:
        parser.error("no Chromium on the PATH: install one, or name one in LORAKIT_BROWSER")
    told: dict[str, Any] = {}
    if options.out and options.only and options.out.exists():
        told = read_json(options.out)
    failed: dict[str, str] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder)) as server,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=FLAGS) as browser,
    ):
        made = {
            "command": shlex.join(["python", "benchmarks/slider.py", *sys.argv[1:]]),
            "device": describe(pick_device()),
            "browser": f"Chromium {browser.version}",
            "python": platform.python_version(),
            "date": datetime.date.today().isoformat(),
            "rounds": options.rounds,
            "presses_a_round": options.presses,
        }
        for name in options.only or CASES:
            path = Path(folder) / f"{name.replace(' ', '-')}.ipynb"
            try:
                page = browser.new_page(viewport={"width": 1400, "height": 1800})
                with closing(Lab(page, server, Path(folder))) as lab:
                    found = measured(lab, CASES[name], path, options.rounds, options.presses)
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"
                print(f"{name:15} failed: {failed[name]}", file=sys.stderr, flush=True)
                continue
            print(f"{name:15} {in_words(found)}", flush=True)
            told.setdefault("milliseconds", {})[name] = found | {"made": made}
            if options.out:
                write_json(options.out, told)
    if failed:
        sys.exit(f"{len(failed)} failed: {', '.join(failed)}")


def in_words(found: dict[str, Any]) -> str:
    mine, other = (found[way] for way in ("explorable", "interact"))
    return (
        f"{mine['key to pixels']['median']:6.0f} ms, interact "
        f"{other['key to pixels']['median']:6.0f}; settles {mine['settles']['median']:5.0f}"
        f" and {other['settles']['median']:5.0f}; lowest {mine['lowest']:.2f} and "
        f"{other['lowest']:.2f}; blank {mine['blank']:.0%} and {other['blank']:.0%}; "
        f"first visit {mine['first visit']['median']:.0f}"
    )


if __name__ == "__main__":
    main()
