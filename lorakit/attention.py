"""Attention where several heads of queries share one of keys and values (GQA, arXiv 2305.13245).

    softmax(q k^T / sqrt(head_dim)) v       PyTorch's own kernels

Some kernels read keys that are shared; for the others each head is given a copy. Some read any
gradient; cuDNN's, which PyTorch takes for 16 bits on an H100, makes wrong gradients of one whose
rows lie apart (PyTorch 2.11), and says nothing. What which kernel wants, only this file knows.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def reads_shared(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel for such queries reads keys that heads share."""
    if device.type == "cuda":
        half = dtype in (torch.float16, torch.bfloat16)
        return half and torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu"


# What torch.compiler.assume_constant_result does, which would import the compiler here and now.
vars(reads_shared)["_dynamo_marked_constant"] = True


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, shared: bool | None) -> Tensor:
    """q (batch, heads, length, head_dim), k and v (batch, kv heads, ...) -> the heads' results side
    by side, (batch, length, heads * head_dim).

    Without a mask each query sees the keys up to its own, and a single one sees all. `shared` may
    say for another device what `reads_shared` says for this one.
    """
    groups = q.shape[1] // k.shape[1]
    if q.shape[2] == 1 and mask is None:
        # Heads that share keys ask them together, like tokens: no key is copied for a head.
        together = q.reshape(len(q), k.shape[1], groups, q.shape[3])
        return _beside(F.scaled_dot_product_attention(together, k, v).reshape(q.shape))
    if groups == 1 or mask is not None:  # the kernels for a mask read no shared keys
        shared = False
    elif shared is None:
        shared = reads_shared(q.device, q.dtype)
    if groups > 1 and not shared:
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    y = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=shared
    )
    return _beside(y)


def _beside(y: Tensor) -> Tensor:
    y = y.transpose(1, 2).flatten(2)
    return _DenseGradient.apply(y) if y.is_cuda and y.requires_grad else y


class _DenseGradient(torch.autograd.Function):
    """The same tensor; its gradient is passed on with rows that lie together."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g.contiguous()
