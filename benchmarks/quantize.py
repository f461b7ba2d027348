"""What 4 bits cost: error and bytes by codebook and block; the lookup and the step by the clock.

    python benchmarks/quantize.py [--base smollm2] [--out data/results/quantize.json]

`errors`: of each codebook and block size, with and without double quantisation, the relative error
of the base's linear weights (root mean square over all of them, |Q(W) - W| / |W|), of Gaussian
weights of the same shapes, and the bytes a weight that the tensors take. `bitsandbytes`: the same
from its own 4 bits, if it is installed, and how far ours are from it, over matrices whose rows are
whole blocks (its CPU kernel misreads others, as of 0.50.2). `model`: bytes of the whole
base. `merges`: an adapter trained over the quantised mini base, merged in three places.

`lookup`: seconds to make a weight whole by a table of 256 pairs, one look a byte, beside two looks
a byte; `product`: forward and backward through a layer in 4 bits, beside a plain one. Contestants
take turns; numbers are a median, the least and the most. The last line is JSON.
"""

import argparse
import datetime
import json
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.begin import begin
from lorakit.checkpoint import load_base
from lorakit.device import describe, pick_device
from lorakit.files import write_json
from lorakit.lora import ALL_LINEAR, target_layers
from lorakit.qlora import QuantizedLinear, quantize_, quantized_bytes
from lorakit.qlora_merge import merge_errors
from lorakit.quantize import CODEBOOKS, dequantize, quantize
from lorakit.run import Run
from lorakit.tasks import load_task
from lorakit.text import collate, encode_example

BLOCKS = tuple(2**n for n in range(4, 11))
RUN = Run(base="mini", task="json", method="qlora", batch_size=8, steps=60, answers=0)


class Error:
    """A relative error over many matrices, and the bytes that they take, summed up on the way."""

    def __init__(self) -> None:
        self.off = self.whole = 0.0
        self.bytes = self.weights = 0

    def add(self, W: Tensor, made: Tensor, nbytes: int) -> None:
        self.off += (made - W).double().square().sum().item()
        self.whole += W.double().square().sum().item()
        self.bytes += nbytes
        self.weights += W.numel()

    def told(self) -> dict[str, float]:
        return {"error": (self.off / self.whole) ** 0.5, "bytes": self.bytes / self.weights}


def errors(weights: dict[str, list[Tensor]]) -> list[dict[str, Any]]:
    rows = []
    for kind, matrices in weights.items():
        for codebook in CODEBOOKS:
            for block in BLOCKS:
                for double in (False, True):
                    error = Error()
                    for W in matrices:
                        held = quantize(W, block=block, codebook=codebook, double=double)
                        error.add(W, dequantize(held), held.nbytes)
                    what = {"weights": kind, "codebook": codebook, "block": block, "double": double}
                    rows.append(what | error.told())
                    print(rows[-1], flush=True)
    return rows


def bitsandbytes_errors(weights: dict[str, list[Tensor]]) -> dict[str, Any] | None:
    """Of its NF4 at block 64; `apart` is |its - ours| / |W|, `differ` the share of other codes."""
    try:
        import bitsandbytes
        from bitsandbytes.functional import dequantize_4bit, quantize_4bit
    except ImportError:
        return None
    told: dict[str, Any] = {"version": bitsandbytes.__version__, "rows": []}
    for kind, matrices in weights.items():
        for double in (False, True):
            error, apart, differ = Error(), Error(), 0
            for W in (W for W in matrices if W.shape[1] % 64 == 0):
                packed, state = quantize_4bit(
                    W, blocksize=64, quant_type="nf4", compress_statistics=double
                )
                stored = [packed, state.absmax, state.code]
                if double:
                    stored += [state.state2.absmax, state.state2.code, state.offset]
                nbytes = sum(tensor.nbytes for tensor in stored)
                theirs = dequantize_4bit(packed, state)
                held = quantize(W, double=double)
                error.add(W, theirs, nbytes)
                apart.off += (theirs - dequantize(held)).double().square().sum().item()
                apart.whole += W.double().square().sum().item()
                bits = packed.flatten().view(torch.uint8) ^ held.packed
                differ += int(((bits >> 4) > 0).sum() + ((bits & 15) > 0).sum())
            row = {"weights": kind, "double": double, **error.told()}
            row |= {"apart": (apart.off / apart.whole) ** 0.5, "differ": differ / error.weights}
            told["rows"].append(row)
            print("bitsandbytes", row, flush=True)
    return told


