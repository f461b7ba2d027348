"""One batch, every row under an adapter of its own, or under none.

    H = x [A1; A2; ...]^T           all adapters' A as one matrix (sum of ranks, in)
    y = x W^T + (H * mask) [B1, B2, ...]^T       mask: a row's scale at its own adapter, else 0

The base's product, nearly all of the work, is done once for the whole batch. The rest grows with
the sum of the ranks; no row has a copy of its adapter. Knows layers: no model and no shelf.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorakit.lora import LoRALinear

Adapter = Mapping[str, LoRALinear]  # by the layer's path


class MixedLinear(nn.Module):
    """A base layer under several adapters: row i of a batch under adapter `rows[i]`, or None.

    x (rows, ..., in) -> (rows, ..., out). A and B are the adapters' own parameters: what trains
    them here trains them. Without gradients they are stacked once, and again after a change in
    place; one through `.data` goes unseen: change A itself, under torch.no_grad(). Raises
    ValueError if the batch has another number of rows.
    """

    def __init__(self, base: nn.Linear, adapters: Sequence[LoRALinear], rows: Sequence[int | None]):
        super().__init__()
        self.base = base
        self.A: list[Tensor] = [adapter.A for adapter in adapters]
        self.B: list[Tensor] = [adapter.B for adapter in adapters]
        # One by one: an nn.ParameterList takes many times as long, to make and at each look.
        for i, adapter in enumerate(adapters):
            self.register_parameter(f"A{i}", adapter.A)
            self.register_parameter(f"B{i}", adapter.B)
        self.row_count = len(rows)
        ends = [*accumulate(adapter.config.rank for adapter in adapters)]
        mask = torch.zeros(len(rows), ends[-1], dtype=self.A[0].dtype)
        dropout = torch.zeros(len(rows), 1)
        for row, index in enumerate(rows):
            if index is not None:
                config = adapters[index].config
                mask[row, ends[index] - config.rank : ends[index]] = config.scale
                dropout[row] = config.dropout
        self.mask, self.dropout = (t.to(self.A[0].device) for t in (mask, dropout))
        self._kept: tuple[list, tuple[Tensor, Tensor, Tensor]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if len(x) != self.row_count:
            raise ValueError(
                f"the batch has {len(x)} rows, the block has adapters for {self.row_count}: "
                "name one for every row, or None"
            )
        y = self.base(x)
        A, B, mask = self._stacked(x.dtype)
        x = self._dropped(x)
        h = F.linear(x, A) * mask.view(len(x), *[1] * (x.ndim - 2), -1)
        return y + F.linear(h, B)

    def _stacked(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """[A1; A2; ...], [B1, B2, ...] and the mask, made again only when a value has changed."""
        parameters = [*self.A, *self.B]
        if torch.is_grad_enabled() and any(p.requires_grad for p in parameters):
            return self._stack(dtype)
        state = [dtype, *(p._version for p in parameters)]
        if self._kept is None or self._kept[0] != state:
            with torch.no_grad():
                self._kept = state, self._stack(dtype)
        return self._kept[1]

    def _stack(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        A, B = torch.cat(self.A), torch.cat(self.B, dim=1)
        return A.to(dtype), B.to(dtype), self.mask.to(dtype)

    def _dropped(self, x: Tensor) -> Tensor:
        """x under each row's own dropout."""
        if not self.training or not self.dropout.any():
            return x
        p = self.dropout.view(len(x), *[1] * (x.ndim - 1))
        return x * ((torch.rand(x.shape, device=x.device) >= p) / (1 - p)).to(x.dtype)


def mixed(
    bases: Mapping[str, nn.Linear], adapters: Mapping[str, Adapter], names: Sequence[str | None]
) -> dict[str, MixedLinear]:
    """A layer for every path of `bases` that one of the named adapters has, by its path.

    Raises ValueError for a named adapter that is not finite, or has a layer switched off.
    """
    chosen = [name for name in dict.fromkeys(names) if name is not None]
    for name in chosen:
        _check(name, adapters[name])
    found = {}
    for path, base in bases.items():
        here = [name for name in chosen if path in adapters[name]]
        if here:
            rows = [here.index(name) if name in here else None for name in names]
            found[path] = MixedLinear(base, [adapters[name][path] for name in here], rows)
    return found


def _check(name: str, adapter: Adapter) -> None:
    """A mask silences a number, and no NaN: 0 times NaN is NaN, in every row."""
    for path, layer in adapter.items():
        if not layer.enabled:
            raise ValueError(
                f"cannot mix: {path} of {name!r} is switched off, and rows would switch it on: "
                "leave disabled(model) first, or name None for the base's rows"
            )
        factors = (layer.A.detach(), layer.B.detach())
        extremes = torch.stack([value for factor in factors for value in factor.aminmax()])
        if not extremes.isfinite().all():
            raise ValueError(
                f"cannot mix: {path} of {name!r} is not finite, which would spoil every row: load "
                "an earlier adapter, or leave it out"
            )
