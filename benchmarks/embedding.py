"""Tasks learnt with and without the embedding: is it rank that LoRA lacks where it is behind?

    python benchmarks/embedding.py data/results/embedding.json      half an hour; it resumes

What trains: the linear layers alone, in full; or LoRA and, in full, the embedding (which is the
head as well) and the norms. All else is as in the sweep "data" with 3,200 examples, where every
weight trains, or LoRA alone.
"""

import argparse
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

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
    ("linear layers", FULL, (1e-3, 2e-3)),
    ("rank 8 and the rest", LORA, (2e-3, 5e-3)),
    ("linear layers", replace(FULL, task="json"), (5e-4, 1e-3)),
    ("rank 8 and the rest", replace(LORA, task="json"), (1e-3, 2e-3)),
]


def rest(model: nn.Module) -> list[nn.Parameter]:
    """Embedding, head and norms: what no adapter changes."""
    return [p for name, p in model.named_parameters() if ".layers." not in name or "norm" in name]


def done(arm: str, run: Run) -> dict[str, Any]:
    training = begin(run)
    for parameter in rest(training.model):
        parameter.requires_grad_(run.lora is not None)
    training = Training(training.model, training.batches, training.config)
    training.run()
    tokenizer = load_base(run.base)[1]
    heldout = mini_task(run.task).heldout[: run.heldout]
    encoded = [encode_example(tokenizer, example) for example in heldout]
    judged = score(training.model, encoded, pad_id=tokenizer.pad_id, batch_size=50)
    assert judged is not None  # nothing stops it
    return {
        "arm": arm,
        "run": asdict(run),
        "trains": sum(p.numel() for p in training.parameters.values()),
        "heldout": [judged.exact_match, round(judged.loss, 5)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    rows: list[dict[str, Any]] = read_json(out)["rows"] if out.exists() else []
    finished = [(row["arm"], row["run"]) for row in rows]
    head = {"command": f"python benchmarks/embedding.py {out}", "made": machine()}
    for seed, (arm, run, rates) in product(range(5), ARMS):
        for lr in rates:
            one = replace(run, lr=lr, seed=seed)
            if (arm, asdict(one)) not in finished:
                rows.append(done(arm, one))
                print(seed, one.task, arm, lr, rows[-1]["heldout"], flush=True)
                write_rows(out, head, {"rows": rows})


if __name__ == "__main__":
    main()
