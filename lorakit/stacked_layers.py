"""The layers of many runs in one: every trained tensor has a first dimension, the run.

    LoRA     y = W x + scale[n] * B[n] A[n] x       one frozen W, ranks padded with zeros
    full     y = W[n] x                             every weight of the model n times

A batch holds the runs' examples, run after run: (runs * batch, length, size). Knows no training.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorakit.lora import LoRAConfig, LoRALinear, freeze, inject, lora_layers, target_layers
from lorakit.model import Llama
from lorakit.norm import RMSNorm


def _grouped(x: Tensor, runs: int) -> Tensor:
    """(runs * batch, length, size) -> (runs, batch * length, size)."""
    return x.reshape(runs, -1, x.shape[-1])


class StackedLoRA(nn.Module):
    """One frozen layer and the adapters of all runs; the zeros that pad a rank stay zeros.

    A padded row of A gives its column of B no gradient, and that column gives none back.
    """

    scale: Tensor

    def __init__(self, base: nn.Linear, adapters: Sequence[LoRALinear]):
        super().__init__()
        self.base = base
        most = max(adapter.config.rank for adapter in adapters)
        pad = [most - adapter.config.rank for adapter in adapters]
        self.A = nn.Parameter(
            torch.stack([F.pad(a.A.data, (0, 0, 0, p)) for a, p in zip(adapters, pad, strict=True)])
        )
        self.B = nn.Parameter(
            torch.stack([F.pad(a.B.data, (0, p)) for a, p in zip(adapters, pad, strict=True)])
        )
        scales = torch.tensor([adapter.config.scale for adapter in adapters])
        self.register_buffer("scale", scales.to(self.A).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        h = torch.bmm(_grouped(x, len(self.A)), self.A.mT)
        return y + torch.bmm(self.scale * h, self.B.mT).view_as(y)


class StackedLinear(nn.Module):
    """A linear layer without bias, once a run: weight (runs, out, in)."""

    def __init__(self, weight: nn.Parameter):
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        y = torch.bmm(_grouped(x, len(self.weight)), self.weight.mT)
        return y.view(*x.shape[:-1], -1)


class StackedEmbedding(nn.Module):
    """An embedding once a run: weight (runs, vocab, size)."""

    def __init__(self, weight: nn.Parameter):
        super().__init__()
        self.weight = weight

    def forward(self, tokens: Tensor) -> Tensor:
        runs, vocab, size = self.weight.shape
        first = vocab * torch.arange(runs, device=tokens.device)
        rows = tokens.view(runs, -1) + first[:, None]
        return F.embedding(rows, self.weight.view(-1, size)).view(*tokens.shape, size)


class StackedNorm(nn.Module):
    """An RMSNorm once a run: weight (runs, size)."""

    def __init__(self, weight: nn.Parameter, norm: RMSNorm):
        super().__init__()
        self.weight = weight
        self.norm = copy.deepcopy(norm)
        nn.init.ones_(self.norm.weight).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y = _grouped(self.norm(x), len(self.weight))
        return (y * self.weight[:, None]).view_as(x)


def stack_adapters(
    model: Llama, configs: Sequence[LoRAConfig], generators: Sequence[torch.Generator]
) -> None:
    """Exchange each targeted layer for one with all runs' adapters, drawn as by `inject`."""
    freeze(model)
    adapters: dict[str, list[LoRALinear]] = {}
    for config, generator in zip(configs, generators, strict=True):
        one = copy.deepcopy(model).cpu()
        inject(one, config, generator=generator)
        for name, layer in lora_layers(one):
            adapters.setdefault(name, []).append(layer)
    for name, target in target_layers(model, configs[0].targets).items():
        stacked = StackedLoRA(target, adapters[name])
        model.set_submodule(name, stacked.to(target.weight.device))


def stack_weights(model: Llama, runs: int) -> None:
    """Exchange every module that has a weight for one with as many as there are runs."""
    stacks: dict[int, nn.Parameter] = {}  # tied weights stay tied
    for name, module in list(model.named_modules()):
        weight = getattr(module, "weight", None)
        if weight is None:
            continue
        if id(weight) not in stacks:
            copies = weight.detach().expand(runs, *weight.shape).clone()
            stacks[id(weight)] = nn.Parameter(copies)
        stack = stacks[id(weight)]
        if isinstance(module, nn.Linear):
            model.set_submodule(name, StackedLinear(stack))
        elif isinstance(module, nn.Embedding):
            model.set_submodule(name, StackedEmbedding(stack))
        elif isinstance(module, RMSNorm):
            model.set_submodule(name, StackedNorm(stack, module))
        else:
            raise TypeError(f"{name} is a {type(module).__name__}: it cannot be stacked")
