"""How many parameters there are, and how many train: read off a model that takes no memory."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from lorakit.lora import LoRAConfig, inject, trainable
from lorakit.model import Llama, ModelConfig


@dataclass(frozen=True, kw_only=True)
class Count:
    """Parameters, tied weights once. `total` is the base's; an adapter comes on top of it."""

    total: int
    trainable: int

    @property
    def percent(self) -> float:
        return 100 * self.trainable / self.total


class _NoNormal(TorchFunctionMode):
    """Skips nn.Embedding's start: on `meta`, normal_ imports PyTorch's compiler, for a second."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return None if func is nn.init.normal_ else func(*args, **(kwargs or {}))


def skeleton(model: ModelConfig, lora: LoRAConfig | None = None) -> Llama:
    """The real module on the `meta` device: every shape, no memory."""
    with torch.device("meta"), _NoNormal():
        net = Llama(model)
        if lora is not None:
            inject(net, lora)
    return net


def count(model: ModelConfig, lora: LoRAConfig | None = None) -> Count:
    """Parameters of `model`, and how many train: all of them, or `lora`'s adapters alone."""
    total = _trainable(model, None)
    if lora is None:
        return Count(total=total, trainable=total)
    if lora.rank_pattern:
        return Count(total=total, trainable=_trainable(model, lora))
    # A and B each have one side as long as the rank: one count at rank 1 tells every rank's.
    return Count(total=total, trainable=lora.rank * _trainable(model, at_rank_1(lora)))


def at_rank_1(lora: LoRAConfig) -> LoRAConfig:
    """The same targets at rank 1, alpha 1: a key for what is proportional to the one rank."""
    return LoRAConfig(rank=1, alpha=1.0, targets=lora.targets)


@lru_cache(maxsize=1024)
def _trainable(model: ModelConfig, lora: LoRAConfig | None) -> int:
    return sum(p.numel() for p in trainable(skeleton(model, lora)))
