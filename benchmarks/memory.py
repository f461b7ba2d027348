"""Estimated memory beside a GPU's own: every cell a model, a method, a batch and a precision.

    python benchmarks/memory.py estimate BEFORE.json            anywhere; no GPU is needed
    python benchmarks/memory.py estimate THERE.json             on the GPU's machine
    python benchmarks/memory.py measure MEASURED.json           on a GPU
    python benchmarks/memory.py compare BEFORE.json THERE.json MEASURED.json OUT.json    anywhere
    python benchmarks/memory.py slowdown OUT.json               anywhere

`estimate` does it for CUDA, on a PyTorch that has CUDA or that has none. `measure` takes real steps
and asks the allocator, each cell in a process of its own: where the driver puts a segment depends
on what a process has held before. Then it runs the largest batches that are said to fit a budget,
and 1.15 times as many rows, with PyTorch held to that budget. Bytes of a cell are net of what the
process held before it (`held_before`, the libraries' workspace). `slowdown` is what a recorder
costs a run: runs with one and without take turns.

    python benchmarks/memory.py replay EVENTS                   anywhere

With `--qlora`, given to `estimate`, `measure` and `compare` alike, there are cells of bases in 4
bits besides.

`measure --events EVENTS` keeps what the allocator did in each cell. `replay` has the lab's
allocator do the same: told where the driver put each segment, and by its own idea of it.
"""

import argparse
import datetime
import gc
import gzip
import itertools
import json
import math
import platform
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from lorakit.begin import begin
from lorakit.device import describe, pick_device
from lorakit.files import read_json, write_json
from lorakit.lora import LoRAConfig, inject
from lorakit.memory import DTYPES, Recorder, Setup, estimate, largest_batch
from lorakit.memory.allocator import Allocator
from lorakit.memory.estimation import CONTEXT, WORKSPACE
from lorakit.memory.recorder import Probe
from lorakit.model import Llama, ModelConfig
from lorakit.presets import PRESETS
from lorakit.qlora import quantize_
from lorakit.run import Run
from lorakit.step import TrainConfig, make_optimizer, prepare, step

MODELS = {
    "mini": PRESETS["mini"],
    "30m": ModelConfig(
        vocab_size=8192,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1024,
    ),
    "smollm2-135m": PRESETS["smollm2-135m"],
}
METHODS = {"full": None, "r4": LoRAConfig(rank=4), "r64": LoRAConfig(rank=64)}
QUANTIZED = {"q4": LoRAConfig(rank=4), "q64": LoRAConfig(rank=64)}
LENGTH = 128
BUDGETS = [  # model, method, precision, checkpointing, GB
    ("smollm2-135m", "full", "float32", False, 8),
    ("smollm2-135m", "full", "bfloat16", True, 4),
    ("smollm2-135m", "r64", "float32", True, 3),
    ("30m", "full", "float32", False, 2),
    ("30m", "r4", "bfloat16", False, 2),
    ("mini", "full", "float32", False, 1),
]


def cells(qlora: bool) -> Iterator[dict[str, Any]]:
    """model, method, batch, precision, checkpointing, implementation, autocast."""
    keys = ("model", "method", "batch_size", "dtype", "checkpointing", "implementation", "autocast")
    grid = [
        *itertools.product(MODELS, METHODS, (1, 8, 32), DTYPES, (False,), ("foreach",), (False,)),
        *itertools.product(MODELS, METHODS, (8, 32), DTYPES, (True,), ("foreach",), (False,)),
        *itertools.product(MODELS, METHODS, (1, 8), ("float32",), (False,), ("fused",), (False,)),
        *itertools.product(MODELS, METHODS, (8,), ("float32",), (False,), ("plain",), (False,)),
        *itertools.product(
            MODELS, ("full", "r4"), (8,), ("float32",), (False,), ("auto",), (True,)
        ),
    ]
    if qlora:
        grid += itertools.product(
            MODELS, QUANTIZED, (1, 8, 32), DTYPES, (False, True), ("foreach",), (False,)
        )
    return (dict(zip(keys, values, strict=True)) for values in grid)


def setup(cell: dict[str, Any]) -> Setup:
    return Setup(
        model=MODELS[cell["model"]],
        lora={**METHODS, **QUANTIZED}[cell["method"]],
        quantized=cell["method"] in QUANTIZED,
        batch_size=cell["batch_size"],
        length=LENGTH,
        config=TrainConfig(
            implementation=cell["implementation"],
            gradient_checkpointing=cell["checkpointing"],
            autocast=cell["autocast"],
            fast=cell.get("fast", False),  # what was measured here is lora.py's layer
        ),
        dtype=cell["dtype"],
        device="cuda",
    )


def estimate_all(out: Path, processes: int, qlora: bool) -> None:
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(estimated, cells(qlora)))
    write_json(out, {"cuda": torch.cuda.is_available(), **_versions(), "cells": rows})


