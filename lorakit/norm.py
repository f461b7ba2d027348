"""Root mean square normalisation of each row (arXiv 1910.07467), as Llama has it.

    y = weight * x / sqrt(mean(x^2) + eps)

On CUDA one kernel of PyTorch's does it forward and one backward: inside in float32, rounded once,
and for backward it keeps, beside the weight, x and one number a row. Elsewhere the formula stands
as it is; of that autograd keeps, in 16 bits, x in float32. torch.compile is given the formula
everywhere: it makes its own kernel, of this and what stands around it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.Module):
    """Divide by the root mean square (taken in float32), then scale each feature."""

    fused: bool | None = None  # whether one kernel does it; None: it does on CUDA

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        fused = x.is_cuda if self.fused is None else self.fused
        if fused and x.dtype == self.weight.dtype and not torch.compiler.is_compiling():
            return _Fused.apply(x, self.weight, self.eps)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


class _Fused(torch.autograd.Function):
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
