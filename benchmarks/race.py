"""What a step takes: six ranks as one program, one run, and both as a CUDA graph.

    python benchmarks/race.py OUT.json              on the device that LORAKIT_DEVICE names, or any

Six LoRA ranks of one task on the same batches, a run of rank 8 as a stack of one, and the same runs
by `train.Training`, a step of each in turns (on a GPU with half-precision products). Full
fine-tuning, which races with the ranks, is timed beside them. All take turns, some steps each, so
that what else the machine does meets each of them alike. Graphs are there on a GPU alone.
"""

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lorakit.begin import begin
from lorakit.device import describe, pick_device
from lorakit.files import write_json
from lorakit.run import Run
from lorakit.stacked import Stack
from lorakit.sweep import stack_runs

RUN = Run(base="mini", task="json", rank=8, batch_size=16)
RANKS = (1, 2, 4, 8, 16, 32)
WARM_UP = 5  # steps, not timed; a graph is recorded in the first


def steppers(steps: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """By name, what takes one step of one run or of six."""
    run = replace(RUN, steps=steps)
    six = [replace(run, rank=rank) for rank in RANKS]
    groups = {"six": six, "one": [run], "full": [run.with_method("full")]}
    found: dict[str, Callable[[], object]] = {}
    for name, runs in groups.items():
        stack, _ = stack_runs(runs)
        for how in [False, True] if device.type == "cuda" else [False]:
            captured = Stack(stack.base, stack.runs, capture=how)
            found[f"{name}, {'captured' if how else 'stacked'}"] = captured.step
        found[f"{name}, alone"] = in_turns([begin(one).step for one in runs])
    return found


def in_turns(steps: list[Callable[[], object]]) -> Callable[[], None]:
    def step() -> None:
        for one in steps:
            one()

    return step


def timed(step: Callable[[], object], times: int, device: torch.device) -> float:
    """Milliseconds a step."""
    start = time.perf_counter()
    for _ in range(times):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (time.perf_counter() - start) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--times", type=int, help="steps a round; 40 on a GPU, else 2")
    options = parser.parse_args()
    device = pick_device()
    times = options.times or (40 if device.type == "cuda" else 2)
    found = steppers(WARM_UP + options.rounds * times, device)
    for step in found.values():
        timed(step, WARM_UP, device)
    rounds = [
        {name: timed(step, times, device) for name, step in found.items()}
        for _ in range(options.rounds)
    ]
    told = report(rounds)
    for name, spread in told["milliseconds"].items():
        print(f"{name:14} {spread['median']:8.2f} ms ({spread['min']:.2f} to {spread['max']:.2f})")
    made: dict[str, Any] = {
        "command": " ".join(
            ["python benchmarks/race.py", *([str(options.out)] * bool(options.out))]
        ),
        "device": describe(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "ranks": RANKS,
        "batch_size": RUN.batch_size,
        "rounds": options.rounds,
        "steps_a_round": times,
    }
    if options.out:
        write_json(options.out, made | told)
    print(json.dumps(made | told))


def report(rounds: list[dict[str, float]]) -> dict[str, dict]:
    """Milliseconds a step by name, and what the six take relative to others of the same round."""
    names = list(rounds[0])
    six = [name for name in names if name.startswith("six")]
    pairs = [(a, b) for a in six for b in (a.replace("six", "one"), "six, alone") if b in names]
    return {
        "milliseconds": {name: spread([r[name] for r in rounds]) for name in names},
        "ratios": {f"{a} / {b}": spread([r[a] / r[b] for r in rounds]) for a, b in pairs if a != b},
    }


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    main()
