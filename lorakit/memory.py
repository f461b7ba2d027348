"""What a training step holds in memory, in bytes: measured as it runs, or estimated by a dry run.

    weights        every parameter and buffer, tied ones once
    gradients      held between backward and the optimizer
    optimizer      AdamW's two moments of whatever trains
    activations    what forward keeps for backward, weights left out; under autocast the weights'
                   rounded copies are among them

Both run the step of `train.py`; the estimate runs it on tensors that have shapes and no memory.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from lorakit.lora import LoRAConfig, inject
from lorakit.model import Llama, ModelConfig
from lorakit.text import Batches
from lorakit.train import TrainConfig, make_optimizer, step


@dataclass(frozen=True)
class MemoryBreakdown:
    """Bytes held by tensors, by purpose: of each part, the most that the step held."""

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        """Held at once, at the end of forward or of backward, whichever is more.

        Activations go as gradients come. What lives only within a phase comes on top.
        """
        return self.weights + self.optimizer + max(self.gradients, self.activations)


def _storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes by storage: tensors that share one are counted once."""
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {storage._cdata: storage.nbytes() for storage in storages}


class Recorder:
    """A phase hook for `train.step`: after a step, `latest` says what that step held."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer):
        self.model, self.optimizer = model, optimizer
        self.latest = MemoryBreakdown()
        self._activations = 0
        self._gradients = 0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if name == "forward":
            with self._forward():
                yield
            return
        yield
        if name == "backward":
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            self._gradients = sum(_storages(gradients).values())
        if name == "optimizer":
            state = [
                value
                for of_one in self.optimizer.state.values()
                for value in of_one.values()
                if isinstance(value, Tensor)
            ]
            self.latest = MemoryBreakdown(
                weights=sum(_weights(self.model).values()),
                gradients=self._gradients,
                optimizer=sum(_storages(state).values()),
                activations=self._activations,
            )
            self._activations = 0

    @contextmanager
    def _forward(self) -> Iterator[None]:
        weights, kept = _weights(self.model), {}

        def pack(tensor: Tensor) -> Tensor:
            kept.update(_storages([tensor]))
            return tensor

        with saved_tensors_hooks(pack, lambda tensor: tensor):
            yield
        held = sum(size for storage, size in kept.items() if storage not in weights)
        self._activations = max(self._activations, held)  # micro-batches come one after another


def _weights(model: nn.Module) -> dict[int, int]:
    return _storages([*model.parameters(), *model.buffers()])


def measure(model: nn.Module, batches: Batches, config: TrainConfig) -> MemoryBreakdown:
    """Run one real step with learning rate 0, so that no weight changes, and say what it held."""
    device = next(model.parameters()).device
    optimizer = make_optimizer(model, config)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    recorder = Recorder(model, optimizer)
    micro_batches = [
        (tokens.to(device), labels.to(device))
        for tokens, labels in map(batches.batch, range(config.accumulation))
    ]
    step(model, optimizer, micro_batches, config, phase=recorder)
    return recorder.latest


@lru_cache(maxsize=512)
def estimate(
    model: ModelConfig,
    lora: LoRAConfig | None,
    *,
    batch_size: int,
    length: int,
    config: TrainConfig | None = None,
) -> MemoryBreakdown:
    """The same step on tensors without memory: `lora` None is full fine-tuning.

    In float32, for the CPU's kernels: a GPU keeps slightly other tensors for its attention.
    """
    config = config or TrainConfig()
    with FakeTensorMode():
        net = Llama(model)
        if lora is not None:
            inject(net, lora)
        optimizer = make_optimizer(net, config)
        recorder = Recorder(net, optimizer)
        tokens, labels = (torch.zeros(batch_size, length, dtype=torch.long) for _ in range(2))
        step(net, optimizer, [(tokens, labels)] * config.accumulation, config, phase=recorder)
    return recorder.latest


def quick_estimate(
    model: ModelConfig, lora: LoRAConfig | None, *, batch_size: int, length: int
) -> MemoryBreakdown:
    """`estimate`, fast enough for a slider: from dry runs of one and two layers.

    Every part is affine in the number of layers, in the rank and in the batch (from 2 up; a batch
    of 1 keeps a few bytes more), so two points of each tell them all.
    """

    def parts(layers: int, batch: int, rank: int) -> tuple[int, ...]:
        held = estimate(
            replace(model, num_hidden_layers=layers),
            lora and replace(lora, rank=rank),
            batch_size=batch,
            length=length,
        )
        return astuple(held)

    def by_rank(layers: int, batch: int) -> tuple[int, ...]:
        if lora is None:
            return parts(layers, batch, 1)
        return _line(parts(layers, batch, 1), parts(layers, batch, 2), lora.rank - 1)

    def by_batch(layers: int) -> tuple[int, ...]:
        return _line(by_rank(layers, 2), by_rank(layers, 3), batch_size - 2)

    held = _line(by_batch(1), by_batch(2), model.num_hidden_layers - 1)
    return MemoryBreakdown(*held)


def _line(first: tuple[int, ...], second: tuple[int, ...], steps: int) -> tuple[int, ...]:
    """The value `steps` after `first`, where `second` is one step after it."""
    return tuple(a + (b - a) * steps for a, b in zip(first, second, strict=True))
