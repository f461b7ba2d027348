"""Greedy tokens a second, beside transformers' `generate` on the same weights, plain and adapted.

    python benchmarks/generate.py --out data/results/generate.json       two cores, about 3 minutes
    python benchmarks/generate.py --device cuda --out ...                uncaptured and captured too

    lorakit, transformers              SmolLM2-135M in float32, one prompt, each with its KV cache
    lorakit adapted, peft              the same under an adapter of rank 8 on all linear layers
    lorakit uncaptured (and adapted)   on CUDA: without the CUDA graph

Plain ones give the same tokens, and so do adapted ones, which is checked. They take turns, so that
what else the machine does meets each of them alike; one round more, the first, warms up. A rate
counts the prompt's reading too; of a step, the prompt and the first token are taken off. Median,
least and most; the last line is one JSON object. `--random` measures SmolLM2's shape with random
weights, for which nothing need be downloaded, and `--alone` leaves transformers and PEFT out.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before PEFT is imported: it asks the hub about the base

import torch

from lorakit.adapters import save_adapter
from lorakit.checkpoint import SMOLLM2, load_base
from lorakit.device import describe
from lorakit.files import write_json
from lorakit.fingerprint import remember_file
from lorakit.generation import generate
from lorakit.hf_folder import save_folder
from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.model import Llama
from lorakit.presets import PRESETS
from lorakit.sweep import machine

CONFIG = LoRAConfig(rank=8, alpha=16.0)
BAR = 1.0  # times as fast as transformers, and as PEFT
Writer = Callable[[list[int], int], list[int]]  # prompt, how many -> tokens


def plain_model(options: argparse.Namespace) -> tuple[Llama, Any]:
    """The model, and its tokenizer if it has words."""
    if not options.random:
        return load_base(options.base, device=options.device)
    torch.manual_seed(0)
    model = Llama(PRESETS["smollm2-135m"])
    remember_file(model, "0123456789abcdef")  # as if it had been read from a file
    return model.to(options.device), None


def adapt(model: Llama, room: Path) -> Path:
    """Put an adapter on the model that changes its answers, though little, and save it."""
    draw = torch.Generator(model.lm_head.weight.device).manual_seed(0)
    inject(model, CONFIG, generator=draw)
    for _, layer in lora_layers(model):
        layer.B.data.normal_(std=1e-3, generator=draw)
    return save_adapter(model, room / "adapter")


def ours(model: Llama, captured: bool = True) -> Writer:
    return lambda prompt, new: generate(model, prompt, max_new_tokens=new, captured=captured)


def theirs(model: Any) -> Writer:
    settings = model.generation_config
    settings.eos_token_id, settings.pad_token_id = None, 0
    device = next(model.parameters()).device

    def write(prompt: list[int], new: int) -> list[int]:
        tokens = torch.tensor([prompt], device=device)
        mask = torch.ones_like(tokens)
        found = model.generate(
            input_ids=tokens, attention_mask=mask, max_new_tokens=new, do_sample=False
        )
        return found[0, len(prompt) :].tolist()

    return write


def contenders(options: argparse.Namespace, room: Path) -> dict[str, Writer]:
    model, tokenizer = plain_model(options)
    adapted, _ = plain_model(options)
    adapter = adapt(adapted, room)
    found = {"lorakit": ours(model), "lorakit adapted": ours(adapted)}
    if options.device == "cuda":
        found["lorakit uncaptured"] = ours(model, captured=False)
        found["lorakit uncaptured, adapted"] = ours(adapted, captured=False)
    if not options.alone:
        import peft
        from transformers import AutoModelForCausalLM

        folder = room / "base"
        save_folder(model, tokenizer or load_base("mini")[1], folder)

        def load() -> Any:
            loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            return loaded.to(options.device).eval()

        found["transformers"] = theirs(load())
        found["peft"] = theirs(peft.PeftModel.from_pretrained(load(), adapter).eval())
    return found


def check_alike(writers: dict[str, Writer], prompt: list[int]) -> None:
    """Plain ones say one thing, adapted ones another."""
    said = {name: write(prompt, 16) for name, write in writers.items()}
    plain = [tokens for name, tokens in said.items() if not is_adapted(name)]
    adapted = [tokens for name, tokens in said.items() if is_adapted(name)]
    assert all(tokens == plain[0] for tokens in plain), said
    assert all(tokens == adapted[0] for tokens in adapted), said


def is_adapted(name: str) -> bool:
    return "adapted" in name or name == "peft"


def race(
    writers: dict[str, Writer], prompt: list[int], new: int, rounds: int, device: str
) -> dict[str, dict[str, dict[str, float]]]:
    """Of each writer: tokens a second, milliseconds to the first token, and of a step after it."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in writers}
    for number in range(rounds + 1):
        for name, write in writers.items():
            seconds = []
            for count in (1, new):
                settle(device)
                start = time.perf_counter()
                found = write(prompt, count)
                settle(device)
                seconds.append(time.perf_counter() - start)
                assert len(found) == count
            if number:
                taken[name].append((seconds[0], seconds[1]))
    return {
        name: {
            "tokens_a_second": spread(new / whole for _, whole in found),
            "first_ms": spread(1000 * first for first, _ in found),
            "step_ms": spread(1000 * (whole - first) / (new - 1) for first, whole in found),
        }
        for name, found in taken.items()
    }


def settle(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def spread(values: Any) -> dict[str, float]:
    values = list(values)
    found = {"median": median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 2) for name, value in found.items()}


def ratio(found: dict, one: str, other: str) -> float | None:
    """How many times as fast `one` is as `other`."""
    if one not in found or other not in found:
        return None
    rates = (found[name]["tokens_a_second"]["median"] for name in (one, other))
    return round(next(rates) / next(rates), 3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--base", default=SMOLLM2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--random", action="store_true", help="random weights: no base is needed")
    parser.add_argument("--alone", action="store_true", help="without transformers and PEFT")
    parser.add_argument("--new", type=int, default=64, help="tokens an answer")
    parser.add_argument("--prompt", type=int, default=60, help="tokens of the prompt")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        writers = contenders(options, Path(folder))
        draw = torch.Generator().manual_seed(0)
        prompt = torch.randint(1000, 40_000, (options.prompt,), generator=draw).tolist()
        check_alike(writers, prompt)
        found = race(writers, prompt, options.new, options.rounds, options.device)
    ratios = {
        f"{one} / {other}": ratio(found, one, other)
        for one, other in (
            ("lorakit", "transformers"),
            ("lorakit adapted", "peft"),
            ("lorakit", "lorakit uncaptured"),
            ("lorakit adapted", "lorakit uncaptured, adapted"),
        )
    }
    told = {
        "what": "greedy generation from one prompt, float32",
        **machine(),
        "device": describe(torch.device(options.device)),
        "threads": torch.get_num_threads(),
        "base": "random weights, smollm2-135m" if options.random else options.base,
        "prompt": options.prompt,
        "new": options.new,
        "rounds": options.rounds,
        "measured": found,
        "times_as_fast": {name: value for name, value in ratios.items() if value is not None},
        "bar": BAR,
    }
    for name, of in found.items():
        rate, first, step = (of[what] for what in ("tokens_a_second", "first_ms", "step_ms"))
        print(
            f"{name:28} {rate['median']:7.1f} tokens/s ({rate['min']:.1f} to {rate['max']:.1f}), "
            f"first after {first['median']:.0f} ms, then {step['median']:.2f} ms each"
        )
    if options.out is not None:
        write_json(options.out, told)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
