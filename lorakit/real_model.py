"""The lesson on a real model, in numbers: full fine-tuning, LoRA and QLoRA on SmolLM2's orders.

    python -m lorakit.real_model data/results/real_model.json data/adapters-smollm2

    runs      a row a method and seed: scores, losses, memory, bytes on disk, answers
    memory    one step by each method, estimated and measured
    cuts      exact match when a delta keeps its first k directions; none of it, all of it
    swaps     three adapters over one base, each judged on all three tasks
    merges    an adapter kept and merged, over a base in each dtype: what rounding takes
    quantised an adapter trained over 4 bits, merged in three ways

Minutes on a GPU. The three adapters are left in the second folder.
"""

import argparse
import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from lorakit.adapters import save_adapter
from lorakit.begin import begin
from lorakit.device import pick_device
from lorakit.experiment import finetune
from lorakit.files import write_rows
from lorakit.memory import StepMemory, estimate, measure
from lorakit.model import Llama
from lorakit.orders import FORMS
from lorakit.run import Result, Run
from lorakit.spectrum import energy
from lorakit.sweep import machine
from lorakit.trials import Row, cut_rows, merge_rows, quantised_rows, swap_rows

METHODS = ("full", "lora", "qlora")
SEEDS = range(5)
SHARES = (1, 2, 4, 8)  # of how many singular values the energy is told

RUN = Run(base="smollm2", task="orders", rank=8, steps=40, answers=0)
# For the shelf: as small as learns the form.
SMALL = replace(RUN, rank=4, targets=("q_proj", "v_proj"), lr=2e-3)


def run_row(result: Result) -> Row:
    """What a run gave, as JSON; `memory` is that of the step that held most, while it trained."""
    assert result.after is not None and result.memory is not None
    return {
        "run": asdict(result.run),
        "before": result.before.exact_match,
        "after": result.after.exact_match,
        "loss": result.after.loss,
        "losses": [round(loss, 4) for loss in result.history.losses],
        "trainable": result.parameters.trainable,
        "disk": result.disk,
        "seconds": round(result.history.seconds, 2),
        "memory": _bytes(result.memory),
        "energy": {k: round(median(s.energy(k) for s in result.spectra), 4) for k in SHARES},
        "random_energy": {
            k: round(median(energy(s.random, k) for s in result.spectra), 4) for k in SHARES
        },
        "answers": [asdict(answer) for answer in result.answers],
    }


def memory_row(run: Run) -> Row:
    """A training step on the run's first batch, measured, and foretold from its shape alone."""
    training = begin(run)
    assert isinstance(training.model, Llama)
    held = measure(training.model, training.batches, training.config)
    tokens, _ = training.batches.batch(0)
    setup = run.setup(training.model.config, tokens.shape[1], pick_device().type)
    return {
        "method": run.method,
        "length": tokens.shape[1],
        "measured": _bytes(held),
        "estimated": _bytes(estimate(setup)),
    }


def _bytes(held: StepMemory) -> Row:
    told = held.to_json()
    return {name: told[name] for name in ("peak", "peak_phase", "phases")}


def record(
    run: Run,
    small: Run,
    seeds: Sequence[int],
    shelf: Path,
    report: Callable[[str], None],
    tasks: Sequence[str],
) -> Iterator[tuple[str, list[Row]]]:
    """Make every row, table by table; the runs of the first seed are the ones that are looked into.

    The adapters of the tasks are left in `shelf`.
    """
    for seed in seeds:
        for method in METHODS:
            first = seed == seeds[0]
            result = finetune(
                replace(run, seed=seed, answers=3 if first else 0).with_method(method)
            )
            yield "runs", [run_row(result)]
            assert result.after is not None
            report(f"{method}, seed {seed}: {result.after.exact_match:.2f}")
            if first:
                yield "memory", [memory_row(result.run)]
                if method == "qlora":
                    yield "quantised", quantised_rows(result)
                else:
                    yield "cuts", cut_rows(result)
                if method == "lora":
                    yield "merges", merge_rows(result)
                report(f"{method} looked into")
            del result
            gc.collect()
    results = []
    for task in tasks:
        results.append(finetune(replace(small, task=task)))
        save_adapter(results[-1].model, shelf / task, base=run.base)
        report(f"adapter for {task}")
    yield "swaps", swap_rows(results)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the lesson on a real model.")
    parser.add_argument("out", type=Path)
    parser.add_argument("shelf", type=Path)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    options = parser.parse_args()

    def report(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    command = f"python -m lorakit.real_model {options.out} {options.shelf}"
    if options.seeds != len(SEEDS):
        command += f" --seeds {options.seeds}"
    head = {"command": command, "made": machine()}
    tables: dict[str, list[Row]] = {}
    for table, rows in record(RUN, SMALL, range(options.seeds), options.shelf, report, [*FORMS]):
        tables.setdefault(table, []).extend(rows)
        write_rows(options.out, head, tables)


if __name__ == "__main__":
    main()