def merges(device: torch.device) -> dict[str, Any]:
    training = begin(RUN)
    losses = training.run().losses
    base, tokenizer = load_base(RUN.base, device=device, dtype=RUN.dtype(device.type))
    heldout = [encode_example(tokenizer, e) for e in load_task(RUN.task).heldout[:64]]
    tokens, _ = collate(heldout, tokenizer.pad_id)
    found = merge_errors(training.model, base, tokens.to(device))
    print("merges", found, flush=True)
    return {
        "run": {"base": RUN.base, "task": RUN.task, "rank": RUN.rank, "steps": RUN.steps},
        "losses": [losses[0], losses[-1]],
        "errors": {place: vars(error) for place, error in found.items()},
    }


def take_turns(
    contestants: dict[str, Callable[[], Any]], rounds: int, device: torch.device
) -> dict[str, dict[str, float]]:
    """Seconds of each: median, least, most. One round more, the first, warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, act in contestants.items():
            start = time.perf_counter()
            act()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {
        name: {"median": median(taken), "min": min(taken), "max": max(taken)}
        for name, taken in seconds.items()
    }


def lookup(rounds: int, device: torch.device) -> dict[str, Any]:
    """One matrix of SmolLM2's shape, without double quantisation, both ways to the same values."""
    held = quantize(torch.randn(1536, 576, device=device), double=False)

    def two_looks() -> Tensor:
        high = held.levels.index_select(0, (held.packed >> 4).int())
        low = held.levels.index_select(0, (held.packed & 15).int())
        blocks = torch.stack([high, low], -1).view(-1, held.block)
        return blocks.mul_(held.absmax[:, None]).view(held.shape)

    assert torch.equal(two_looks(), dequantize(held))
    seconds = take_turns(
        {"one look a byte": lambda: dequantize(held), "two": two_looks}, rounds, device
    )
    return {"shape": [*held.shape], "seconds": seconds}


def product(rounds: int, device: torch.device) -> dict[str, Any]:
    plain = nn.Linear(576, 1536, bias=False, device=device).requires_grad_(False)
    packed = QuantizedLinear(plain)
    x = torch.randn(512, 576, device=device, requires_grad=True)

    def there_and_back(layer: nn.Module) -> Callable[[], None]:
        return lambda: layer(x).sum().backward()

    contestants = {"plain": there_and_back(plain), "4 bits": there_and_back(packed)}
    return {"tokens": 512, "seconds": take_turns(contestants, rounds, device)}


def gaussian(matrices: Iterable[Tensor]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(W.shape, generator=draw).to(W.device) for W in matrices]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    device = pick_device()
    net, _ = load_base(options.base, device=device)
    layers = target_layers(net, ALL_LINEAR).values()
    real = [layer.weight.detach().clone() for layer in layers]
    weights = {options.base: real, "gaussian": gaussian(real)}
    told: dict[str, Any] = {
        "command": " ".join(["python benchmarks/quantize.py", f"--base {options.base}"]),
        "device": describe(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "matrices": len(real),
        "errors": errors(weights),
        "bitsandbytes": bitsandbytes_errors(weights),
    }
    quantize_(net)
    found = quantized_bytes(net)
    told["model"] = vars(found) | {"per_weight": found.per_weight, "ratio": found.ratio}
    told["merges"] = merges(device)
    told["lookup"] = lookup(options.rounds, device)
    told["product"] = product(options.rounds, device)
    for name in ("model", "lookup", "product"):
        print(name, told[name])
    if options.out is not None:
        told["command"] += f" --out {options.out}"
        write_json(options.out, told)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
