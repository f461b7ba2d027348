"""Follow every tensor of a step from birth to death, by the storage it lives in.

A dispatch mode sees the result of every operation; a finalizer on its storage tells when the last
tensor over it is gone. What a storage was for is often known only later: the record holds births
and deaths, and purposes are filled in when a phase ends. Works on real tensors and on fake ones.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Record:
    """Births and deaths in order: i + 1 where storage i is born, -(i + 1) where it dies."""

    events: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # bytes, by storage
    kinds: list[str] = field(default_factory=list)  # by storage; "" is a temporary
    marks: list[tuple[str, int]] = field(default_factory=list)  # a phase, and its first event


class Tracker(TorchDispatchMode):
    """Records what lives on devices of type `device` while the mode is on.

    With `limit` it raises MemoryError as soon as they hold more bytes.

    As a phase hook of `train.step` it is on for one step. What is alive at the step's start and has
    a purpose, the model and the optimizer's state, is in the record from its beginning.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: str,
        limit: int | None = None,
    ):
        super().__init__()
        self.model, self.optimizer, self.device, self.limit = model, optimizer, device, limit
        self.record = Record()
        self._alive: dict[int, int] = {}  # by the address of a storage: its number in the record
        self._finalizers: list[weakref.finalize] = []
        self._held = 0  # bytes

    def see(self, tensor: Tensor, kind: str = "") -> None:
        """Note the tensor's storage if it is new, and what it is for if that was unknown."""
        if tensor.device.type != self.device:
            return
        storage = tensor.untyped_storage()
        number = self._alive.get(storage._cdata)
        if number is None:
            number = self._alive[storage._cdata] = len(self.record.sizes)
            self.record.sizes.append(storage.nbytes())
            self.record.kinds.append("")
            self.born(number)
            self._finalizers.append(weakref.finalize(storage, self._died, storage._cdata))
            self._held += storage.nbytes()
            if self.limit is not None and self._held > self.limit:
                raise MemoryError(
                    f"tensors hold {self._held:,} bytes: that is more than {self.limit:,}"
                )
        if kind and not self.record.kinds[number]:
            self.record.kinds[number] = kind

    def number(self, tensor: Tensor) -> int:
        """The number of a live tensor's storage in the record."""
        return self._alive[tensor.untyped_storage()._cdata]

    def born(self, number: int) -> None:
        self.record.events.append(number + 1)

    def dead(self, number: int) -> None:
        self.record.events.append(-(number + 1))

    def _died(self, address: int) -> None:
        number = self._alive.pop(address)
        self._held -= self.record.sizes[number]
        self.dead(number)

    def alive(self) -> Iterable[int]:
        """The numbers of the storages that live."""
        return self._alive.values()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, result)):  # of what is read, the batch is new
            if isinstance(leaf, Tensor):
                self.see(leaf)
        return result

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """The phase hook: "step" around all, and in it "forward", "backward" and "optimizer"."""
        if name == "step":
            with self._step():
                yield
            return
        self.record.marks.append((name, len(self.record.events)))
        yield
        if name == "forward":
            for number in self._alive.values():
                self.record.kinds[number] = self.record.kinds[number] or "activations"
        if name == "backward":
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    self.see(parameter.grad, "gradients")
        if name == "optimizer":
            for _, tensor in state(self.optimizer):
                self.see(tensor, "optimizer")

    @contextmanager
    def _step(self) -> Iterator[None]:
        for tensor in weights(self.model):
            self.see(tensor, "weights")
        for _, tensor in state(self.optimizer):
            self.see(tensor, "optimizer")
        try:
            with self:
                yield
        finally:
            self.close()

    def close(self) -> None:
        """Listen no more to the storages that live on."""
        for finalizer in self._finalizers:
            finalizer.detach()
        self._finalizers.clear()


def weights(model: nn.Module) -> Iterable[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def state(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The tensors that the optimizer remembers, under their names."""
    for of_one in optimizer.state.values():
        for name, value in of_one.items():
            if isinstance(value, Tensor):
                yield name, value
