"""A tracker that knows where it is: in which phase, and at which layer's work.

Each storage gets a name made of the place of its birth, in which one layer can be put for another.
"""

import re
import weakref
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lorakit.memory.kernels import workspaces
from lorakit.memory.tracker import Tracker
from lorakit.model import Llama

_LAYER = re.compile(r"\blayers\.(\d+)\.")


@dataclass(frozen=True)
class Name:
    """Of a storage: when and in which layer it is born, and as the how-manieth there."""

    phase: str
    layer: int | None
    which: int | str

    def moved(self, layer: int) -> "Name":
        return replace(self, layer=layer)


@dataclass(frozen=True)
class Log:
    """A step's events by phase, and each storage's bytes and purpose, by name."""

    # (layer whose work it is, whether it is a birth, of what); the phases in order
    phases: dict[str, list[tuple[int | None, bool, Name]]]
    sizes: dict[Name, int]
    kinds: dict[Name, str]


class BackwardDone(Exception):
    """Raised before the optimizer's part of a step that is not wanted whole."""


class Scribe(Tracker):
    """A tracker that knows in which phase and layer it is."""

    def __init__(self, device: str, target: str, whole: bool):
        super().__init__(nn.Module(), torch.optim.Optimizer([torch.empty(0)], {}), device)
        self.target = target
        self.phase, self.whole = "build", whole
        self.layer: int | None = None
        self.names: list[Name] = []
        self.places: list[tuple[str, int | None]] = []
        self._counts: dict[tuple[str, int | None], int] = defaultdict(int)
        self._micro_batches = 0

    def born(self, number: int) -> None:
        super().born(number)
        place = self.phase, self.layer
        self.names.append(Name(*place, self._counts[place]))
        self._counts[place] += 1
        self.places.append(place)

    def dead(self, number: int) -> None:
        super().dead(number)
        self.places.append((self.phase, self.layer))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if self.phase.startswith("optimizer") and args:
            return self._by_parameter(func, args, kwargs or {})
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if self.target == "cuda":
            self._draw_seeds(func, result)
            sizes, order = workspaces(func, args, result)
            first = len(self.record.sizes)
            self.record.sizes += sizes
            self.record.kinds += [""] * len(sizes)
            for event in order:
                if event > 0:
                    self.born(first + event - 1)
                else:
                    self.dead(first - event - 1)
        return result

    def _draw_seeds(self, func: Any, result: Any) -> None:
        """CUDA's attention in 16 bits keeps two seeds for backward; the CPU's keeps none."""
        if "attention_for_cpu" in func.__name__ and "backward" not in func.__name__:
            output, logsumexp = result
            if output.dtype != torch.float32:
                seeds = [torch.empty(2, dtype=torch.long) for _ in range(2)]
                for seed in seeds:
                    self.see(seed)
                weakref.finalize(logsumexp.untyped_storage(), seeds.clear)

    def _by_parameter(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What comes of a parameter's own tensors belongs to the parameter's layer."""
        result = func(*args, **kwargs)
        lists = isinstance(args[0], (list, tuple)) and any(isinstance(t, Tensor) for t in args[0])
        if not (lists and isinstance(result, (list, tuple))):
            pairs = [(args[0], result)]
        else:
            pairs = list(zip(args[0], result, strict=True))
        for source, made in pairs:
            if isinstance(made, Tensor) and made.untyped_storage()._cdata not in self._alive:
                self.layer = None if source is args[0] and lists else self._layer_of(source)
                self.see(made)
        if lists:
            self.layer = None  # what dies now was of all of them
        return result

    def _layer_of(self, source: Any) -> int | None:
        if not isinstance(source, Tensor):
            return self.layer
        number = self._alive.get(source.untyped_storage()._cdata)
        return self.layer if number is None else self.names[number].layer

    def name(self, tensor: Tensor, name: str, of: str) -> None:
        """Call a parameter's tensor by the parameter's name."""
        self.see(tensor)
        layer = _LAYER.search(name)
        self.names[self.number(tensor)] = Name(
            of, int(layer[1]) if layer else None, _LAYER.sub("", name)
        )

    def forget(self, tensors: Sequence[Tensor]) -> None:
        """Take these for tensors of another device."""
        for tensor in tensors:
            self.record.sizes[self.number(tensor)] = 0

    def log(self) -> Log:
        phases: dict[str, list[tuple[int | None, bool, Name]]] = defaultdict(list)
        for event, (phase, layer) in zip(self.record.events, self.places, strict=True):
            phases[phase].append((layer, event > 0, self.names[abs(event) - 1]))
        phases.pop("again", None)  # made by hand, where backward would make them
        return Log(
            phases,
            dict(zip(self.names, self.record.sizes, strict=True)),
            dict(zip(self.names, self.record.kinds, strict=True)),
        )

    def watch(self, model: Llama, optimizer: torch.optim.Optimizer) -> None:
        """Learn when a layer begins: forward by its call, backward by its output's gradient."""
        self.model, self.optimizer = model, optimizer
        self.last = len(model.model.layers) - 1
        for number, layer in enumerate(model.model.layers):
            layer.register_forward_pre_hook(self._entering(number))
            layer.register_forward_hook(self._leaving(number))

    def _entering(self, number: int):
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if not self.phase.startswith("forward"):
                return
            self.layer = number
            if number == 0 and inputs[0].requires_grad:
                inputs[0].register_hook(lambda gradient: self._go(None))

        return hook

    def _leaving(self, number: int):
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not self.phase.startswith("forward"):
                return
            if number == self.last:
                self.layer = None
            if output.requires_grad:
                output.register_hook(lambda gradient: self._go(number))

        return hook

    def _go(self, layer: int | None) -> None:
        self.layer = layer

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if name == "step":
            self.phase = "start"
            yield
            return
        if name == "optimizer" and not self.whole:
            raise BackwardDone
        if name == "forward":
            self._micro_batches += 1
        self.phase = name if name == "optimizer" else f"{name} {self._micro_batches}"
        self.layer = None
        with super().__call__(name):
            yield
        self.layer = None
        if name == "backward":
            for path, parameter in self.model.named_parameters():
                if parameter.grad is not None:
                    self.name(parameter.grad, path, "gradient")
