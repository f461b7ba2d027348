"""How long one narrow fine-tune of the mini base takes here, whole and its steps alone.

    python benchmarks/mini_finetune.py data/results/mini_finetune.json

Methods take turns, so that what else the machine does meets each of them alike. `whole` is from
the base on disk to the judged result: 60 steps of 16, and 500 held-out examples judged before and
after.
"""

import argparse
import datetime
import platform
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from lorakit.experiment import finetune
from lorakit.files import write_json
from lorakit.run import Run

RUN = Run(base="mini", task="json", batch_size=16, steps=60, heldout=500, answers=0)
METHODS = {
    "full": replace(RUN, method="full"),
    "lora, rank 8": replace(RUN, rank=8),
    "lora, rank 1": replace(RUN, rank=1, alpha=2.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
    finetune(replace(RUN, steps=5, heldout=20))  # warm up
    for number in range(options.rounds):
        for name, run in METHODS.items():
            start = time.perf_counter()
            result = finetune(replace(run, seed=number))
            seconds[name].append((time.perf_counter() - start, result.history.seconds))
            device = result.device
    told = {}
    full = [steps for _, steps in seconds["full"]]
    for name, pairs in seconds.items():
        whole, steps = (sorted(column) for column in zip(*pairs, strict=True))
        told[name] = {
            "whole": {"median": median(whole), "min": whole[0], "max": whole[-1]},
            "steps": {"median": median(steps), "min": steps[0], "max": steps[-1]},
            "steps_over_full": median(s / f for (_, s), f in zip(pairs, full, strict=True)),
        }
        print(name, told[name])
    made = {"device": device, "torch": torch.__version__, "python": platform.python_version()}
    made["date"] = datetime.date.today().isoformat()
    write_json(
        options.out,
        {"command": f"python benchmarks/mini_finetune.py {options.out}", **made, "seconds": told},
    )


if __name__ == "__main__":
    main()
