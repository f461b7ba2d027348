"""What a merge costs and what it brings, told before it is done; the model stays as it is.

    loss = ||round(W + delta) - (W + delta)|| / ||delta||        in the dtype of the merged weight

A delta much smaller than W falls between two numbers of a short dtype: entries of W that stay as
they were, and a delta that is partly gone. The other side of the scales is speed: a merged layer is
one product, an adapter makes it three.
"""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from lorakit.generation import generate
from lorakit.lora import LoRALinear, lora_layers
from lorakit.merging import merge_and_unload, mergeable
from lorakit.model import Llama


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer's merge: Frobenius norms, and how many entries of W it leaves as they are."""

    layer: str
    weight: float
    delta: float
    error: float  # of round(W + delta) - (W + delta)
    entries: int
    kept: int  # entries that do not change

    @property
    def size(self) -> float:
        """||delta|| / ||W||."""
        return _ratio(self.delta, self.weight)

    @property
    def loss(self) -> float:
        """The share of the delta that rounding takes; 1 and more if it is drowned."""
        return _ratio(self.error, self.delta)

    @property
    def unchanged(self) -> float:
        """The share of W's entries that the merge leaves as they are."""
        return self.kept / self.entries


@dataclass(frozen=True, kw_only=True)
class MergeCost:
    """A merge in `dtype`, layer by layer in the model's order; print it for a table."""

    dtype: str  # as in "bfloat16"
    layers: tuple[LayerCost, ...]

    @property
    def worst(self) -> LayerCost:
        """The layer that loses the largest share of its delta."""
        return max(self.layers, key=lambda cost: cost.loss)

    @property
    def loss(self) -> float:
        """The median of the layers' losses."""
        return median(cost.loss for cost in self.layers)

    @property
    def unchanged(self) -> float:
        """The share of all entries that the merge leaves as they are."""
        return sum(c.kept for c in self.layers) / sum(c.entries for c in self.layers)

    @property
    def summary(self) -> str:
        return (
            f"merged in {self.dtype}, {share(self.loss)} of the delta is lost (median of "
            f"{len(self.layers)} layers; worst {share(self.worst.loss)}, {self.worst.layer}), "
            f"{share(self.unchanged)} of the entries do not change"
        )

    def __str__(self) -> str:
        width = max(len(cost.layer) for cost in self.layers)
        head = f"{'layer':{width}}  |delta|/|W|     lost  unchanged"
        rows = [
            f"{c.layer:{width}}  {c.size:11.2g} {share(c.loss):>8} {share(c.unchanged):>10}"
            for c in self.layers
        ]
        return "\n".join([head, *rows, self.summary])


def share(value: float) -> str:
    """12%, 0.034%: two digits, or three from 100% on."""
    return f"{100 * value:.2g}%" if value < 0.995 else f"{100 * value:.0f}%"


@torch.no_grad()
def merge_cost(model: nn.Module, dtype: torch.dtype | None = None) -> MergeCost:
    """What merging would lose of each delta, in the base's own dtype, or were the base in `dtype`.

    Measured on the very weights that a merge would leave, a layer at a time: in bfloat16 a random
    delta of a hundredth of W's norm loses 17%, one of a thousandth 79%; in float16 2.1% and 21%.
    Raises ValueError as `mergeable` does.
    """
    layers = mergeable(model, dtype)
    dtype = dtype or layers[0][1].base.weight.dtype
    return MergeCost(dtype=_name(dtype), layers=tuple(_of_layer(n, m, dtype) for n, m in layers))


def _of_layer(name: str, layer: LoRALinear, dtype: torch.dtype) -> LayerCost:
    W, merged = layer.base.weight.to(dtype), layer.merged_weight(dtype)
    kept = int((merged == W).sum())
    # Twice as many digits as the merged weight has, or the reference would be rounded as it is.
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else torch.float64
    device = "cpu" if W.device.type == "mps" else W.device  # mps has no float64
    W, merged, B, A = (t.to(device, wide) for t in (W, merged, layer.B, layer.A))
    delta = layer.config.scale * (B @ A)
    error = (merged - W - delta).norm().item()
    return LayerCost(
        layer=name,
        weight=W.norm().item(),
        delta=delta.norm().item(),
        error=error,
        entries=W.numel(),
        kept=kept,
    )


@torch.no_grad()
def logit_change(model: nn.Module, tokens: Tensor, dtype: torch.dtype | None = None) -> float:
    """How far a merge in `dtype` moves a logit at most, as a share of the largest logit.

    Merged beside adapter kept, both over bases in `dtype`; tokens (batch, length). Products are
    taken in the model's own dtype for both, so that the merge's rounding is all that differs.
    """
    mergeable(model, dtype)
    kept = copy.deepcopy(model)
    for _, layer in lora_layers(kept):
        layer.base.to(dtype)
    merged = copy.deepcopy(kept)
    merge_and_unload(merged)
    own = next(model.parameters()).dtype
    expected, found = kept.to(own)(tokens), merged.to(own)(tokens)
    return _ratio((found - expected).abs().max().item(), expected.abs().max().item())


def tokens_a_second(
    model: Llama, prompt: Sequence[int], *, max_new_tokens: int = 32, rounds: int = 3
) -> dict[str, float]:
    """How fast the model writes with its adapters kept, and merged: medians, taken in turns.

    Of a copy merged in the model's own dtype; one round more, the first, warms up.
    """
    merged = copy.deepcopy(model)
    merge_and_unload(merged)
    writers = {"adapter kept": model, "merged": merged}
    rates: dict[str, list[float]] = {name: [] for name in writers}
    for number in range(rounds + 1):
        for name, net in writers.items():
            start = time.perf_counter()
            new = generate(net, list(prompt), max_new_tokens=max_new_tokens)
            rate = len(new) / (time.perf_counter() - start)
            if number:
                rates[name].append(rate)
    return {name: median(found) for name, found in rates.items()}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _ratio(part: float, whole: float) -> float:
    """A delta of nothing loses nothing."""
    return part / whole if whole else math.inf if part else 0.0
