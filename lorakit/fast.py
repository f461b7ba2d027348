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
forward and again in backward: it is exact there, and smaller than the results that it spares.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lorakit.lora import LoRALinear, lora_layers

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # they share their input
FORMED_FROM = 256  # tokens, at the widths that are trained on a CPU
_told: ContextVar[bool | None] = ContextVar("formed", default=None)


class FastLoRALinear(LoRALinear):
    """A `LoRALinear` that trains faster where it can, and is the taught one where it cannot."""

    siblings: Any  # a Siblings, and the place among them; nn.Module's own types know no such field
    place: int

    def forward(self, x: Tensor) -> Tensor:
        siblings = self.siblings
        if x is siblings.x:
            return siblings.take(self.place)
        if not torch.is_grad_enabled() or siblings.obstacle(x) is not None:
            return super().forward(x)
        siblings.x, siblings.results = x, siblings.compute(x)
        return siblings.take(self.place)


class Siblings:
    """Layers that share their input, or one layer alone: the first one asked computes for all."""

    def __init__(self, layers: Sequence[LoRALinear]):
        self.layers = list(layers)
        self.x: Tensor | None = None
        self.results: tuple[Tensor, ...] = ()

    def obstacle(self, x: Tensor) -> str | None:
        """Why these layers have to compute `x` as in lora.py does, in words; None if not."""
        return next(filter(None, (obstacle(layer, x) for layer in self.layers)), None)

    def take(self, place: int) -> Tensor:
        """What was computed for layer `place`; the last one's lets go of all."""
        found = self.results[place]
        if place == len(self.layers) - 1:
            self.x, self.results = None, ()
        return found

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        """What each of the layers makes of x (..., in)."""
        scales = [layer.config.scale for layer in self.layers]
        parts = [(layer.base.weight, layer.base.bias, layer.A, layer.B) for layer in self.layers]
        return _Products.apply(x, scales, *(tensor for part in parts for tensor in part))


def set_fast(model: nn.Module, fast: bool) -> None:
    """Let the model's adapters be computed by this file, or by lora.py; no number is touched."""
    families: dict[tuple, list[LoRALinear]] = {}
    for name, layer in lora_layers(model):
        layer.__class__ = FastLoRALinear if fast else LoRALinear
        for field in ("siblings", "place"):
            vars(layer).pop(field, None)
        parent, _, last = name.rpartition(".")
        family = next((family for family in SIBLINGS if last in family), last)
        W = layer.base.weight
        families.setdefault((parent, family, W.shape[1], W.dtype, W.device), []).append(layer)
    if fast:
        for layers in families.values():
            siblings = Siblings(layers)
            for place, layer in enumerate(layers):
                vars(layer).update(siblings=siblings, place=place)


def obstacle(layer: LoRALinear, x: Tensor | None = None) -> str | None:
    """Why `layer` is computed as in lora.py, in words; None if it need not be."""
    if layer.original is not None or not layer.enabled:
        return "its adapter is merged or switched off"
    if layer.config.dropout and layer.training:
        return "dropout draws other inputs for the adapter than for the base"
    if "weight" not in layer.base._parameters:
        return "its base is quantised, and dequantised anew at each use"
    if x is not None and torch.is_autocast_enabled(x.device.type):
        return "autocast chooses the precision of each product"
    if x is not None and x.dtype != layer.base.weight.dtype:
        return "its input has another precision than its weight"
    return None


class _Products(torch.autograd.Function):
    """x (..., in); W (out, in), bias, A (rank, in), B (out, rank) of each -> (..., out) each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scales: list[float], *tensors: Tensor):
        Ws, biases, As, Bs = (tensors[i::4] for i in range(4))
        rows, ctx.scales, ctx.formed = _rows(x), scales, _forms(x, Ws, As)
        if ctx.formed:
            sums = zip(Ws, As, Bs, scales, strict=True)
            ys = [rows @ torch.addmm(W, B, A, alpha=scale).T for W, A, B, scale in sums]
            ctx.save_for_backward(x, None, *Ws, *As, *Bs)
        else:
            h = rows @ _joined(As, x.dtype).T
            ys = [
                (own @ (scale * B).to(x.dtype).T).addmm_(rows, W.T)
                for own, W, B, scale in zip(_split(h, As), Ws, Bs, scales, strict=True)
            ]
            ctx.save_for_backward(x, h, *Ws, *As, *Bs)
        whole = (y if b is None else y.add_(b) for y, b in zip(ys, biases, strict=True))
        return tuple(y.view(*x.shape[:-1], y.shape[1]) for y in whole)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor):
        x, h, *tensors = ctx.saved_tensors
        n, dtype = len(grads), x.dtype
        Ws, As, Bs = tensors[:n], tensors[n : 2 * n], tensors[2 * n :]
        rows, gs = _rows(x), [_rows(g) for g in grads]
        hs = _split(rows @ _joined(As, dtype).T if h is None else h, As)
        none = rows.new_empty(1)  # a term that is not added: of the product its alpha is wanted
        dx, found = None, []
        for i, (g, W, A, B, scale) in enumerate(zip(gs, Ws, As, Bs, ctx.scales, strict=True)):
            gB = g @ B.to(dtype)
            if ctx.needs_input_grad[0]:
                right = torch.addmm(W, B, A, alpha=scale) if ctx.formed else W
                dx = g @ right if dx is None else dx.addmm_(g, right)
                if not ctx.formed:
                    dx.addmm_(gB, A.to(dtype), alpha=scale)
            dA = torch.addmm(none, gB.T, rows, beta=0, alpha=scale)
            dB = torch.addmm(none, hs[i].T, g, beta=0, alpha=scale).T
            db = g.sum(0) if ctx.needs_input_grad[4 * i + 3] else None
            found += [None, db, dA.to(A.dtype), dB.to(B.dtype)]
        return None if dx is None else dx.view(x.shape), None, *found


def _forms(x: Tensor, Ws: Sequence[Tensor], As: Sequence[Tensor]) -> bool:
    """Whether W' is formed: where that is exact, and smaller than the results that it spares."""
    told, dtype = _told.get(), Ws[0].dtype
    enough = x.numel() // x.shape[-1] >= FORMED_FROM if told is None else told
    exact = dtype == As[0].dtype and dtype in (torch.float32, torch.float64)
    return enough and exact and x.device.type == "cpu"


@contextmanager
def as_if(tokens: int, device: str) -> Iterator[None]:
    """Within the block layers choose as they would for so many tokens on a `device` of this type:
    an estimate takes a small step in place of a large one."""
    before = _told.set(device == "cpu" and tokens >= FORMED_FROM)
    try:
        yield
    finally:
        _told.reset(before)


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _joined(As: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return (As[0] if len(As) == 1 else torch.cat(tuple(As))).to(dtype)


def _split(h: Tensor, As: Sequence[Tensor]) -> Sequence[Tensor]:
    """Each layer's own columns."""
    return h.split([len(A) for A in As], 1)
