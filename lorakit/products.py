"""The products of layers that are packed in one matrix (packed.py), forward and backward.

    forward     h = x A^T,  y = h (s B)^T,    then x W^T added in place; or, where the outputs are
                [x, h] [W, s B]^T             much wider than the input, all in one product
    backward    g [W, s B] = [g W, g s B]     then (g s B) A added in place
                dB = s g^T h,  dA = (g s B)^T x    meanwhile, on a stream of their own

x (n, in) are the layers' inputs, a token a row; y (n, out) their outputs, side by side, and g the
gradients of these; s is LoRA's scale. To torch.compile forward and backward are one operation each,
which it does not look into. Knows no layers and no model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

WIDE = 3  # outputs so many times as wide as the input: one product with a longer inner dimension


@torch.library.custom_op("lorakit::packed", mutates_args=())
def packed_product(x: Tensor, P: Tensor, out: int) -> tuple[Tensor, Tensor]:
    """x (n, in) -> y (n, out), and for backward h (n, rank) or, where it is wide, [x, h]."""
    width = x.shape[1]
    if out < WIDE * width:
        h = x @ P[out:, :width].T
        y = h @ P[:out, width:].T
        return y.addmm_(x, P[:out, :width].T), h
    longer = x.new_empty(len(x), P.shape[1])
    longer[:, :width] = x
    torch.mm(x, P[out:, :width].T, out=longer[:, width:])
    return longer @ P[:out].T, longer


@packed_product.register_fake
def _(x, P, out):
    y = x.new_empty(len(x), out)
    if out < WIDE * x.shape[1]:
        return y, x.new_empty(len(x), P.shape[1] - x.shape[1])
    return y, x.new_empty(len(x), P.shape[1])


@torch.library.custom_op("lorakit::packed_backward", mutates_args=())
def packed_backward(
    grads: Sequence[Tensor], x: Tensor, h: Tensor, P: Tensor, shapes: Sequence[int], scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients (n, out) of the layers side by side, x (n, in), h (n, rank) -> dx (n, in), of rows
    apart, dA (rank, in), and dB (out, widest rank), where each layer's has its rank of columns.

    `shapes` are rank and outputs of each layer, one after the other. `rank` is their sum and what
    P adds to it, so as to be a multiple of eight. dA and dB leave most of a GPU idle, and nobody
    waits for them: they are computed beside dx.
    """
    g = grads[0] if len(grads) == 1 else torch.cat(tuple(grads), 1)
    out, width, rank, ranks = g.shape[1], x.shape[1], h.shape[1], shapes[::2]
    wide = torch.promote_types(g.dtype, torch.float32)
    dx, dA = g.new_empty(len(g), P.shape[1]), x.new_empty(rank, width, dtype=wide)
    dB, whole = (g.new_empty(out, size, dtype=wide) for size in (max(ranks), rank))
    with _aside(g.device) as beside:
        with beside():
            if rank == max(ranks):
                _wide_product(g.T, h, scale, dB)
            else:
                _wide_product(g.T, h, scale, whole)
                _blocks(whole, shapes, dB)
        torch.mm(g, P[:out], out=dx)
        gB = dx[:, width:]
        with beside():
            _wide_product(gB.T, x, 1.0, dA)
        dx[:, :width].addmm_(gB, P[out:, :width])
    return dx[:, :width], dA, dB


@packed_backward.register_fake
def _(grads, x, h, P, shapes, scale):
    g = grads[0]
    dtype, out = torch.promote_types(g.dtype, torch.float32), sum(shapes[1::2])
    return (
        g.new_empty(len(g), P.shape[1])[:, : x.shape[1]],
        x.new_empty(h.shape[1], x.shape[1], dtype=dtype),
        g.new_empty(out, max(shapes[::2]), dtype=dtype),
    )


@contextmanager
def _aside(device: torch.device) -> Iterator[Callable[[], AbstractContextManager]]:
    """Yields `beside()`: what is launched within that waits for all before it, and what comes after
    does not wait for it. At the end of this block all is waited for, also after an error: until
    then what is read and written beside must be kept.
    """
    if device.type != "cuda":
        yield nullcontext
        return
    here = torch.cuda.current_stream(device)
    side = _side(here)

    @contextmanager
    def beside() -> Iterator[None]:
        side.wait_stream(here)
        with torch.cuda.stream(side):
            yield

    try:
        yield beside
    finally:
        here.wait_stream(side)


@cache
def _side(stream: torch.cuda.Stream) -> torch.cuda.Stream:
    """One for each: what another thread does must not get into a stream's recording."""
    return torch.cuda.Stream(stream.device)


def _wide_product(left: Tensor, right: Tensor, scale: float, out: Tensor) -> None:
    """out = scale * left @ right, of half precision in float32, in which it is summed anyway."""
    if left.dtype == out.dtype:
        torch.addmm(out, left, right, beta=0, alpha=scale, out=out)
    elif left.is_cuda:
        made = torch.ops.aten.addmm.dtype_out
        made(out, left, right, out.dtype, beta=0, alpha=scale, out=out)
    else:
        out.copy_(left @ right).mul_(scale)


def _blocks(whole: Tensor, shapes: Sequence[int], dB: Tensor) -> None:
    """Into dB of `whole` (out, rank): there a layer's outputs meet the h of all, here its own."""
    found, row, top = [], 0, 0
    for rank, height in zip(shapes[::2], shapes[1::2], strict=True):
        found.append(whole[top : top + height, row : row + rank])
        row, top = row + rank, top + height
    if len({block.shape[1] for block in found}) == 1:
        torch.cat(found, out=dB)
        return
    for block, own in zip(found, dB.split([len(block) for block in found]), strict=True):
        own[:, : block.shape[1]] = block


class PackedProducts(torch.autograd.Function):
    """x (n, in), P, its layers' rank and outputs, scale; A and B of each -> (n, out) each.

    A and B are in P already: they are given for the sake of their gradients.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, P: Tensor, shapes: list[int], scale: float, *_: Tensor):
        out = sum(shapes[1::2])
        y, h = packed_product(x, P, out)
        ctx.shapes, ctx.scale, ctx.width = shapes, scale, x.shape[1]
        ctx.wide = out >= WIDE * ctx.width
        ctx.save_for_backward(h, P, *([] if ctx.wide else [x]))
        return y.split(shapes[1::2], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor):
        h, P, *x = ctx.saved_tensors
        if ctx.wide:
            h, x = h[:, ctx.width :], [h[:, : ctx.width]]
            # A compiler makes one large matrix where the gradients come from; of a small one it
            # would make a slow kernel.
            grads = (torch.cat(grads, 1),)
        else:
            grads = tuple(grad.contiguous() for grad in grads)
        dx, dA, dB = packed_backward(grads, *x, h, P, ctx.shapes, ctx.scale)
        found, row, top = [], 0, 0
        for rank, height in zip(ctx.shapes[::2], ctx.shapes[1::2], strict=True):
            found += [dA[row : row + rank], dB[top : top + height, :rank]]
            row, top = row + rank, top + height
        return dx, None, None, None, *found
