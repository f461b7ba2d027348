"""Root mean square normalisation of each row (arXiv 1910.07467), as Llama has it.

    y = weight * x / sqrt(mean(x^2) + eps)

On CUDA one kernel of PyTorch's does it forward and one backward: inside in float32, rounded once,
and for backward it keeps, beside the weight, x and one number a row. Elsewhere the formula stands
as it is; of that autograd keeps, in 16 bits, x in float32. torch.compile is given the formula
everywhere: it makes its own kernel, of this and what stands around it.
"""

import torch
from torch import Tensor, nn


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
            from lorakit.fused_norm import FusedNorm  # makes operations of PyTorch's, for a GPU

            return FusedNorm.apply(x, self.weight, self.eps)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)
