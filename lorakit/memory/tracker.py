"""Follow every tensor of a step from birth to death, by the storage it lives in.

A dispatch mode sees the result of every operation; a finalizer on its storage tells when the last
tensor over it is gone. What a storage was for is often known only later: the record holds births
and deaths, and purposes are filled in when a phase ends. Works on real tensors and on fake ones.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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


class _Sum(NamedTuple):
    storage: Callable[[], torch.UntypedStorage | None]
    first: int  # the number of the first summand


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
        self._backward = False
        self._views: set[tuple[int, torch.Size]] = set()  # taken in backward: of what, how shaped
        self._sum: _Sum | None = None  # the latest operation's result, not entered yet

    def see(self, tensor: Tensor, kind: str = "") -> None:
        """Note the tensor's storage if it is new, and what it is for if that was unknown."""
        if tensor.device.type != self.device:
            return
        self._settle_sum()
        storage = tensor.untyped_storage()
        number = self._alive.get(storage._cdata)
        if number is None:
            number = self._enter(storage)
        if kind and not self.record.kinds[number]:
            self.record.kinds[number] = kind

    def _enter(self, storage: torch.UntypedStorage) -> int:
        number = self._alive[storage._cdata] = len(self.record.sizes)
        self.record.sizes.append(storage.nbytes())
        self.record.kinds.append("")
        self.born(number)
        self._listen(storage)
        self._held += storage.nbytes()
        if self.limit is not None and self._held > self.limit:
            raise MemoryError(
                f"tensors hold {self._held:,} bytes: that is more than {self.limit:,}"
            )
        return number

    def number(self, tensor: Tensor) -> int:
        """The number of a live tensor's storage in the record."""
        return self._alive[tensor.untyped_storage()._cdata]

    def born(self, number: int) -> None:
        self.record.events.append(number + 1)

    def dead(self, number: int) -> None:
        self.record.events.append(-(number + 1))

    def _listen(self, storage: torch.UntypedStorage) -> None:
        # The registry of finalizers must not keep the tracker, and so the model, alive.
        finalizer = weakref.finalize(storage, _tell, weakref.ref(self), storage._cdata)
        self._finalizers.append(finalizer)

    def _died(self, address: int) -> None:
        number = self._alive.pop(address)
        if self._sum is not None and number == self._sum.first:
            storage, self._sum = self._sum.storage(), None
            if storage is not None:  # unobserved, the sum would have been made in this place
                self._alive[storage._cdata] = number
                self._listen(storage)
                return
        self._held -= self.record.sizes[number]
        self.dead(number)

    def _is_sum(self, func: Any, args: Any, result: Any) -> bool:
        """Whether `result` may be two gradients that autograd adds up; then it is `_sum`.

        Autograd adds in place if nobody looks on, and a dispatch mode looks on. Where the first
        summand is let go before anything else happens, its place is taken for the sum's. It never
        adds to a view.
        """
        if not self._backward or not isinstance(result, Tensor):
            return False
        if func is not torch.ops.aten.add.Tensor:
            known = self._alive.get(result.untyped_storage()._cdata)
            if known is not None and not func._schema.is_mutable:
                self._views.add((known, result.shape))
            return False
        first, second = args[:2]
        if not isinstance(second, Tensor) or first.shape != second.shape:
            return False
        storage = result.untyped_storage()
        number = self._alive.get(first.untyped_storage()._cdata)
        if number is None or storage._cdata in self._alive or (number, first.shape) in self._views:
            return False
        self._settle_sum()
        self._sum = _Sum(weakref.ref(storage), number)
        return True

    def _settle_sum(self) -> None:
        """The sum has a place of its own: its first summand lives on."""
        if self._sum is not None:
            storage, self._sum = self._sum.storage(), None
            if storage is not None:
                self._enter(storage)

    def alive(self) -> Iterable[int]:
        """The numbers of the storages that live."""
        return list(self._alive.values())

    def addresses(self) -> dict[int, int]:
        """The numbers of the model's and the optimizer's storages, by where their bytes are."""
        tensors = [*weights(self.model), *(tensor for _, tensor in state(self.optimizer))]
        here = [tensor for tensor in tensors if tensor.device.type == self.device]
        return {t.untyped_storage().data_ptr(): self.number(t) for t in here}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self._is_sum(func, args, result):
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
        self._backward = name == "backward"
        yield
        self._settle_sum()
        self._backward = False
        if name == "forward":
            for number in self.alive():
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
        with self:
            yield
        self.close()  # after an error it goes on listening: what of all that comes free?

    def close(self) -> None:
        """Listen no more to the storages that live on."""
        for finalizer in self._finalizers:
            finalizer.detach()
        self._finalizers.clear()


def _tell(tracker: Callable[[], Tracker | None], address: int) -> None:
    if (listening := tracker()) is not None:
        listening._died(address)


def weights(model: nn.Module) -> Iterable[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def state(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The tensors that the optimizer remembers, under their names."""
    for of_one in optimizer.state.values():
        for name, value in of_one.items():
            if isinstance(value, Tensor):
                yield name, value
