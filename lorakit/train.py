"""One training loop for every method: what requires a gradient is what trains.

    forward -> loss on the response tokens -> backward      `accumulation` times
    clip the gradient -> AdamW -> gradients back to None

Full fine-tuning and LoRA run through the same lines. A `phase` hook lets others look at a step (its
memory, its time) while this file knows nothing of them, of widgets or of files.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorakit.history import History, StepRecord
from lorakit.text import IGNORE, Stream

Phase = Callable[[str], AbstractContextManager]  # "forward", "backward" and "optimizer", in turn


def no_phase(name: str) -> AbstractContextManager:
    return nullcontext()


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How to train. The learning rate warms up in a line, then falls along a cosine."""

    steps: int = 60
    lr: float = 1e-3
    warmup_steps: int = 5
    accumulation: int = 1  # micro-batches a step
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    autocast: bool = False  # forward in bfloat16 over float32 weights
    seed: int = 0  # of dropout

    def __post_init__(self):
        for name, least in {"steps": 1, "accumulation": 1, "warmup_steps": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("lr", "weight_decay"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} must be a number from 0 up, got {getattr(self, name)}")
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0, got {self.max_grad_norm}")

    def learning_rate(self, step: int) -> float:
        """The rate of `step`, counted from 1; the last step's is small, not zero."""
        if step <= self.warmup_steps:
            return self.lr * step / self.warmup_steps
        done = (step - self.warmup_steps) / (self.steps + 1 - self.warmup_steps)
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))


class Diverged(ArithmeticError):
    """The loss or the gradient is no longer finite; the weights are those before this step."""


class _Stopped(Exception):
    pass


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (arXiv 1711.05101) over what requires a gradient. Raises ValueError if nothing does."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("nothing to train: every parameter is frozen, unfreeze(model) or inject")
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)


def response_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Summed cross-entropy of each labelled token given the tokens before it.

    logits (batch, length, vocab), labels (batch, length): position i predicts label i + 1.
    """
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(),
        labels[:, 1:].flatten(),
        ignore_index=IGNORE,
        reduction="sum",
    )


def step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Iterable[tuple[Tensor, Tensor]],
    config: TrainConfig,
    *,
    phase: Phase = no_phase,
    check: Callable[[Tensor, Tensor], None] = lambda loss, grad_norm: None,
) -> tuple[Tensor, Tensor]:
    """One update from (tokens, labels) pairs; returns the loss and the gradient's norm.

    The loss is the mean over all response tokens of the step, so that several micro-batches give
    the gradient of one large batch. `check` may raise before any weight has changed.
    """
    micro_batches = list(micro_batches)
    parameters = optimizer.param_groups[0]["params"]
    count = torch.stack([(labels[:, 1:] != IGNORE).sum() for _, labels in micro_batches]).sum()
    losses = []
    for tokens, labels in micro_batches:
        device = tokens.device.type
        with phase("forward"), torch.autocast(device, torch.bfloat16, enabled=config.autocast):
            loss = response_loss(model(tokens), labels) / count
        with phase("backward"):
            loss.backward()
        losses.append(loss.detach())
    loss = torch.stack(losses).sum()
    with phase("optimizer"):
        grad_norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        check(loss, grad_norm)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss, grad_norm


class Training:
    """A run in progress: a model, its optimizer, and a position in a stream of batches.

    It can be stopped between any two micro-batches and taken up again; a step that was not finished
    leaves no trace. Raises ValueError if every parameter is frozen.
    """

    def __init__(self, model: nn.Module, batches: Stream, config: TrainConfig):
        self.model, self.batches, self.config = model, batches, config
        self.optimizer = make_optimizer(model, config)
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
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
            for tokens, labels in map(self.batches.batch, places)
        ]

        @contextmanager
        def stoppable(name: str) -> Iterator[None]:
            if name == "forward" and stop():
                raise _Stopped
            with phase(name):
                yield

        def check(loss: Tensor, grad_norm: Tensor) -> None:
            self._check_finite(number, lr, loss.item(), grad_norm.item())
            if number <= 2:
                self._listen(number)

        mode = self.model.training
        self.model.train()
        try:
            # Dropout depends on seed and step alone, so that a resumed run draws the same.
            with torch.random.fork_rng([device] if device.type == "cuda" else []):
                torch.manual_seed(self.config.seed * 1_000_003 + number)
                loss, grad_norm = step(
                    self.model,
                    self.optimizer,
                    micro_batches,
                    self.config,
                    phase=stoppable,
                    check=check,
                )
        except _Stopped:
            return None
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            self.model.train(mode)
        record = StepRecord(
            step=number,
            loss=loss.item(),
            lr=lr,
            grad_norm=grad_norm.item(),
            tokens=sum(tokens.numel() for tokens, _ in micro_batches),
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

        Raises Diverged, naming step and learning rate, when the loss is no longer finite; the
        history keeps every step before.
        """
        while self.position < self.config.steps:
            record = self.step(stop, phase)
            if record is None:
                break
            on_step(record)
        return self.history

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


def train(model: nn.Module, batches: Stream, config: TrainConfig, **hooks) -> History:
    """Train `model` on `batches`; `hooks` are those of `Training.run`."""
    return Training(model, batches, config).run(**hooks)