def estimated(cell: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    held = estimate(setup(cell))
    return _net(held) | {"seconds": round(time.perf_counter() - start, 3)}


def _net(held) -> dict[str, int]:
    return {
        "allocated": held.peak.total - WORKSPACE,
        "reserved": held.reserved - WORKSPACE,
        "device": held.device,
    }


def measured(cell: dict[str, Any], events: Path | None) -> dict[str, Any]:
    """The allocator's peak of a step, what it reserves, and what a followed step says."""
    one = setup(cell)
    _warm_up()
    if events is not None:
        torch.cuda.memory._record_memory_history(context=None, max_entries=400_000)
    before = {"allocated": torch.cuda.memory_allocated(), "reserved": torch.cuda.memory_reserved()}
    net, optimizer, batches = _begin(one)
    step(net, optimizer, batches, one.config)
    torch.cuda.reset_peak_memory_stats()
    step(net, optimizer, batches, one.config)
    torch.cuda.synchronize()
    row = {
        "measured": {
            "allocated": torch.cuda.max_memory_allocated() - before["allocated"],
            "reserved": torch.cuda.max_memory_reserved() - before["reserved"],
        }
    }
    if events is not None:
        (told,) = torch.cuda.memory._snapshot()["device_traces"]
        torch.cuda.memory._record_memory_history(enabled=None)
        name = "-".join(map(str, cell.values()))
        with gzip.open(events / f"{name}.json.gz", "wt") as file:
            json.dump([(event["action"], event["addr"], event["size"]) for event in told], file)
    probe = Probe(net, optimizer)
    step(net, optimizer, batches, one.config, phase=probe)
    peak = torch.cuda.max_memory_allocated()
    row["followed_step"] = {"followed": probe.memory().peak.total, "allocator": peak}
    return row | {"held_before": before, "accelerate": accelerate(one)}


def _begin(one: Setup) -> tuple[nn.Module, torch.optim.Optimizer, list]:
    torch.set_default_dtype(DTYPES[one.dtype])
    try:
        with torch.device("cpu" if one.quantized else "cuda"):
            net = Llama(one.model)
    finally:
        torch.set_default_dtype(torch.float32)
    if one.quantized:
        quantize_(net)
        net.to("cuda")
    if one.lora is not None:
        inject(net, one.lora)
    prepare(net, one.config)
    shape = one.batch_size, one.length
    tokens = torch.randint(0, one.model.vocab_size, shape, device="cuda")
    return net, make_optimizer(net, one.config), [(tokens, tokens.clone())]


def measure(out: Path, processes: int, events: Path | None, qlora: bool) -> None:
    context = get_context("spawn")
    if events is not None:
        events.mkdir(parents=True, exist_ok=True)
    # Each cell begins with nothing that another has left.
    with ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1) as pool:
        rows = list(pool.map(partial(measured, events=events), cells(qlora)))
    command = f"python benchmarks/memory.py measure {out.name} --processes {processes}"
    told = {
        "command": f"{command} --qlora" if qlora else command,
        "device": describe(torch.device("cuda")),
        **_versions(),
        "length": LENGTH,
        "cells": rows,
    }
    write_json(out, told)
    _warm_up()
    told["largest_batches"] = [largest(*budget) for budget in BUDGETS]
    write_json(out, told)


def compare(before: Path, there: Path, made: Path, out: Path, qlora: bool) -> None:
    estimates = {"beforehand": read_json(before), "with_cuda": read_json(there)}
    told = read_json(made)
    rows = []
    for number, cell in enumerate(cells(qlora)):
        found = {name: estimate["cells"][number] for name, estimate in estimates.items()}
        rows.append(cell | told["cells"][number] | found)
    told["estimates"] = {
        name: {key: value for key, value in estimate.items() if key != "cells"}
        for name, estimate in estimates.items()
    }
    write_json(out, told | {"errors": errors(rows), "cells": rows})
    print(json.dumps(errors(rows), indent=1))


def replay(events: Path) -> None:
    off: dict[str, list[float]] = {"told where segments lie": [], "by its own idea": []}
    for path in sorted(events.glob("*.json.gz")):
        with gzip.open(path, "rt") as file:
            done = json.load(file)
        places = [(address, size) for act, address, size in done if act == "segment_alloc"]
        real = sum(size for _, size in places)
        for name, allocator in zip(off, (_Told(places), Allocator()), strict=True):
            for act, address, size in done:
                if act == "alloc":
                    allocator.malloc(address, size)
                elif act == "free_requested":
                    allocator.release(address)
            off[name].append(abs(allocator.reserved / real - 1))
    for name, errors in off.items():
        exact = sum(error == 0 for error in errors)
        print(f"{name}: {exact} of {len(errors)} exact, worst {max(errors):.2%}")


class _Told(Allocator):
    """One that knows where the driver puts its segments."""

    def __init__(self, places: list[tuple[int, int]]):
        super().__init__()
        self.places = iter(places)

    def _address(self, size: int) -> int:
        address, real = next(self.places)
        assert real == size
        return address


