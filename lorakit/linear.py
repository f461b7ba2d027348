"""Linear layers, whose products of float32 are made by the quicker library of a CPU.

    forward     y = x W^T        backward     dx = g W,  dW = g^T x

PyTorch multiplies by MKL, which keeps to vectors of 256 bits on a processor of AMD's. PyTorch
carries oneDNN, too, which takes what the processor has: where that is units of 512 bits (AMD's
Zen 5) its products are 1.3 to 2.4 times as fast (benchmarks/NOTES.md). On Intel's processors MKL is
as fast or faster. There, on a GPU and in other precisions everything is as PyTorch has it.
"""

import platform
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

ENOUGH = 2**16  # numbers of an input, from which on oneDNN's longer start is paid for
THIN = 64  # columns


def prefers_onednn(processor: str) -> bool:
    """Whether oneDNN is the quicker on a `processor`, told as /proc/cpuinfo or Windows tells it."""
    family = re.search(r"family\s*:?\s*(\d+)", processor, re.IGNORECASE)
    return "AuthenticAMD" in processor and family is not None and int(family[1]) >= 26  # Zen 5


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    return told.read_text()[:500] if told.exists() else platform.processor()


CARRIED = torch.backends.mkldnn.is_available()
ONEDNN = CARRIED and prefers_onednn(_processor())
_LINEAR: Any = torch.ops.mkldnn._linear_pointwise.default if CARRIED else None


class Linear(nn.Linear):
    """x (..., in) -> x W^T (..., out); with a bias it is PyTorch's own."""

    onednn: bool | None = None  # whether it is oneDNN's to compute; None, as `by_onednn` says

    def forward(self, x: Tensor) -> Tensor:
        plain = self.bias is None and self.weight.dtype is x.dtype
        if plain and by_onednn(x, self.onednn) and not torch.is_autocast_enabled("cpu"):
            return _Linear.apply(x, self.weight)
        return super().forward(x)

    def as_for(self, tokens: int, device: str) -> None:
        """Compute as for so many tokens on a `device` of this type."""
        self.onednn = device == "cpu" and tokens * self.in_features >= ENOUGH


def by_onednn(x: Tensor, told: bool | None = None) -> bool:
    """Whether what a layer does with its input x is oneDNN's to compute; where it is, or would be
    for another x, may be `told`."""
    if not ONEDNN or x.dtype is not torch.float32 or torch.compiler.is_compiling():
        return False
    return x.is_cpu and x.numel() >= ENOUGH if told is None else told


def matmul(left: Tensor, right: Tensor, onednn: bool, scale: float = 1.0) -> Tensor:
    """scale * left @ right, (n, k) and (k, m) -> (n, m), outside of autograd.

    A thin result, of few columns, may have its columns lie together in place of its rows.
    """
    thin = right.shape[1] <= THIN
    if onednn:
        found = _onednn(right.T, left).T if thin else _onednn(left, right.T)
        return found if scale == 1 else found.mul_(scale)
    if thin and left.is_cpu:
        right = right.contiguous()  # MKL takes it several times faster by rows that lie together
    if scale == 1:
        return left @ right
    none = left.new_empty(1)  # a term that is not added: of the product its alpha is wanted
    return torch.addmm(none, left, right, beta=0, alpha=scale)


def add_matmul_(total: Tensor, left: Tensor, right: Tensor, onednn: bool) -> Tensor:
    """total += left @ right, in place."""
    return total.add_(_onednn(left, right.T)) if onednn else total.addmm_(left, right)


def _onednn(x: Tensor, W: Tensor) -> Tensor:
    return _LINEAR(x, W, None, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor) -> Tensor:
        wanted_dx, wanted_dW = ctx.needs_input_grad
        ctx.save_for_backward(x if wanted_dW else None, W if wanted_dx else None)
        return _onednn(x, W)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor):
        x, W = ctx.saved_tensors
        dx = None if W is None else _onednn(g, W.T)
        if x is None:
            return dx, None
        g, x = (rows.reshape(-1, rows.shape[-1]) for rows in (g, x))
        # Long rows and few of them: the other way round it takes half as long again.
        wide = g.shape[1] > x.shape[1]
        return dx, _onednn(x.T, g.T).T.contiguous() if wide else _onednn(g.T, x.T)
