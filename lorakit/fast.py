"""LoRA's layers, computed faster: lora.py's numbers, by one function with its own backward.

    forward     h = x A^T,  y = scale h B^T,  y += x W^T            the large product in place
    backward    dx = g W,  dx += scale (g B) A                      the thin one in place
                dA = scale (g B)^T x,  dB = scale g^T h

lora.py writes the base's result, the correction, its multiple and their sum; here there is one
result, and a product is added to it where it is made. In this order: a sum is made in float32 and
rounded once, so that in bfloat16 a small delta is in it; added to a result that is rounded already,
or to W, it would be rounded away. Layers that share an input, as q, k and v do, are computed
together: x is read once for all their A, and their shares of dx are summed as they are made.

On a CPU, in float32 or float64 and for many tokens, W' = W + scale B A is formed on the fly, in
forward and again in backward: it is exact there, and smaller than the results that it spares. The
products are then by the quicker library (linear.py), and siblings' dx are summed afterwards.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lorakit.linear import MANY, Linear, by_onednn, has_many, matmul, rows_of, shaped_as
from lorakit.lora import LoRALinear, lora_layers

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # they share their input


class FastLoRALinear(LoRALinear):
    """A `LoRALinear` that trains faster where it can, and is the taught one where it cannot."""

    siblings: Any  # a Siblings, and the place among them; nn.Module's own types know no such field
    place: int

    def forward(self, x: Tensor) -> Tensor:
        found = self.siblings.result(self.place, x) if torch.is_grad_enabled() else None
        return super().forward(x) if found is None else found


class Siblings:
    """Layers that share their input, or one layer alone: the first one asked computes for all."""

    def __init__(self, layers: Sequence[LoRALinear]):
        self.layers = list(layers)
        self.formed: bool | None = None  # whether W' is formed; None, as `_forms` says
        self.x: Tensor | None = None
        self.results: list[Tensor | None] = []

    def result(self, place: int, x: Tensor) -> Tensor | None:
        """What layer `place` makes of x (..., in), given out once; None if that is lora.py's."""
        known = x is self.x and self.results[place] is not None
        asked = self.layers[place : place + 1] if known else self.layers
        if any(obstacle(layer, x) for layer in asked):
            return None
        if not known:
            self.x, self.results = x, list(self.compute(x))
        found = self.results[place]
        assert found is not None
        self.results[place] = None
        if not any(result is not None for result in self.results):
            self.forget()
        return found

    def forget(self) -> None:
        """Let go of what no layer has asked for, as after an error midway."""
        self.x, self.results = None, []

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        """What each of the layers makes of x (..., in)."""
        scales = [layer.config.scale for layer in self.layers]
        parts = [(layer.base.weight, layer.base.bias, layer.A, layer.B) for layer in self.layers]
        how = _forms(x, self.layers[0], self.formed), by_onednn() and has_many(x)
        return _Products.apply(x, scales, how, *(tensor for part in parts for tensor in part))


def set_fast(model: nn.Module, fast: bool) -> None:
    """Let the model's adapters be computed by this file, or by lora.py; no number is touched."""
    families: dict[tuple, list[LoRALinear]] = {}
    for name, layer in lora_layers(model):
        layer.__class__ = FastLoRALinear if fast else LoRALinear
        for field in ("siblings", "place"):
            vars(layer).pop(field, None)
        parent, _, last = name.rpartition(".")
        family = next((family for family in SIBLINGS if last in family), last)
        # Not by the weight: to ask for a quantised one is to make it.
        families.setdefault((parent, family, layer.A.shape[1], layer.A.device), []).append(layer)
    if fast:
        for layers in families.values():
            siblings = Siblings(layers)
            for place, layer in enumerate(layers):
                vars(layer).update(siblings=siblings, place=place)


def forget(model: nn.Module) -> None:
    """Let go of what a forward that broke off has left in the model's adapters."""
    for _, layer in lora_layers(model):
        if isinstance(layer, FastLoRALinear):
            layer.siblings.forget()


def obstacle(layer: LoRALinear, x: Tensor | None = None) -> str | None:
    """Why `layer` is computed as in lora.py, in words; None if it need not be."""
    if layer.original is not None or not layer.enabled:
        return "its adapter is merged or switched off"
    if layer.config.dropout and layer.training:
        return "dropout draws other inputs for the adapter than for the base"
    base = layer.base
    weight = base._parameters.get("weight")
    if weight is None:
        return "its base is quantised, and dequantised anew at each use"
    if weight.requires_grad:
        return "its base trains, too"
    if (
        base._forward_hooks
        or base._forward_pre_hooks
        or type(base).forward not in (nn.Linear.forward, Linear.forward)
    ):
        return "its base does more than a linear layer"
    if x is not None and torch.is_autocast_enabled(x.device.type):
        return "autocast chooses the precision of each product"
    if x is not None and x.dtype != weight.dtype:
        return "its input has another precision than its weight"
    return None


