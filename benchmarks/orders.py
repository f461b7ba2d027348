"""How well each method learns the orders, over seeds; one JSON line a run.

    python benchmarks/orders.py data/results/orders.jsonl --seeds 0 1 2 3

Every row holds the run, its scores and bytes, the device, the versions and the date. `seconds` are
those of the steps, with the counting of their memory.
"""

import argparse
import datetime
import json
import platform
from dataclasses import asdict, replace
from pathlib import Path

import torch

from lorakit.experiment import finetune
from lorakit.files import replacing
from lorakit.run import Run


def row(run: Run) -> dict:
    result = finetune(run)
    return {
        "run": asdict(run),
        "before": result.before.exact_match,
        "after": result.after.exact_match,
        "loss": result.after.loss,
        "trainable": result.parameters.trainable,
        "memory": asdict(result.memory.most),
        "seconds": round(result.history.seconds, 1),
        "device": result.device,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} is there already, and measured rows are not written over")
    run = Run(base=options.base, steps=options.steps, answers=0)
    runs = [replace(run, method="full")]
    runs += [replace(run, rank=rank) for rank in (1, 2, 8, 32)]
    rows = []
    for seed in options.seeds:
        for one in runs:
            rows.append(row(replace(one, seed=seed)))
            print(json.dumps(rows[-1]), flush=True)
            with replacing(options.out) as fresh:
                fresh.write_text("".join(json.dumps(r) + "\n" for r in rows))


if __name__ == "__main__":
    main()
