"""LoRA's layers packed for a GPU: base weight and both factors in one matrix, siblings together.

    P = | W   s B |      (out + rank, in + rank) of the layers that share an input: q, k and v,
        | A    0  |      or gate and up; B in blocks, one a layer

One product (products.py) takes the place of three, and a thin one, which reads as much as a large
one, goes along with it. The delta is summed in float32 with W's share and rounded with it, never
into W. While a model is packed its base weights are views of P. The factors go into P before every
forward, all of a model's at once.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate

import torch
from torch import Tensor, nn

from lorakit.fast import FastLoRALinear, Siblings, obstacle
from lorakit.lora import LoRALinear, lora_layers
from lorakit.products import PackedProducts

SMALL = 3  # a result is small if so many times as wide it is narrower than its siblings' all
EIGHT = 8  # tensor cores want rows that begin at multiples of 16 bytes


class PackedSiblings(Siblings):
    """Layers that share their input, and the matrix that holds their weights."""

    def __init__(self, layers: Sequence[LoRALinear], P: Tensor):
        super().__init__(layers)
        self.P = P
        self.shapes = [n for layer in layers for n in (layer.config.rank, layer.base.out_features)]
        self.out, self.scale = sum(self.shapes[1::2]), layers[0].config.scale
        self.factors = [factor for layer in layers for factor in (layer.A, layer.B)]

    def __deepcopy__(self, memo: dict) -> Siblings:
        """A copied model is not packed: the factors of this one go into P."""
        found = memo[id(self)] = Siblings(())  # before its layers, which lead back to it
        found.layers = copy.deepcopy(self.layers, memo)
        return found

    def compute(self, x: Tensor) -> tuple[Tensor, ...]:
        rows = x.reshape(-1, x.shape[-1])
        found = []
        parts = PackedProducts.apply(rows, self.P, self.shapes, self.scale, *self.factors)
        for y, layer in zip(parts, self.layers, strict=True):
            # Whoever keeps a part of the result for backward keeps all of it.
            y = y.clone() if SMALL * y.shape[1] < self.out else y
            y = y if layer.base.bias is None else y + layer.base.bias
            found.append(y.view(*x.shape[:-1], y.shape[1]))
        return tuple(found)


@contextmanager
def packed(model: nn.Module) -> Iterator[int]:
    """Within the block the model's fast adapters are packed; yields how many layers are.

    The same parameters train. At the end all weights and factors are in memory of their own again.
    """
    families = {}
    for _, layer in lora_layers(model):
        if isinstance(layer, FastLoRALinear) and not any(map(obstacle, layer.siblings.layers)):
            families[id(layer.siblings)] = layer.siblings
    kinds: dict[tuple, list[Siblings]] = {}
    for siblings in families.values():
        first, *others = siblings.layers
        W = first.base.weight
        if all(
            layer.config.scale == first.config.scale and layer.base.weight.dtype == W.dtype
            for layer in others
        ):
            kinds.setdefault((W.dtype, W.device, first.A.dtype), []).append(siblings)
    before = [siblings for kind in kinds.values() for siblings in kind]
    hook = None
    try:
        arenas = [Arena(kind) for kind in kinds.values()]

        def pack(*_) -> None:
            for arena in arenas:
                arena.pack()

        if arenas:
            hook = model.register_forward_pre_hook(pack)
        yield sum(len(siblings.layers) for siblings in before)
    finally:
        if hook is not None:
            hook.remove()
        layers = [(layer, siblings) for siblings in before for layer in siblings.layers]
        for layer, siblings in layers:  # all of them first: copying may fail for lack of memory
            vars(layer)["siblings"] = siblings
        for layer, _ in layers:
            for p in (layer.base.weight, layer.A, layer.B):
                p.data = p.data.clone(memory_format=torch.contiguous_format)


class Arena:
    """The matrices of many siblings in one tensor, and their factors in another."""

    def __init__(self, families: Sequence[Siblings]):
        first = families[0].layers[0]
        layers = [layer for siblings in families for layer in siblings.layers]
        shapes = [_shape(siblings) for siblings in families]
        ends = list(accumulate(height * width for height, width in shapes))
        self.matrices = first.base.weight.detach().new_zeros(ends[-1])
        self.factors = torch.cat(
            [f.detach().flatten() for layer in layers for f in (layer.A, layer.B)]
        )
        self.scales = torch.empty_like(self.factors)
        self.index = torch.empty(len(self.factors), dtype=torch.int64, device=self.factors.device)
        self._taken = 0
        for siblings, (height, width), end in zip(families, shapes, ends, strict=True):
            start = end - height * width
            self._take(siblings, self.matrices[start:end].view(height, width), start)

    def _take(self, siblings: Siblings, P: Tensor, start: int) -> None:
        """Move the siblings' weights into P, which begins at `start`, and note their factors'."""
        packed = PackedSiblings(siblings.layers, P)
        inner = siblings.layers[0].base.in_features
        top, low, left = 0, packed.out, inner
        for layer in siblings.layers:
            height, rank = layer.base.out_features, layer.config.rank
            W = P[top : top + height, :inner]
            W.copy_(layer.base.weight.detach())
            layer.base.weight.data = W
            self._place(layer.A, 1.0, start + low * P.shape[1], P.shape[1])
            self._place(layer.B, layer.config.scale, start + top * P.shape[1] + left, P.shape[1])
            vars(layer)["siblings"] = packed
            top, low, left = top + height, low + rank, left + rank

    def _place(self, factor: nn.Parameter, scale: float, start: int, width: int) -> None:
        """A factor's numbers lie in rows from `start` on, each `width` after the one before."""
        own = slice(self._taken, self._taken + factor.numel())
        factor.data = self.factors[own].view(factor.shape)
        rows, columns = (torch.arange(n, device=self.index.device) for n in factor.shape)
        self.index[own] = (start + rows[:, None] * width + columns).flatten()
        self.scales[own], self._taken = scale, own.stop

    @torch.no_grad()
    def pack(self) -> None:
        """Put the factors as they are now into the matrices."""
        scaled = (self.scales * self.factors).to(self.matrices.dtype)
        self.matrices.index_copy_(0, self.index, scaled)


def _shape(siblings: Siblings) -> tuple[int, int]:
    rank = sum(layer.config.rank for layer in siblings.layers)
    rank = -(-rank // EIGHT) * EIGHT
    out = sum(layer.base.out_features for layer in siblings.layers)
    return out + rank, siblings.layers[0].base.in_features + rank
