"""One training loop for every method: steps over a stream of batches, a history, a stop.

Full fine-tuning and LoRA run through the same lines. This file knows nothing of memory, of widgets
or of files.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from lorakit import parallel
from lorakit.blocks import Blocks, Done, recorded
from lorakit.fast import forget
from lorakit.graphed import obstacle_to_recording
from lorakit.heap import kept_heap
from lorakit.history import History, StepRecord
from lorakit.step import Phase, TrainConfig, make_optimizer, no_phase, prepare, step
from lorakit.text import Stream

WORTH = 8  # steps left, from which on a recording pays


class Diverged(ArithmeticError):
    """The loss or the gradient is no longer finite; the weights are those before this step."""


class _Stopped(Exception):
    pass


class Training:
    """A run in progress: a model, its optimizer, and a position in a stream of batches.

    It can be stopped between any two micro-batches and taken up again; a step that was not finished
    leaves no trace. Raises ValueError if every parameter is frozen.
    """

    def __init__(self, model: nn.Module, batches: Stream, config: TrainConfig):
        self.model, self.batches, self.config = model, batches, config
        self.optimizer = make_optimizer(model, config)
        self.replica = parallel.replica(model)
        prepare(model, config)
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.obstacle = obstacle_to_recording(model, config)
        if parallel.size() > 1:
            self.obstacle = "several processes do this run"
        self.history = History()
        self.silent = set(self.parameters)  # those that have had no gradient but zero

    @property
    def position(self) -> int:
        """Steps done."""
        return len(self.history.steps)

    def step(
        self, stop: Callable[[], bool] = lambda: False, phase: Phase = no_phase
    ) -> StepRecord | None:
        """Do the next step; None, and nothing changed, if `stop()` came true on the way."""
        start, number = time.perf_counter(), self.position + 1
        lr = self.config.learning_rate(number)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        device = next(iter(self.parameters.values())).device
        first = self.position * self.config.accumulation
        places = range(first, first + self.config.accumulation)
        micro_batches = [
            (tokens.to(device), labels.to(device))
            for tokens, labels in map(parallel.share, map(self.batches.batch, places))
        ]

        @contextmanager
        def stoppable(name: str) -> Iterator[None]:
            if name == "forward" and parallel.anywhere(stop):
                raise _Stopped
            with phase(name):
                yield

        def check(loss: Tensor, grad_norm: Tensor) -> None:
            values = loss.item(), grad_norm.item()
            parallel.check_whole()
            self._check_finite(number, lr, *values)
            if number <= 2:
                self._listen(number)

        mode = self.model.training
        self.model.train()
        try:
            # Dropout depends on seed, step and rank alone: a resumed run draws the same.
            with (
                parallel.noticing(f"in step {number}"),
                torch.random.fork_rng([device] if device.type == "cuda" else []),
            ):
                own = parallel.rank() * 982_451_653  # of a seed, a CPU reads 32 bits alone
                torch.manual_seed(self.config.seed * 1_000_003 + number + own)
                loss, grad_norm = step(
                    self.replica,
                    self.optimizer,
                    micro_batches,
                    self.config,
                    phase=stoppable,
                    check=check,
                    average=parallel.average,
                )
        except _Stopped:
            return None
        except BaseException:
            forget(self.model)
            raise
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            self.model.train(mode)
        record = StepRecord(
            step=number,
            loss=loss.item(),
            lr=lr,
            grad_norm=grad_norm.item(),
            tokens=sum(tokens.numel() for tokens, _ in micro_batches) * parallel.size(),
            seconds=time.perf_counter() - start,
        )
        self.history.steps.append(record)
        return record

    def run(
        self,
        *,
        stop: Callable[[], bool] = lambda: False,
        on_step: Callable[[StepRecord], None] = lambda record: None,
        phase: Phase = no_phase,
    ) -> History:
        """Train to the last step, or until `stop()` is true; `on_step` hears of each step.

        On a GPU it hears of several together, at the end of their block: the weights are then those
        after the last of them. Such steps are the others' up to rounding, and which steps they are
        depends on the clock; `capture=False` in the config gives the same bits each time.

        Raises Diverged, naming step and learning rate, when the loss is no longer finite; the
        history keeps every step before.
        """
        with ExitStack() as stack:
            if all(p.is_cpu for p in self.parameters.values()):
                stack.enter_context(kept_heap())
            blocks: Blocks | None = None
            while self.position < self.config.steps:
                if self._recordable(phase, blocks is not None):
                    if blocks is None:
                        parts = self.model, self.optimizer, self.batches, self.config
                        blocks = stack.enter_context(recorded(*parts, self.history.notes))
                    if not self._block(blocks, stop, on_step, phase):
                        break
                else:
                    record = self.step(stop, phase)
                    if record is None:
                        break
                    on_step(record)
        return self.history

    def _recordable(self, phase: Phase, begun: bool) -> bool:
        """Whether the next steps are to be done by recordings, unseen by `phase`.

        The first steps are not: they make the optimizer's state, and are listened to. A phase hook
        may say when it wants to see a step again (`due`), and is told of others; else it sees each.
        """
        if self.obstacle is not None or self.position < 2 or torch.is_autocast_enabled("cuda"):
            return False
        if not begun and self.config.steps - self.position < WORTH:
            return False
        return phase is no_phase or not getattr(phase, "due", lambda: True)()

    def _block(
        self,
        blocks: Blocks,
        stop: Callable[[], bool],
        on_step: Callable[[StepRecord], None],
        phase: Phase,
    ) -> bool:
        """Do a block of steps; whether any was done, or is to be done in another way."""
        records: list[StepRecord] = []

        def tell(done: Done) -> None:
            number = self.position + 1
            lr = self.config.learning_rate(number)
            self._check_finite(number, lr, done.loss, done.grad_norm)
            records.append(StepRecord(step=number, lr=lr, **done._asdict()))
            self.history.steps.append(records[-1])

        try:
            refused = blocks.more(self.position, stop, tell)
        finally:  # what was done is told, whatever ended it
            if records and phase is not no_phase:
                phase.passed(len(records), records[0].seconds)  # type: ignore[attr-defined]
            for record in records:
                on_step(record)
        self.obstacle = refused
        return bool(records) or refused is not None

    def _check_finite(self, number: int, lr: float, loss: float, grad_norm: float) -> None:
        for name, value in {"loss": loss, "gradient norm": grad_norm}.items():
            if not math.isfinite(value):
                raise Diverged(
                    f"the {name} is {value} at step {number} with learning rate {lr:.3g}: "
                    "train again with a smaller lr, or a longer warm-up"
                )

    def _listen(self, number: int) -> None:
        """Note which parameters have had a gradient; after the second step, say which have not."""
        for name in sorted(self.silent):
            gradient = self.parameters[name].grad
            if gradient is not None and gradient.any():
                self.silent.discard(name)
        if number == 2 and self.silent:
            self.history.notes.append(
                f"{len(self.silent)} of {len(self.parameters)} trainable tensors have had no "
                f"gradient but zero in two steps (first: {min(self.silent)}) and so never move: "
                "the loss does not depend on them, or a factor beside them is zero, as B is to A "
                "and A to B when both start at zero"
            )


@parallel.group()
def train(model: nn.Module, batches: Stream, config: TrainConfig, **hooks) -> History:
    """Train `model` on `batches`; `hooks` are those of `Training.run`."""
    return Training(model, batches, config).run(**hooks)
