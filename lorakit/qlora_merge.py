"""Where to merge an adapter that was trained over a quantised base: three places, three errors.

    trained             Q(W) + delta                what the adapter was trained to be part of
    original            W + delta                   the base of the file: a plain model
    dequantised         Q(W) + delta                rounded to the weight's dtype: a plain model
    quantised again     Q(Q(W) + delta)             4 bits once more, and the delta with them

Knows models, and neither files nor tasks.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lorakit.lora import lora_layers
from lorakit.model import Llama
from lorakit.qlora import QuantizedLinear, dequantize_, plain


@dataclass(frozen=True, kw_only=True)
class MergeError:
    """A merge against the model as trained, in norms: of the logits, and of all layers' deltas.

    delta 1 is an error as large as the delta.
    """

    logits: float
    delta: float


@torch.no_grad()
def merge_errors(model: Llama, base: Llama, tokens: Tensor) -> dict[str, MergeError]:
    """What each place of a merge does to a trained `model` with a quantised base; none is changed.

    `base` is the plain model that was quantised; tokens (batch, length). Raises ValueError if there
    are no adapters, or not over quantised layers, or all zero, or the base has other layers.
    """
    adapters = dict(lora_layers(model))
    if not adapters:
        raise ValueError("nothing to merge: no adapters, inject(model, config) adds them")
    originals = {name: m for name, m in base.named_modules() if type(m) is nn.Linear}
    for name, layer in adapters.items():
        if not isinstance(layer.base, QuantizedLinear):
            raise ValueError(f"the base of {name} is not quantised: merge_cost(model) is for it")
        if name not in originals or originals[name].weight.shape != layer.base.weight.shape:
            raise ValueError(f"base has no plain {name} of that shape: load what was quantised")
    model = copy.deepcopy(model).eval()
    merged = {"original": copy.deepcopy(base).eval(), "dequantised": copy.deepcopy(model)}
    merged["quantised again"] = copy.deepcopy(model)
    dequantize_(merged["dequantised"])
    squares, whole = dict.fromkeys(merged, 0.0), 0.0
    for name, layer in lora_layers(model):
        delta, Q = layer.delta(), layer.base.weight
        whole += delta.norm().item() ** 2
        for place, net in merged.items():
            W = originals[name].weight if place == "original" else Q
            made: nn.Linear = plain(layer.base, (W + delta).to(W.dtype))
            if place == "quantised again":
                made = QuantizedLinear(made, **layer.base.form)
            net.set_submodule(name, made)
            squares[place] += (made.weight - (Q + delta)).norm().item() ** 2
    expected = model(tokens).float()

    def off(net: Llama) -> float:
        return ((net(tokens).float() - expected).norm() / expected.norm()).item()

    if not whole:
        raise ValueError("every B is zero, so there is no delta to merge: train first")
    return {
        place: MergeError(logits=off(net), delta=math.sqrt(squares[place] / whole))
        for place, net in merged.items()
    }
