"""Where to merge an adapter that was trained over a quantised base: each place has its error.

    trained                 Q(W) + delta        what the adapter was trained to be part of
    original                W + delta           the base of the file: a plain model
    dequantised             Q(W) + delta        rounded to the weight's dtype: a plain model
    quantised again         Q(Q(W) + delta)     4 bits once more, and the delta with them
    original, quantised     Q(W + delta)        4 bits once, of the merged original

Knows models, and neither files nor tasks.
"""

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.linear import Linear
from lorakit.lora import lora_layers
from lorakit.model import Llama
from lorakit.qlora import QuantizedLinear, dequantize_, plain
from lorakit.quantize import CODEBOOKS


@dataclass(frozen=True, kw_only=True)
class MergeError:
    """A merge against the model as trained, in norms: of the logits, and of all layers' deltas.

    delta 1 is an error as large as the delta.
    """

    logits: float
    delta: float


PLACES = ("original", "dequantised", "quantised again")
ALL_PLACES = (*PLACES, "original, quantised")


@torch.no_grad()
def merge_everywhere(model: Llama, base: Llama, places: Sequence[str] = PLACES) -> dict[str, Llama]:
    """A trained `model` with a quantised base, merged in each place; by the place's name.

    `base` is the plain model that was quantised. Neither is changed. Raises ValueError if there are
    no adapters, or not over quantised layers, or the base has other layers; or for a place that
    is not one of `ALL_PLACES`.
    """
    if unknown := [place for place in places if place not in ALL_PLACES]:
        raise ValueError(f"there is no place {unknown[0]!r}: give some of {ALL_PLACES}")
    adapters = dict(lora_layers(model))
    if not adapters:
        raise ValueError("nothing to merge: no adapters, inject(model, config) adds them")
    originals = {n: m for n, m in base.named_modules() if type(m) in (nn.Linear, Linear)}
    for name, layer in adapters.items():
        if not isinstance(layer.base, QuantizedLinear):
            raise ValueError(f"the base of {name} is not quantised: merge_cost(model) is for it")
        if name not in originals or originals[name].weight.shape != layer.base.weight.shape:
            raise ValueError(f"base has no plain {name} of that shape: load what was quantised")
    merged = {
        place: copy.deepcopy(base if place == "original" else model).eval() for place in places
    }
    if "dequantised" in merged:
        dequantize_(merged["dequantised"])
    for name, layer in adapters.items():
        delta, quantized = layer.delta(), layer.base
        assert isinstance(quantized, QuantizedLinear)
        for place, net in merged.items():
            W = originals[name].weight if place.startswith("original") else quantized.weight
            made: nn.Linear = plain(quantized, (W + delta).to(W.dtype))
            if place in ("quantised again", "original, quantised"):
                made = QuantizedLinear(made, **quantized.form)
            net.set_submodule(name, made)
    return merged


@torch.no_grad()
def merge_errors(
    model: Llama, base: Llama, tokens: Tensor, places: Sequence[str] = PLACES
) -> dict[str, MergeError]:
    """What each place of a merge does to a trained `model`; tokens (batch, length).

    Takes and raises what `merge_everywhere` does, and ValueError if every B is zero.
    """
    merged = merge_everywhere(model, base, places)
    model = copy.deepcopy(model).eval()
    squares, whole = dict.fromkeys(merged, 0.0), 0.0
    for name, layer in lora_layers(model):
        delta, Q = layer.delta(), layer.base.weight
        whole += delta.norm().item() ** 2
        for place, net in merged.items():
            merged_layer = net.get_submodule(name)
            assert isinstance(merged_layer, nn.Linear)
            squares[place] += (merged_layer.weight - (Q + delta)).norm().item() ** 2
    if not whole:
        raise ValueError("every B is zero, so there is no delta to merge: train first")
    expected = model(tokens).float()

    def off(net: Llama) -> float:
        return ((net(tokens).float() - expected).norm() / expected.norm()).item()

    return {
        place: MergeError(logits=off(net), delta=math.sqrt(squares[place] / whole))
        for place, net in merged.items()
    }


def parse_form(form: str) -> dict[str, Any]:
    """What `quantized_form` tells, as `quantize_` takes it. Raises ValueError for anything else."""
    match = re.fullmatch(r"(\w+)/(\d+)/(double|single)", form)
    if match is None or match[1] not in CODEBOOKS:
        raise ValueError(f"{form!r} is no form of 4 bits: one is as 'nf4/64/double'")
    return {"codebook": match[1], "block": int(match[2]), "double": match[3] == "double"}
