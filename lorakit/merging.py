"""What can be done with trained adapters: merge (two ways), silence, rescale, take off.

    merge / unmerge      reversible and exact: each layer keeps its original weight, a copy
    merge_and_unload     one way: plain layers stay, one layer more in memory at a time

W - delta would not restore W: adding rounds, even in float32, and rounding is not undone.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from lorakit.fingerprint import remember_file
from lorakit.lora import LoRALinear, lora_layers, put

Model = TypeVar("Model", bound=nn.Module)


def remove(model: nn.Module) -> list[str]:
    """Take every adapter off: the original layers come back, frozen as they were."""
    layers = _unmerged(model, "remove")
    put(model, {name: layer.base for name, layer in layers})
    return [name for name, _ in layers]


def merge(model: nn.Module) -> list[str]:
    """Add every delta into its base weight, reversibly, and return the layers' paths.

    Each layer keeps its original weight, so `unmerge` is exact; the copies are as large as the
    adapted weights. Raises ValueError, nothing changed, as `mergeable` does; after any other error,
    as of memory, and after Ctrl-C nothing is merged either.
    """
    layers = _unmerged(model, "merge")
    for name, layer in layers:
        _check_plain(name, layer)
    try:
        for name, layer in layers:
            W = layer.merged_weight()
            # Looked at while it is in the cache; to look at W before would be a pass over memory.
            if not is_finite(W):
                _check_range(name, layer, W.dtype)  # says which of W, delta and sum is not
            layer.original = layer.base.weight.data  # first: from here on it can be put back
            layer.base.weight.data = W
        return [name for name, _ in layers]
    except BaseException:  # Ctrl-C, too: of a half merged model nothing could be asked any more
        _restore(layers)
        raise


def unmerge(model: nn.Module) -> list[str]:
    """Put back every original weight, bit for bit. Raises ValueError if nothing is merged."""
    layers = lora_layers(model)
    if missing := [name for name, layer in layers if not layer.merged]:
        raise ValueError(f"nothing to unmerge: {missing[0]} is not merged")
    if not layers:
        raise ValueError("nothing to unmerge: the model has no adapters")
    _restore(layers)
    return [name for name, _ in layers]


def _restore(layers: list[tuple[str, LoRALinear]]) -> None:
    for _, layer in layers:
        if layer.original is not None:
            layer.base.weight.data = layer.original
            layer.original = None


def merge_and_unload(
    model: nn.Module, progress: Callable[[str], None] = lambda name: None
) -> list[str]:
    """Fold every delta into its weight for good, one layer at a time; plain, frozen layers stay.

    Needs memory for one layer more at a time. `progress` is told each layer's path. Raises
    ValueError, nothing changed, as `mergeable` does. After any other error, and after Ctrl-C, each
    layer is either merged and plain or adapted as it was: the model answers as before, its weights
    are no longer their file's, and the same call goes on with the rest.
    """
    layers = mergeable(model)
    remember_file(model, None)
    try:
        for name, layer in layers:
            W = layer.merged_weight()
            layer.original = layer.base.weight.data  # until the layer stands alone
            layer.base.weight.data = W
            model.set_submodule(name, layer.base)
            layer.original = None
            progress(name)
    except BaseException:
        _restore(lora_layers(model))  # of one that still stands beside its adapter
        raise
    return [name for name, _ in layers]


def mergeable(model: nn.Module, dtype: torch.dtype | None = None) -> list[tuple[str, LoRALinear]]:
    """The adapted layers and their paths, if each can be merged in its own dtype, or in `dtype`.

    Raises ValueError naming the first that cannot: merged already, of a quantised base, base weight
    or delta not finite, or a sum that the dtype does not reach, as float16 ends at 65504. Changes
    nothing.
    """
    layers = _unmerged(model, "merge")
    for name, layer in layers:
        _check_plain(name, layer)
        _check_range(name, layer, dtype or layer.base.weight.dtype)
    return layers


def _check_plain(name: str, layer: LoRALinear) -> None:
    if not isinstance(layer.base.weight, nn.Parameter):
        raise ValueError(
            f"cannot merge: the base of {name} is quantised, its weight made anew at each use; "
            "load the adapter onto the original base and merge there, or dequantize_(model)"
        )


@torch.no_grad()
def _check_range(name: str, layer: LoRALinear, dtype: torch.dtype) -> None:
    end = torch.finfo(dtype)
    # The extremes pass on what is not finite; asking every number takes several times as long.
    if not torch.stack(layer.base.weight.aminmax()).to(dtype).isfinite().all():
        raise ValueError(
            f"the base weight of {name} is not finite in {str(dtype).removeprefix('torch.')}: take "
            "a wider dtype, or load the base again"
        )
    largest = layer.B.abs().max().item() * layer.A.abs().max().item()  # of the terms in B A
    # Less than half a step of the largest numbers moves none of them; false for NaN, too.
    if layer.config.scale * layer.config.rank * largest < end.max * end.eps / 4:
        return
    if not (layer.A.isfinite().all() and layer.B.isfinite().all()):
        raise ValueError(f"the delta of {name} is not finite: load an earlier adapter")
    if not layer.merged_weight(dtype).isfinite().all():
        raise ValueError(
            f"cannot merge: {name} would hold a number beyond {end.max:g}, where "
            f"{str(dtype).removeprefix('torch.')} ends; merge in a dtype of wider range, or keep "
            "the adapter"
        )


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are. A sum passes on what is not, and is far quicker than asking each."""
    whole = tensor.sum(dtype=torch.promote_types(tensor.dtype, torch.float32)).item()
    return math.isfinite(whole) or bool(tensor.isfinite().all())  # finite ones may sum to infinity


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Within the block the model answers as its base; merged adapters cannot be switched off."""
    layers = _unmerged(model, "disable")
    before = [layer.enabled for _, layer in layers]
    try:
        for _, layer in layers:
            layer.enabled = False
        yield
    finally:
        for (_, layer), enabled in zip(layers, before, strict=True):
            layer.enabled = enabled


def twin(model: Model) -> Model:
    """The same model with modules of its own: every tensor is shared, so it takes no memory.

    What is switched, rescaled or put in eval mode on one of the two is not on the other.
    """
    shared = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})


@contextmanager
def rescaled(model: nn.Module, alpha: float) -> Iterator[None]:
    """Within the block every adapter has this alpha: its delta is multiplied, nothing is trained.

    Raises ValueError if there are no adapters, or they are merged, or `alpha` is not above 0.
    """
    layers = _unmerged(model, "rescale")
    before = [layer.config for _, layer in layers]
    after = [replace(config, alpha=alpha) for config in before]
    try:
        for (_, layer), config in zip(layers, after, strict=True):
            layer.config = config
        yield
    finally:
        for (_, layer), config in zip(layers, before, strict=True):
            layer.config = config


def _unmerged(model: nn.Module, verb: str) -> list[tuple[str, LoRALinear]]:
    layers = lora_layers(model)
    if not layers:
        raise ValueError(f"nothing to {verb}: no adapters, inject(model, config) adds them")
    if merged := [name for name, layer in layers if layer.merged]:
        raise ValueError(
            f"cannot {verb}: {len(merged)} layers are merged (first: {merged[0]}), "
            "unmerge(model) takes the deltas out again"
        )
    return layers