class _Products(torch.autograd.Function):
    """x (..., in); W (out, in), bias, A (rank, in), B (out, rank) of each -> (..., out) each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: list[float], how: tuple[bool, bool], *tensors: Tensor):
        Ws, biases, As, Bs = (tensors[i::4] for i in range(4))
        rows, ctx.scales, ctx.how = rows_of(x), scales, how
        formed, onednn = how
        if formed:
            ys = [matmul(rows, W.T, onednn) for W in _formed(Ws, As, Bs, scales)]
            ctx.save_for_backward(x, None, *Ws, *As, *Bs)
        else:
            h = rows @ _joined(As, x.dtype).T
            ys = [
                (own.T @ (scale * B).to(x.dtype).T).addmm_(rows, W.T)
                for own, W, B, scale in zip(_split(h.T, As), Ws, Bs, scales, strict=True)
            ]
            ctx.save_for_backward(x, h, *Ws, *As, *Bs)
        whole = (y if b is None else y.add_(b) for y, b in zip(ys, biases, strict=True))
        return tuple(shaped_as(x, y) for y in whole)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor):
        x, h, *tensors = ctx.saved_tensors
        n, dtype, (formed, onednn) = len(grads), x.dtype, ctx.how
        Ws, As, Bs = tensors[:n], tensors[n : 2 * n], tensors[2 * n :]
        rows, gs, A = rows_of(x), [rows_of(g) for g in grads], _joined(As, dtype)
        h = _thin(A, rows, onednn) if h is None else h.T
        gBs = [
            _thin(_turned(B, scale).to(dtype), g, onednn)
            for B, scale, g in zip(Bs, ctx.scales, gs, strict=True)
        ]
        dx: Any = None
        if ctx.needs_input_grad[0]:
            Ws = _formed(Ws, As, Bs, ctx.scales) if formed else Ws
            for g, W in zip(gs, Ws, strict=True):
                if dx is None:
                    dx = matmul(g, W, onednn)
                elif formed:
                    dx += matmul(g, W, onednn)
                else:
                    dx.addmm_(g, W)
            dx = (dx if formed else dx.addmm_(_joined(gBs, dtype).T, A)).view(x.shape)
        found = []
        for i, (g, own_h, gB) in enumerate(zip(gs, _split(h, As), gBs, strict=True)):
            dA = matmul(gB, rows, onednn).to(As[i].dtype)
            dB = matmul(own_h, g, onednn).T.to(Bs[i].dtype).mul_(ctx.scales[i])
            db = g.sum(0) if ctx.needs_input_grad[4 * i + 4] else None
            found += [None, db, dA, dB]
        return dx, None, None, *found


def _formed(
    Ws: Sequence[Tensor], As: Sequence[Tensor], Bs: Sequence[Tensor], scales: Sequence[float]
) -> Iterator[Tensor]:
    """W' of each layer, made when it is asked for."""
    for W, A, B, scale in zip(Ws, As, Bs, scales, strict=True):
        yield torch.addmm(W, B, A, alpha=scale)


def _forms(x: Tensor, layer: LoRALinear, told: bool | None) -> bool:
    """Whether W' is formed: where that is exact, and smaller than the results that it spares."""
    enough = x.numel() // x.shape[-1] >= MANY if told is None else told
    dtype = layer.base.weight.dtype
    exact = dtype == layer.A.dtype and dtype in (torch.float32, torch.float64)
    return enough and exact and x.device.type == "cpu"


def as_for(model: nn.Module, tokens: int, device: str) -> None:
    """Let layers compute as they would for so many tokens on a `device` of this type: an estimate
    takes a small step in place of a large one."""
    many = device == "cpu" and tokens >= MANY
    for layer in model.modules():
        if isinstance(layer, FastLoRALinear):
            layer.siblings.formed = many
        elif isinstance(layer, Linear):
            layer.many = many


def _thin(factor: Tensor, rows: Tensor, onednn: bool) -> Tensor:
    """factor (rank, k), rows (n, k) -> (rank, n), which oneDNN can read by rows afterwards."""
    return matmul(factor, rows.T, True) if onednn else (rows @ factor.T).T


def _turned(B: Tensor, scale: float) -> Tensor:
    """scale * B^T by rows that lie together: a CPU takes it several times faster so."""
    return torch.mul(B.T, scale, out=B.new_empty(B.shape[1], B.shape[0]))


def _joined(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The rows of all, one below the other."""
    return (parts[0] if len(parts) == 1 else torch.cat(tuple(parts))).to(dtype)


def _split(whole: Tensor, As: Sequence[Tensor]) -> Sequence[Tensor]:
    """Each layer's own rows."""
    return (whole,) if len(As) == 1 else torch.split_with_sizes(whole, [len(A) for A in As])
