"""The lesson's sweeps: what each asks, what it varies, and every run of it.

    python -m lorakit.grids rank data/results/sweeps/rank.json      minutes on a GPU; it resumes
    python -m lorakit.grids                                         how many runs each has

A method gets several learning rates everywhere: at one rate a comparison of methods or ranks is a
comparison of rates.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path

from lorakit.files import read_json, write_rows
from lorakit.lora import ALL_LINEAR
from lorakit.run import Run
from lorakit.sweep import Row, sweep

SEEDS = range(5)
SAMPLE = 800  # of a task's 1,000 training examples, drawn by the seed
RANKS = (1, 2, 4, 8, 16, 32, 64)
ALPHA = 16.0
WIDTH = 105 * 16  # rows of all the runs in one program: what fills a GPU
RATES = {
    "full": tuple(1.25e-4 * 2**i for i in range(6)),
    "lora": tuple(6.25e-4 * 2**i for i in range(7)),
}
# Where more than the rank varies, the best rate moves further.
WIDER = {"full": (*RATES["full"], 8e-3), "lora": (3.125e-4, *RATES["lora"])}
STEPS = {"json": 60, "manners-dialect": 150}  # a narrow task, and one on which rank matters
ATTENTION, MLP = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
# Targets at about equal parameters: a rank for each, and how many the adapters of a layer have.
TARGETS: dict[str, tuple[tuple[str, ...] | str, int]] = {
    "q": (("q_proj",), 32),
    "k": (("k_proj",), 32),
    "v": (("v_proj",), 32),
    "o": (("o_proj",), 32),
    "q, k": (("q_proj", "k_proj"), 16),
    "q, v": (("q_proj", "v_proj"), 16),
    "attention": (ATTENTION, 8),
    "MLP": (MLP, 6),
    "all": (ALL_LINEAR, 3),
}
DEPTHS = ("json", "manners-dialect", "deep")  # from a form that the base knows to a new language
SIZES = (32, 128, 512, 3200, 12800)  # training examples
BATCHES = (8, 16, 32, 64, 128)
EXAMPLES = 4800  # that a run of the batch sweep sees, whatever its batch


def _run(task: str, steps: int, **varied) -> Run:
    common = {"batch_size": 16, "heldout": 500, "answers": 0, "sample": SAMPLE}
    return Run(base="mini", task=task, steps=steps, **(common | varied))


def _rank() -> Iterator[Run]:
    for task, seed in product(STEPS, SEEDS):
        for lr in RATES["full"]:
            yield _run(task, STEPS[task], method="full", lr=lr, seed=seed)
        for rank, lr in product(RANKS, RATES["lora"]):
            yield _run(task, STEPS[task], rank=rank, alpha=ALPHA, lr=lr, seed=seed)


def _scaling() -> Iterator[Run]:
    """alpha / sqrt(rank): the alpha / rank of an alpha that is sqrt(rank) times as large."""
    for seed, rank, lr in product(SEEDS, RANKS, RATES["lora"]):
        alpha = ALPHA * math.sqrt(rank)
        yield _run("manners-dialect", 150, rank=rank, alpha=alpha, lr=lr, seed=seed)


def _targets() -> Iterator[Run]:
    rates = RATES["lora"][2:6]
    for task, seed, (targets, rank), lr in product(STEPS, SEEDS, TARGETS.values(), rates):
        found = {"rank": rank, "alpha": 2.0 * rank, "targets": targets}
        yield _run(task, STEPS[task], lr=lr, seed=seed, **found)


def _data() -> Iterator[Run]:
    """Each run sees every example of its own at least once."""
    for task, size, seed in product(DEPTHS, SIZES, SEEDS):
        steps = max(200, size // 16)
        for lr in WIDER["full"]:
            yield _run(task, steps, method="full", lr=lr, seed=seed, sample=size)
        for rank, lr in product((1, 8, 64), WIDER["lora"]):
            found = {"rank": rank, "alpha": 2.0 * rank, "sample": size}
            yield _run(task, steps, lr=lr, seed=seed, **found)


def _batch() -> Iterator[Run]:
    for batch_size, seed in product(BATCHES, SEEDS):
        steps, found = EXAMPLES // batch_size, {"batch_size": batch_size, "seed": seed}
        for lr in WIDER["full"]:
            yield _run("manners-dialect", steps, method="full", lr=lr, **found)
        for rank, lr in product((8, 64), WIDER["lora"]):
            yield _run("manners-dialect", steps, rank=rank, alpha=2.0 * rank, lr=lr, **found)


@dataclass(frozen=True)
class Grid:
    """A sweep: what it asks, what is varied, and its runs."""

    question: str
    varied: tuple[str, ...]
    made: Callable[[], Iterator[Run]]

    def runs(self) -> list[Run]:
        return list(self.made())


GRIDS = {
    "rank": Grid(
        "Does a higher rank do better, and does the best learning rate depend on it?",
        ("task", "method", "rank", "lr"),
        _rank,
    ),
    "data": Grid(
        "When is full fine-tuning ahead of LoRA: how much data, how deep a change?",
        ("task", "sample", "method", "rank", "lr"),
        _data,
    ),
    "targets": Grid(
        "Where do the same number of parameters do most?", ("task", "targets", "lr"), _targets
    ),
    "scaling": Grid(
        "Does alpha / sqrt(rank) keep a high rank learning where alpha / rank does not?",
        ("rank", "lr"),
        _scaling,
    ),
    "batch": Grid(
        "Do large batches hurt LoRA more than full fine-tuning?",
        ("batch_size", "method", "rank", "lr"),
        _batch,
    ),
}


def write_grid(path: Path, name: str, rows: list[Row]) -> None:
    """A sweep's rows as one JSON file, a line each; what repeats itself stands once."""
    made = list({json.dumps(row["made"]): row["made"] for row in rows}.values())
    sources = list(dict.fromkeys(row["source"] for row in rows))
    head = {
        "sweep": name,
        "question": GRIDS[name].question,
        "command": f"python -m lorakit.grids {name} data/results/sweeps/{name}.json",
        "made": made,
        "sources": sources,
    }
    lines = [
        row
        | {
            "run": _short(row["run"]),
            "made": made.index(row["made"]),
            "source": sources.index(row["source"]),
        }
        for row in rows
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, head, {"rows": lines})


