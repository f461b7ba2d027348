"""Linear layers, and products of float32 by the quicker library of a CPU.

    forward     y = x W^T        backward     dx = g W,  dW = g^T x

PyTorch multiplies by MKL, which keeps to vectors of 256 bits on a processor of AMD's. PyTorch
carries oneDNN, too, which takes what the processor has: on an EPYC of 512 bits (family 26, Zen 5)
most products take it half the time (benchmarks/NOTES.md). On Intel's MKL is as fast or faster, and
stays. `torch.backends.mkldnn.flags(enabled=False)` switches oneDNN off.

Which tensors a step makes, and when, does not depend on the library: an estimate of memory is the
same on every CPU.
"""

import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

MANY = 256  # rows, tokens, from which on what a product by oneDNN takes to start is paid for
COPIED = 2**22  # numbers: oneDNN copies what it reads by columns, to memory that nobody counts


def prefers_onednn(processor: str) -> bool:
    """Whether oneDNN is the quicker on a `processor`, told as /proc/cpuinfo or Windows tells it."""
    family = re.search(r"family\s*:?\s*(\d+)", processor, re.IGNORECASE)
    return "AuthenticAMD" in processor and family is not None and int(family[1]) >= 26


def _processor() -> str:
    try:
        with Path("/proc/cpuinfo").open() as told:
            return told.read(500)
    except OSError:
        return os.environ.get("PROCESSOR_IDENTIFIER", "")  # of Windows


CARRIED = torch.backends.mkldnn.is_available()
ONEDNN = (
    CARRIED
    and torch.backends.mkl.is_available()
    and torch.backends.cpu.get_cpu_capability() == "AVX512"
    and prefers_onednn(_processor())
)
_LINEAR: Any = torch.ops.mkldnn._linear_pointwise.default if CARRIED else None


class Linear(nn.Linear):
    """x (..., in) -> x W^T (..., out), by `matmul` for many rows of float32 on a CPU.

    For another x, under autocast, compiled, or with a bias it is PyTorch's own.
    """

    many: bool | None = None  # whether x has many rows; None, as `has_many` says

    def forward(self, x: Tensor) -> Tensor:
        W = self.weight
        plain = self.bias is None and W.dtype is torch.float32 and x.shape[-1] == self.in_features
        if plain and has_many(x, self.many) and not torch.is_autocast_enabled("cpu"):
            return _Linear.apply(x, W)
        return super().forward(x)


def has_many(x: Tensor, told: bool | None = None) -> bool:
    """Whether x has many rows of float32 on a CPU; rows and device may be `told`."""
    if (
        x.dtype is not torch.float32
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
    ):
        return False
    return x.is_cpu and x.numel() >= MANY * x.shape[-1] > 0 if told is None else told


def by_onednn() -> bool:
    """Whether oneDNN is the quicker here, and on."""
    return ONEDNN and bool(torch.backends.mkldnn.enabled)


def matmul(left: Tensor, right: Tensor, onednn: bool) -> Tensor:
    """left (n, k) @ right (k, m) -> (n, m); by oneDNN, of float32 on a CPU and without gradient."""
    return _LINEAR(left, right.T, None, "none", [], "") if onednn else left @ right


def rows_of(x: Tensor) -> Tensor:
    """(..., size) -> (n, size)"""
    return x.reshape(-1, x.shape[-1])


def shaped_as(x: Tensor, rows: Tensor) -> Tensor:
    """rows (n, out), just made, as a tensor of its own, (..., out), where x is (..., in).

    A view, coming from an autograd function, could not be changed in place.
    """
    return torch.ops.aten._unsafe_view(rows, (*x.shape[:-1], rows.shape[1]))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor) -> Tensor:
        wanted_dx, wanted_dW = ctx.needs_input_grad
        ctx.save_for_backward(x if wanted_dW else None, W if wanted_dx else None)
        return shaped_as(x, matmul(rows_of(x), W.T, by_onednn()))

    @staticmethod
    def backward(ctx: Any, g: Tensor):
        x, W = ctx.saved_tensors
        onednn, rows = by_onednn() and not torch.is_grad_enabled(), rows_of(g)
        dx = None if W is None else shaped_as(g, matmul(rows, W, onednn))
        if x is None:
            return dx, None
        return dx, matmul(rows.T, rows_of(x), onednn and g.numel() <= COPIED)
