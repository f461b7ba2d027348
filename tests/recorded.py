"""A stand-in for a CUDA graph on any machine: operations on tensors, recorded once and replayed.

Like a graph it keeps no Python: a number that was made without a tensor stays what it was. Like a
graph it refuses what would have to wait for a GPU's number.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lorakit.capture import warm_up


class Recorded:
    """What `lorakit.capture.Captured` does, with PyTorch's operations in the place of kernels."""

    def __init__(
        self, function: Callable[..., Tensor], inputs: Sequence[Tensor], *, state: Sequence[Tensor]
    ):
        self._inputs = [value.clone() for value in inputs]
        warm_up(lambda: function(*self._inputs), state)
        self._tape = _Tape()

        def record() -> None:
            with self._tape:
                self._output = function(*self._inputs)

        warm_up(record, state, times=1)  # a GPU records without computing

    def __call__(self, *values: Tensor) -> Tensor:
        for held, value in zip(self._inputs, values, strict=True):
            assert held.shape == value.shape, "a graph's shapes are fixed"
            held.copy_(value)
        self._tape.replay()
        return self._output.clone()


class _Tape(TorchDispatchMode):
    """Every operation, with the tensors that it read and wrote: they are the graph's addresses."""

    def __init__(self):
        super().__init__()
        self._operations: list = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        assert func is not torch.ops.aten._local_scalar_dense.default, "a graph reads no number"
        made = func(*args, **kwargs)
        self._operations.append((func, args, kwargs, made))
        return made

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, made in self._operations:
            read = {t.untyped_storage()._cdata for t in _tensors((args, kwargs))}
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(made), _tensors(again), strict=True):
                if old.untyped_storage()._cdata not in read:  # else a view, or changed in place
                    old.copy_(new)


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