def errors(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Median and worst |estimate / measured - 1|, net of workspace and in total."""
    found = {}
    kinds = itertools.product(
        ("with_cuda", "beforehand"), ("allocated", "reserved"), (0, WORKSPACE)
    )
    for name, kind, extra in kinds:
        off = [abs((r[name][kind] + extra) / (r["measured"][kind] + extra) - 1) for r in rows]
        label = f"{name}, {kind}, {'in total' if extra else 'net of workspace'}"
        found[label] = {"median": median(off), "worst": max(off)}
    off = [abs(r["followed_step"]["followed"] / r["followed_step"]["allocator"] - 1) for r in rows]
    found["followed step, allocated"] = {"median": median(off), "worst": max(off)}
    return found


def accelerate(one: Setup) -> int | None:
    """What `accelerate estimate-memory` tells for training with Adam, or None without it."""
    try:
        from accelerate.commands.estimate import estimate_training_usage
        from accelerate.utils import calculate_maximum_sizes
    except ImportError:
        return None
    with torch.device("meta"):
        net = Llama(one.model)
    # It knows no method, no batch and no length.
    size, _ = calculate_maximum_sizes(net)
    size = size if one.dtype == "float32" else size / 2
    return int(max(estimate_training_usage(size, one.dtype).values()))


def largest(model: str, method: str, dtype: str, checkpointing: bool, gigabytes: int) -> dict:
    cell = {"model": model, "method": method, "batch_size": 1, "dtype": dtype}
    cell |= {"checkpointing": checkpointing, "implementation": "foreach", "autocast": False}
    fit = largest_batch(gigabytes * 10**9, setup(cell))
    more = math.ceil(1.15 * fit.batch_size)
    _, total = torch.cuda.mem_get_info()
    row = {key: cell[key] for key in ("model", "method", "dtype", "checkpointing")}
    row |= {"budget": fit.budget, "batch_size": fit.batch_size, "more": more}
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((fit.budget - CONTEXT) / total)
    try:
        row["fits"] = _fits(replace(setup(cell), batch_size=fit.batch_size))
        row["more_fits"] = _fits(replace(setup(cell), batch_size=more))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    print(row, flush=True)
    return row


def _fits(one: Setup) -> bool:
    try:
        net, optimizer, batches = _begin(one)
        for _ in range(3):
            step(net, optimizer, batches, one.config)
        torch.cuda.synchronize()
        return True
    except torch.OutOfMemoryError:
        return False
    finally:
        net = optimizer = batches = None
        gc.collect()
        torch.cuda.empty_cache()


def slowdown(out: Path, steps: int = 300, rounds: int = 3) -> None:
    told = {}
    for method in ("full", "lora"):
        run = Run(base="mini", task="json", method=method, batch_size=16, steps=steps)
        ratios, followed = [], []
        for _ in range(rounds):
            plain, _ = _timed(run, follow=False)
            seconds, recorder = _timed(run, follow=True)
            ratios.append(seconds / plain)
            followed.append(recorder.followed)
        told[method] = {"ratios": ratios, "followed": followed}
        print(method, told[method], flush=True)
    made = {"command": f"python benchmarks/memory.py slowdown {out.name}"}
    made |= {"device": describe(pick_device()), **_versions(), "steps": steps}
    write_json(out, made | told)


def _timed(run: Run, follow: bool) -> tuple[float, Any]:
    training = begin(run)
    recorder = Recorder(training.model, training.optimizer) if follow else None
    start = time.perf_counter()
    training.run(**({"phase": recorder} if recorder else {}))
    return time.perf_counter() - start, recorder


def _warm_up() -> None:
    """Let the libraries take their workspace."""
    for dtype in DTYPES.values():
        matrix = torch.randn(64, 64, device="cuda", dtype=dtype, requires_grad=True)
        (matrix @ matrix).sum().backward()
        del matrix
    gc.collect()
    torch.cuda.empty_cache()


def _versions() -> dict[str, str]:
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    estimating = commands.add_parser("estimate")
    estimating.add_argument("out", type=Path)
    estimating.add_argument("--processes", type=int, default=2)
    measuring = commands.add_parser("measure")
    measuring.add_argument("out", type=Path)
    measuring.add_argument("--processes", type=int, default=1)
    measuring.add_argument("--events", type=Path, help="a folder for what the allocator did")
    replaying = commands.add_parser("replay")
    replaying.add_argument("events", type=Path)
    comparing = commands.add_parser("compare")
    for name in ("before", "there", "made", "out"):
        comparing.add_argument(name, type=Path)
    for command in (estimating, measuring, comparing):
        command.add_argument("--qlora", action="store_true", help="bases in 4 bits besides")
    slowing = commands.add_parser("slowdown")
    slowing.add_argument("out", type=Path)
    options = parser.parse_args()
    if options.command == "estimate":
        estimate_all(options.out, options.processes, options.qlora)
    elif options.command == "measure":
        measure(options.out, options.processes, options.events, options.qlora)
    elif options.command == "replay":
        replay(options.events)
    elif options.command == "compare":
        compare(options.before, options.there, options.made, options.out, options.qlora)
    else:
        slowdown(options.out)


if __name__ == "__main__":
    main()
