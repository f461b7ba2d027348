"""How many bytes tensors held at most within a block: exact, from their storages' lives."""

import weakref

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages of `model` and of whatever is made inside the block, estimates apart."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self._live: dict[int, int] = {}
        self.now = self.peak = 0
        for tensor in [*model.parameters(), *model.buffers()]:
            self._see(tensor)
        self.before = self.now

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeTensor):
                self._see(leaf)
        return made

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self.now -= self._live.pop(key)
