"""What CUDA's kernels take for themselves while they run: no tensor ever shows it.

Read off the allocator's own history on an H100 (torch 2.11), for the kernels of a training step:

    attention's backward    in float32 a product of the output's size, then a float32 gradient of
                            the queries; in 16 bits the latter alone
    sum of truth values     the same as whole numbers of 8 bytes

The rest takes nothing, or some kilobytes. (Not so a sum over rows, of which no step of the lab's
has a large one: a norm's gradient is one where its weight has another precision than its input.)
"""

from collections.abc import Sequence
from typing import Any

import torch


def workspaces(func: Any, args: Sequence[Any], result: Any) -> tuple[list[int], tuple[int, ...]]:
    """Bytes of what one call takes beside its results, and the order of births and deaths.

    In the order, as in a `Record`, i + 1 is the birth of the i-th and -(i + 1) its death.
    """
    name = func.__name__
    if "attention" in name and "backward" in name:
        queries = result[0]
        batch, heads, length, width = queries.shape
        row = 4 * batch * heads * length
        if queries.dtype == torch.float32:
            gradient = row * (-(-width // 64) * 64) + row // 16
            return [row * width, row, row, gradient], (1, 2, 3, -2, -1, 4, -3, -4)
        return [row * (width + 1)], (1, -1)
    if func is torch.ops.aten.sum.default and args[0].dtype == torch.bool:
        return [8 * args[0].numel()], (1, -1)
    return [], ()
