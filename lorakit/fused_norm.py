"""RMSNorm as one kernel of PyTorch's forward and one backward, on CUDA.

To torch.compile and to tensors without memory each is one operation, which tells what it makes.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class FusedNorm(torch.autograd.Function):
    """x (..., size), weight (size,), eps -> y as x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        y, scale = fused_norm(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor):
        x, weight, scale = ctx.saved_tensors
        trained = ctx.needs_input_grad[1]
        dx, dweight = fused_norm_backward(g, x, weight, scale, trained)
        return dx, dweight if trained else None, None


@torch.library.custom_op("lorakit::rms_norm", mutates_args=(), device_types="cuda")
def fused_norm(x: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x (..., size), weight (size,) -> y as x, and 1 / rms(x), float32, (..., 1)."""
    return torch.ops.aten._fused_rms_norm(x, weight.shape, weight, eps)


@fused_norm.register_fake
def _(x, weight, eps):
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(x.shape), x.new_empty(*x.shape[:-1], 1, dtype=wide)


@torch.library.custom_op("lorakit::rms_norm_backward", mutates_args=(), device_types="cuda")
def fused_norm_backward(
    g: Tensor, x: Tensor, weight: Tensor, scale: Tensor, trained: bool
) -> tuple[Tensor, Tensor]:
    """The gradient of y, and what forward had -> the gradients of x and, if trained, of weight."""
    made = torch.ops.aten._fused_rms_norm_backward
    dx, dweight = made(g, x, weight.shape, scale, weight, [True, trained])
    return dx, dweight if trained else weight.new_empty(0)


@fused_norm_backward.register_fake
def _(g, x, weight, scale, trained):
    return x.new_empty(x.shape), weight.new_empty(weight.shape if trained else 0)
