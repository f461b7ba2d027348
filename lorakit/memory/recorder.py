"""Measuring: what the steps of a real run hold, without slowing the run down.

A followed step is slower than a plain one. So a recorder follows the first two (the first makes
the optimizer's state, the second finds it there), and then one whenever all that following has
cost is still within a tenth of what the run has taken.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import numpy as np
import torch
from torch import nn

from lorakit.device import describe
from lorakit.memory.account import KINDS, Gpu, account
from lorakit.memory.allocator import allocator_like
from lorakit.memory.breakdown import PARTS, MemoryBreakdown, StepMemory
from lorakit.memory.tracker import Tracker
from lorakit.step import TrainConfig, make_optimizer, prepare, step
from lorakit.text import Stream

SLOWDOWN = 0.1  # of a run, at most


class Probe:
    """A phase hook that follows one step; with `limit`, bytes that tensors may not exceed."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, limit: int | None = None
    ):
        self.device = next(model.parameters()).device
        self._tracker = Tracker(model, optimizer, self.device.type, limit)
        self._gpu: Gpu | None = None

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        with self._tracker(name):
            if name == "step" and self.device.type == "cuda":
                self._gpu = self._allocator()
            yield

    def memory(self) -> StepMemory:
        """What the step held, once it is over."""
        record = self._tracker.record
        return account(
            np.array(record.events),
            np.array(record.sizes),
            np.array([KINDS[kind] for kind in record.kinds]),
            record.marks,
            source=f"measured on {describe(self.device)}",
            gpu=self._gpu,
        )

    def _allocator(self) -> Gpu:
        """The GPU's allocator as it is now: with all that lives there, the step's or not."""
        segments = [
            segment
            for segment in torch.cuda.memory_snapshot()
            if segment["device"] == (self.device.index or 0)
        ]
        free, total = torch.cuda.mem_get_info(self.device)
        return Gpu(
            allocator_like(segments, self._tracker.addresses()),
            known=len(self._tracker.record.events),
            context=total - free - torch.cuda.memory_reserved(self.device),
        )

    def now(self) -> MemoryBreakdown:
        """What is alive at this moment; forward's results all count as activations."""
        held = dict.fromkeys(PARTS, 0)
        record = self._tracker.record
        forward = bool(record.marks) and record.marks[-1][0] == "forward"
        unnamed = "activations" if forward else "temporaries"
        for number in self._tracker.alive():
            held[record.kinds[number] or unnamed] += record.sizes[number]
        return MemoryBreakdown(**held)


class Recorder:
    """A phase hook for a run.

    `latest` is what step `step` held, the last one that was followed, and `highest` what the one
    with the highest peak did; `first` steps were done before. When a followed step fails, `failed`
    is what was alive then, and `left()` what of it still is. `allocated` are the allocator's bytes
    at the end of each phase of any step on a GPU. With `limit`, a followed step ends with
    MemoryError as tensors exceed it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        limit: int | None = None,
        first: int = 0,
    ):
        self.model, self.optimizer, self.limit = model, optimizer, limit
        self.latest: StepMemory | None = None
        self.highest: StepMemory | None = None
        self.failed: MemoryBreakdown | None = None
        self.left: Callable[[], MemoryBreakdown] | None = None
        self.step = 0
        self.allocated: dict[str, int] = {}
        self._before, self._steps = first, 0  # of the run when this began, and since
        self._followed: list[float] = []  # seconds of each
        self._probe: Probe | None = None
        self._plain: deque[float] = deque(maxlen=20)  # seconds of steps that were not followed

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if name == "step":
            with self._step():
                yield
        elif self._probe is not None:
            with self._probe(name):
                yield
        else:
            yield
        if torch.cuda.is_available():
            self.allocated[name] = torch.cuda.memory_allocated()

    @contextmanager
    def _step(self) -> Iterator[None]:
        start = time.perf_counter()
        self._steps += 1
        if not self._due(self._steps):
            yield
            self._plain.append(time.perf_counter() - start)
            return
        self._probe = probe = Probe(self.model, self.optimizer, self.limit)
        try:
            with probe("step"):
                yield
        except BaseException:
            self.failed, self.left = probe.now(), probe.now
            raise
        finally:
            self._probe = None
        self.latest, self.step = probe.memory(), self._before + self._steps
        if self.highest is None or self.latest.peak.total > self.highest.peak.total:
            self.highest = self.latest
        self._followed.append(time.perf_counter() - start)

    def due(self) -> bool:
        """Whether it wants to see the next step."""
        return self._due(self._steps + 1)

    def passed(self, steps: int, seconds: float) -> None:
        """So many steps were done unseen, each in so many seconds."""
        self._steps += steps
        self._plain.append(seconds)

    @property
    def followed(self) -> int:
        """How many steps were."""
        return len(self._followed)

    def _due(self, number: int) -> bool:
        """Whether to follow the `number`-th step since this began."""
        if number <= 2:
            return True
        if not self._plain:
            return False  # a plain one, to compare
        plain = median(self._plain)
        cost = sum(seconds - plain for seconds in [*self._followed, self._followed[-1]])
        return cost <= SLOWDOWN * plain * number


def measure(model: nn.Module, batches: Stream, config: TrainConfig) -> StepMemory:
    """Run two real steps with learning rate 0, so that no weight changes; what the second held.

    The first makes the optimizer's state.
    """
    device, training = next(model.parameters()).device, model.training
    prepare(model, config)
    model.train()
    optimizer = make_optimizer(model, config)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    micro_batches = [
        (tokens.to(device), labels.to(device))
        for tokens, labels in map(batches.batch, range(config.accumulation))
    ]
    probe = Probe(model, optimizer)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        step(model, optimizer, micro_batches, config)
        step(model, optimizer, micro_batches, config, phase=probe)
    model.train(training)
    return probe.memory()
