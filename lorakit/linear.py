"""Linear layers, and products of float32 by the quicker library of a CPU.

    forward     y = x W^T        backward     dx = g W,  dW = g^T x

PyTorch multiplies by MKL, which keeps to vectors of 256 bits on a processor of AMD's. PyTorch
carries oneDNN, too, which takes what the processor has: where that is units of 512 bits (AMD's
Zen 5) its products are 1.3 to 2.4 times as fast (benchmarks/NOTES.md). On Intel's processors MKL is
as fast or faster, and stays.

Which tensors a step makes, and when, does not depend on the library: an estimate of memory is the
same on every CPU.
"""

import platform
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LARGE = 2**16  # numbers of an input, from which on oneDNN's longer start is paid for


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
    """x (..., in) -> x W^T (..., out), by `matmul` for a large x of float32 on a CPU.

    For another x, under autocast, compiled, or with a bias it is PyTorch's own.
    """

    large: bool | None = None  # whether x is; None, as `is_large` says

    def forward(self, x: Tensor) -> Tensor:
        plain = self.bias is None and self.weight.dtype is torch.float32
        if plain and is_large(x, self.large) and not torch.is_autocast_enabled("cpu"):
            return _Linear.apply(x, self.weight)
        return super().forward(x)


def is_large(x: Tensor, told: bool | None = None) -> bool:
    """Whether x is a large input of float32 on a CPU; its device and size may be `told`."""
    if x.dtype is not torch.float32 or torch.compiler.is_compiling():
        return False
    return x.is_cpu and x.numel() >= LARGE if told is None else told


def matmul(left: Tensor, right: Tensor, onednn: bool) -> Tensor:
    """left (n, k) @ right (k, m) -> (n, m); by oneDNN, of float32 on a CPU and without gradient."""
    return _LINEAR(left, right.T, None, "none", [], "") if onednn else left @ right


def rows_of(x: Tensor) -> Tensor:
    """(..., size) -> (n, size)"""
    return x.reshape(-1, x.shape[-1])


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, W: Tensor) -> Tensor:
        return matmul(rows_of(x), W.T, ONEDNN).view(*x.shape[:-1], len(W))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        x, W = inputs
        wanted_dx, wanted_dW = ctx.needs_input_grad
        ctx.save_for_backward(x if wanted_dW else None, W if wanted_dx else None)

    @staticmethod
    def backward(ctx: Any, g: Tensor):
        x, W = ctx.saved_tensors
        onednn, rows = ONEDNN and not torch.is_grad_enabled(), rows_of(g)
        dx = None if W is None else matmul(rows, W, onednn).view(*g.shape[:-1], W.shape[1])
        return dx, None if x is None else matmul(rows.T, rows_of(x), onednn)