def read_grid(path: Path | str) -> list[Row]:
    """The rows that `write_grid` wrote, each whole again."""
    told = read_json(Path(path))
    return [
        row
        | {
            "run": asdict(run_of(row)),
            "made": told["made"][row["made"]],
            "source": told["sources"][row["source"]],
        }
        for row in told["rows"]
    ]


def run_of(row: Row) -> Run:
    """The run that a row tells of."""
    run = dict(row["run"])
    if not isinstance(run.get("targets", ""), str):
        run["targets"] = tuple(run["targets"])
    return Run(**run)


_DEFAULTS = {field.name: field.default for field in fields(Run)}


def _short(run: Row) -> Row:
    return {name: value for name, value in run.items() if value != _DEFAULTS[name]}


def run_steps(runs: list[Run]) -> int:
    """Steps of 16 rows that the runs take together: what a sweep costs."""
    return sum(run.steps * run.batch_size for run in runs) // 16


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one of the lesson's sweeps.")
    parser.add_argument("name", nargs="?", choices=GRIDS)
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--rows", type=Path, help="where to keep what is done so far")
    parser.add_argument("--width", type=int, default=WIDTH, help="rows in one program")
    options = parser.parse_args()
    if options.name is None or options.out is None:
        for name, grid in GRIDS.items():
            runs = grid.runs()
            print(f"{name}: {len(runs)} runs, {run_steps(runs):,} steps of 16 rows")
        return
    runs, rows = GRIDS[options.name].runs(), options.rows or Path(f"runs/{options.name}.jsonl")

    def report(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    try:
        for batch_size in sorted({run.batch_size for run in runs}):
            some = [run for run in runs if run.batch_size == batch_size]
            sweep(some, rows, width=max(1, options.width // batch_size), report=report)
    except KeyboardInterrupt:
        report(f"stopped; {rows} keeps what is done, and the same command goes on")
        raise SystemExit(130) from None
    write_grid(options.out, options.name, sweep(runs, rows))


if __name__ == "__main__":
    main()
