"""Singular values and cuts against the clock: what a slider may take, it must not exceed.

    python benchmarks/spectrum.py [OUT.json]

`product`: the values of B @ A from its factors, beside PyTorch's SVD of the 1024 x 1024 product; at
least 100 times as fast, with an error of at most 1e-5 of the largest value. `deltas`: every delta
of the mini model with its directions, below 100 ms. `release`: a slider let go at a rank not seen
before, until the score of 64 answers is on show, below 300 ms; `control` is until the control
group's is, too. In a kernel the slider is given 50 ms to rest, which come on top.

Contestants take turns, so that what else the machine does meets each of them alike; numbers are a
median, the least and the most. The last line is JSON. Limits are for two idle cores; OpenMP's
threads should not be told to sleep (OMP_WAIT_POLICY=PASSIVE), which small matrices do not bear.
"""

import argparse
import datetime
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from lorakit.checkpoint import load_base
from lorakit.deltas import deltas
from lorakit.device import describe
from lorakit.experiment import finetune
from lorakit.files import write_json
from lorakit.run import Result, Run
from lorakit.spectrum import singular_values_of_product
from lorakit.widgets import TruncationExplorer

RUN = Run(base="mini", task="json", method="full", batch_size=8, heldout=64, answers=0)
LIMITS = {"speedup": 100, "error": 1e-5, "deltas": 0.1, "release": 0.3}


def take_turns(
    contestants: dict[str, Callable[[], Any]], rounds: int
) -> dict[str, dict[str, float]]:
    """Seconds of each: median, least, most. One round more, the first, warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, act in contestants.items():
            start = time.perf_counter()
            act()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: spread(taken) for name, taken in seconds.items()}


def spread(taken: list[float]) -> dict[str, float]:
    return {"median": median(taken), "min": min(taken), "max": max(taken)}


def product(size: int, rank: int, rounds: int) -> dict[str, Any]:
    """Factored against dense, and how far apart they are, of the largest value."""
    draw = torch.Generator().manual_seed(0)
    B, A = torch.randn(size, rank, generator=draw), torch.randn(rank, size, generator=draw)
    seconds = take_turns(
        {
            "factored": lambda: singular_values_of_product(B, A),
            "dense": lambda: torch.linalg.svdvals(B @ A),
        },
        rounds,
    )
    exact = torch.linalg.svdvals(B.double() @ A.double())[:rank]
    error = (singular_values_of_product(B, A) - exact).abs().max() / exact[0]
    return {
        "size": size,
        "rank": rank,
        "seconds": seconds,
        "speedup": seconds["dense"]["median"] / seconds["factored"]["median"],
        "error": error.item(),
    }


def every_delta(result: Result, rounds: int) -> dict[str, Any]:
    base, _ = load_base(result.run.base)
    seconds = take_turns({"deltas": lambda: deltas(result.model, base)}, rounds)
    return {"layers": len(deltas(result.model, base)), "seconds": seconds["deltas"]}


def release(result: Result, rounds: int) -> dict[str, Any]:
    """A rank that is new each time, so that each is judged; the explorable is one and the same."""
    explorer, shown = TruncationExplorer(result), []
    explorer.loss.image.observe(lambda change: shown.append(time.perf_counter()), names="value")
    ranks = [rank for rank in explorer.ranks if rank != explorer.rank.value]
    score, control = [], []
    for _ in range(rounds):
        explorer.cuts.clear()
        explorer.chances.clear()
        for rank in ranks:
            shown.clear()
            start = time.perf_counter()
            explorer.rank.value = rank
            score.append(shown[0] - start)
            control.append(shown[-1] - start)
    return {"examples": len(explorer.examples), "score": spread(score), "control": spread(control)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    os.environ["LORAKIT_DEVICE"] = "cpu"
    result = finetune(RUN)
    told: dict[str, Any] = {
        "command": f"python benchmarks/spectrum.py {options.out or ''}".rstrip(),
        "device": describe(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "limits": LIMITS,
        "product": product(1024, 16, options.rounds),
        "deltas": every_delta(result, options.rounds),
        "release": release(result, options.rounds),
    }
    for name in ("product", "deltas", "release"):
        print(name, told[name])
    if options.out is not None:
        write_json(options.out, told)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
