"""A run's steps by recordings, a block at a time: nothing waits for the GPU but the end of a block.

    batches are padded to one of few lengths, pinned and copied while the GPU works
    losses come back with a block's last step

The layers are packed (packed.py), and compiled where the rest of the run is long enough to pay for
it, by an estimate that is told.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorakit.ahead import ahead
from lorakit.fast import forget
from lorakit.graphed import MOST, Graphs, Unrecorded
from lorakit.step import TrainConfig, response_loss
from lorakit.text import IGNORE, Stream

SECONDS = 0.2  # of a block: so long a stop waits, and so late a loss is told
# Of a step of SmolLM2's, and seconds for each shape: on an H100, see data/results/step-h100.json.
# Of smaller and larger models' steps it saves less, down to an eighth of Llama 1B's in full.
COMPILING_SAVES, COMPILING_TAKES = 0.35, 12.0
LENGTHS = 64  # that a layer is compiled for; PyTorch compiles code eight times, and then no more


class Done(NamedTuple):
    """What one step did, as a `StepRecord` tells it."""

    loss: float
    grad_norm: float
    tokens: int
    seconds: float


MicroBatches = list[tuple[Tensor, Tensor]]


def bucket(length: int, limit: int) -> int:
    """The length that rows of `length` tokens are padded to: one of eight in each doubling."""
    grain = max(16, 1 << max(length.bit_length() - 4, 0))
    return max(length, min(-(-length // grain) * grain, limit))


class Blocks:
    """The steps from `position` on, over recordings."""

    def __init__(
        self,
        model: nn.Module,
        graphs: Graphs,
        batches: Stream,
        config: TrainConfig,
        notes: list[str],
    ):
        self.model, self.graphs, self.batches, self.config = model, graphs, batches, config
        self.notes = notes
        self._seconds = SECONDS / 4  # of a step, as far as is known
        self._next: int | None = None  # the step that is prepared
        self._prepared: Iterator[tuple[MicroBatches, int]] = iter(())
        self._decided = config.compile is False
        self._compiled: list[tuple[nn.Module, Any]] = []  # a layer, and how it was called
        self._limit = ExitStack()

    def more(
        self, position: int, stop: Callable[[], bool], tell: Callable[[Done], None]
    ) -> str | None:
        """Do some steps after `position` of them, and `tell` each, also when an error ends them.

        None is done if `stop()` is true at once. Returns why there will be no more, if so.
        """
        start, tokens, known = time.perf_counter(), [], self.graphs.shapes
        refused: str | None = None
        try:
            for number in range(position, min(position + self._size(), self.config.steps)):
                if stop():
                    break
                micro_batches, size = self._batch(number)
                tokens.append(size)
                self.graphs.step(micro_batches, self.config.learning_rate(number + 1))
        except Unrecorded as error:
            refused = str(error)
            self.graphs.forget()
            torch.cuda.empty_cache()
            self.notes.append(f"from here on steps are done kernel by kernel: {refused}")
        finally:
            found = self.graphs.read() if tokens else []
            seconds = (time.perf_counter() - start) / max(len(found), 1)
            for (loss, norm), size in zip(found, tokens, strict=False):
                tell(Done(loss, norm, size, seconds))
        if found and refused is None and self.graphs.shapes == known:
            self._seconds = seconds
            self._decide(self.config.steps - position - len(found))
        return refused

    def _size(self) -> int:
        return min(max(int(SECONDS / self._seconds), 1), MOST)

    def _batch(self, number: int) -> tuple[MicroBatches, int]:
        """The micro-batches of step `number`, from 0, and their tokens; others are on their way."""
        if number != self._next:
            self.close()
            self._prepared = ahead(self._prepare, count(number))
        self._next = number + 1
        return next(self._prepared)

    def _prepare(self, number: int) -> tuple[MicroBatches, int]:
        size = self.config.accumulation
        found = [self.batches.batch(place) for place in range(number * size, (number + 1) * size)]
        tokens = sum(rows.numel() for rows, _ in found)
        return [self._padded(tokens, labels) for tokens, labels in found], tokens

    def _padded(self, tokens: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        length = tokens.shape[1]
        limit = getattr(getattr(self.model, "config", None), "max_position_embeddings", length)
        more = (0, bucket(length, limit) - length)
        pair = F.pad(tokens, more), F.pad(labels, more, value=IGNORE)
        return pair if tokens.is_cuda else (pair[0].pin_memory(), pair[1].pin_memory())

    def _decide(self, left: int) -> None:
        """Compile the layers from here on, if what that saves is more than it takes."""
        if self._decided:
            return
        self._decided = True
        saves, takes = left * self._seconds * COMPILING_SAVES, COMPILING_TAKES * self.graphs.shapes
        told = f"about {takes:.0f} s, and save about {saves:.0f} s of the {left} steps left"
        if not (self.config.compile or saves > takes):
            self.notes.append(f"not compiled: that would take {told}")
            return
        layers = max(
            (m for m in self.model.modules() if isinstance(m, nn.ModuleList)),
            key=len,
            default=nn.ModuleList([self.model]),
        )
        self._limit.enter_context(torch._dynamo.config.patch(recompile_limit=LENGTHS))
        self._compiled = [(layer, layer._compiled_call_impl) for layer in layers]
        for layer in layers:
            layer.compile(dynamic=False)
        self.graphs.loss = torch.compile(response_loss, dynamic=False)
        self.graphs.forget()
        self.notes.append(f"compiled: estimated to take {told}")

    def close(self) -> None:
        """End the thread that prepares batches."""
        getattr(self._prepared, "close", lambda: None)()

    def release(self) -> None:
        """Let the layers be computed as before."""
        self.close()
        self._limit.close()
        for layer, called in self._compiled:
            layer._compiled_call_impl = called


@contextmanager
def recorded(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Stream,
    config: TrainConfig,
    notes: list[str],
) -> Iterator[Blocks]:
    """Within the block steps may be done by recordings; afterwards all is as if there were none.

    `notes` take what is to be said about it.
    """
    from lorakit.packed import packed  # makes operations of PyTorch's when it is imported

    torch.cuda.empty_cache()  # recordings take memory of their own, beside what steps left behind
    mode = model.training
    with ExitStack() as stack:
        stack.enter_context(packed(model))
        graphs = Graphs(model, optimizer, config)
        stack.enter_context(graphs.taking_over())
        stack.callback(graphs.forget)  # first of all: weights are copied when they are unpacked
        blocks = Blocks(model, graphs, batches, config, notes)
        stack.callback(model.train, mode)
        stack.callback(forget, model)
        stack.callback(blocks.release)
        model.train()
        yield blocks
