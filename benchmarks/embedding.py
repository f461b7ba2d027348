"""Tasks learnt with and without the embedding: is it rank that LoRA lacks where it is behind?

    python benchmarks/embedding.py data/results/embedding.json --jobs 2     an hour; it resumes

What trains: the linear layers alone, in full; LoRA and, in full, the rest, which is the embedding
(the head as well) and the norms; or the rest alone. All else is as in the sweep "data" with 3,200
examples, where every weight trains, or LoRA alone. A job is a process with one thread of a CPU.
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lorakit.begin import begin
from lorakit.checkpoint import load_base
from lorakit.files import read_json, write_rows
from lorakit.run import Run
from lorakit.scoring import score
from lorakit.sweep import machine
from lorakit.tasks import mini_task
from lorakit.text import encode_example
from lorakit.train import Training

FULL = Run(
    base="mini", task="deep", method="full", batch_size=16, steps=200, sample=3200, heldout=500
)
LORA = replace(FULL, method="lora", rank=8, alpha=16.0)
ARMS = [  # what trains, the run, its rates
    ("linear layers", FULL, (1e-3, 2e-3, 4e-3, 8e-3)),
    ("rank 8 and the rest", LORA, (2e-3, 5e-3, 1e-2, 2e-2)),
    ("the rest", FULL, (2e-3, 5e-3, 1e-2, 2e-2, 4e-2, 8e-2)),
    ("linear layers", replace(FULL, task="json"), (1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3)),
    ("rank 8 and the rest", replace(LORA, task="json"), (2.5e-4, 5e-4, 1e-3, 2e-3, 5e-3)),
    ("the rest", replace(FULL, task="json"), (5e-4, 1e-3, 2e-3, 5e-3, 1e-2)),
]


def rest(model: nn.Module) -> list[nn.Parameter]:
    """Embedding, head and norms: what no adapter changes."""
    return [p for name, p in model.named_parameters() if ".layers." not in name or "norm" in name]


def done(arm: str, run: Run) -> dict[str, Any]:
    torch.set_num_threads(1)
    training = begin(run)
    others = {id(p) for p in rest(training.model)}
    for parameter in training.model.parameters():
        if id(parameter) in others:
            parameter.requires_grad_(arm != "linear layers")
        elif arm == "the rest":
            parameter.requires_grad_(False)
    training = Training(training.model, training.batches, training.config)
    training.run()
    tokenizer, task = load_base(run.base)[1], mini_task(run.task)
    row = {
        "arm": arm,
        "run": asdict(run),
        "trains": sum(p.numel() for p in training.parameters.values()),
        "diverged": False,
    }
    for split in ("validation", "heldout"):
        examples = getattr(task, split)[: run.heldout]
        encoded = [encode_example(tokenizer, example) for example in examples]
        judged = score(training.model, encoded, pad_id=tokenizer.pad_id, batch_size=50)
        assert judged is not None  # nothing stops it
        row[split] = [judged.exact_match, round(judged.loss, 5)]
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    out = options.out
    rows: list[dict[str, Any]] = read_json(out)["rows"] if out.exists() else []
    finished = [(row["arm"], row["run"]) for row in rows]
    torch.set_num_threads(1)
    head = {
        "command": " ".join(["python benchmarks/embedding.py", *sys.argv[1:]]),
        "made": machine(),
    }
    all_of_it = [
        (arm, replace(run, lr=lr, seed=seed))
        for seed, (arm, run, rates) in product(range(5), ARMS)
        for lr in rates
    ]
    places = {(arm, json.dumps(asdict(run))): place for place, (arm, run) in enumerate(all_of_it)}
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        left = [pair for pair in all_of_it if (pair[0], asdict(pair[1])) not in finished]
        for running in as_completed([pool.submit(done, *pair) for pair in left]):
            row = running.result()
            rows.append(row)
            rows.sort(key=lambda row: places[row["arm"], json.dumps(row["run"])])
            print(row["arm"], row["run"]["task"], row["run"]["lr"], row["heldout"], flush=True)
            write_rows(out, head, {"rows": rows})


if __name__ == "__main__":
    main()
