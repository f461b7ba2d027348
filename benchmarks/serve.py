"""Tokens a second for many users: merged, an adapter beside the base, many adapters in one batch.

    python benchmarks/serve.py --base smollm2 --out OUT.json     on the device of LORAKIT_DEVICE

    base           no adapter, a batch                     what serving costs without any
    merged         one adapter merged, a batch             the fastest that one task can be
    adapter        one adapter beside the base, a batch
    mixed          every row of the batch under an adapter of its own: one program for all users
    one by one     the same rows, each alone, the adapters swapped in between

Greedy tokens from random prompts, the same number for each row. Values of adapters are random:
they decide what is said, not how long it takes. All take turns, so that what else the machine does
meets each of them alike. The last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from lorakit.checkpoint import load_base
from lorakit.device import describe, pick_device
from lorakit.files import write_json
from lorakit.generation import generate_rows
from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.merging import merge, unmerge
from lorakit.model import Llama
from lorakit.shelf import Shelf
from lorakit.sweep import machine

Rows = list[list[int]]
RATIOS = [("merged", "adapter"), ("merged", "mixed"), ("adapter", "mixed"), ("mixed", "one by one")]


def filled_shelf(model: Llama, adapters: int, rank: int) -> Shelf:
    """A shelf of random adapters, "0", "1", ... on all linear layers."""
    shelf = Shelf(model)
    generator = torch.Generator(model.lm_head.weight.device)
    for number in range(adapters):
        inject(model, LoRAConfig(rank=rank), generator=generator.manual_seed(number))
        with torch.no_grad():
            for _, layer in lora_layers(model):
                layer.B.normal_(std=0.02, generator=generator)
        shelf.take(str(number))
        shelf.disable()
    return shelf


def contenders(shelf: Shelf, prompts: Rows, new: int) -> dict[str, Callable[[], Rows]]:
    """By name, what gives every prompt's tokens; each leaves the shelf with none active."""
    model = shelf.model
    assert isinstance(model, Llama)
    names = [shelf.names[row % len(shelf.names)] for row in range(len(prompts))]

    def batch() -> Rows:
        return generate_rows(model, prompts, max_new_tokens=new)

    def mixed() -> Rows:
        with shelf.rows(names):
            return batch()

    def one_by_one() -> Rows:
        found = []
        for name, prompt in zip(names, prompts, strict=True):
            shelf.switch(name)
            found += generate_rows(model, [prompt], max_new_tokens=new)
        return found

    return {
        "base": batch,
        "merged": batch,
        "adapter": batch,
        "mixed": mixed,
        "one by one": one_by_one,
    }


def prepare(shelf: Shelf, name: str) -> None:
    """What a server would have done before the first question; not timed."""
    shelf.disable()
    if name in ("merged", "adapter"):
        shelf.switch(shelf.names[0])
    if name == "merged":
        merge(shelf.model)


def timed(shelf: Shelf, name: str, answer: Callable[[], Rows], device: torch.device) -> float:
    """Tokens a second."""
    prepare(shelf, name)
    start = time.perf_counter()
    found = answer()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    if name == "merged":
        unmerge(shelf.model)
    return sum(map(len, found)) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="mini")
    parser.add_argument("--device", help="cpu, cuda; by default LORAKIT_DEVICE's, or any")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="by default as trained")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rows", type=int, default=8, help="users at once")
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=32, help="tokens")
    parser.add_argument("--new", type=int, default=32, help="tokens that each user gets")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = pick_device(options.device)
    dtype = options.dtype or ("bfloat16" if device.type == "cuda" else "float32")
    model, _ = load_base(options.base, dtype=getattr(torch, dtype), device=device)
    shelf = filled_shelf(model, options.adapters, options.rank)
    draw = torch.Generator().manual_seed(0)
    shape = (options.rows, options.prompt)
    prompts = torch.randint(model.config.vocab_size, shape, generator=draw).tolist()
    found = contenders(shelf, prompts, options.new)
    for name, answer in found.items():  # warm up
        timed(shelf, name, answer, device)
    shelf.disable()
    together, alone = found["mixed"](), found["one by one"]()
    rounds = [
        {name: timed(shelf, name, answer, device) for name, answer in found.items()}
        for _ in range(options.rounds)
    ]
    chosen = {n: getattr(options, n) for n in ("base", "rows", "adapters", "rank", "prompt", "new")}
    given = " ".join(f"--{name} {value}" for name, value in chosen.items())
    told = {
        "command": f"python benchmarks/serve.py {given} --rounds {options.rounds}",
        **machine(),
        "device": describe(device),
        "dtype": dtype,
        **chosen,
        "rounds": options.rounds,
        # In half precision a batch rounds otherwise than a row alone, and near ties fall otherwise.
        "rows_alike": sum(a == b for a, b in zip(together, alone, strict=True)),
        **report(rounds),
    }
    for name, one in told["tokens_a_second"].items():
        print(f"{name:12}{one['median']:10,.1f} tokens/s ({one['min']:,.1f} to {one['max']:,.1f})")
    if options.out:
        write_json(options.out, told)
    print(json.dumps(told))


def report(rounds: list[dict[str, float]]) -> dict[str, dict]:
    """Tokens a second by name, and how many times as fast one is as another of the same round."""
    return {
        "tokens_a_second": {name: spread([r[name] for r in rounds]) for name in rounds[0]},
        "ratios": {f"{a} / {b}": spread([r[a] / r[b] for r in rounds]) for a, b in RATIOS},
    }


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


if __name__ == "__main__":
    main()
