"""One training step, the same for every method: what requires a gradient is what trains.

    forward -> loss on the response tokens -> backward      `accumulation` times
    clip the gradient -> optimizer -> gradients back to None

A `phase` hook lets others look at a step (its memory, its time) while this file knows nothing of
them, of runs, of widgets or of files.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorakit.fast import set_fast
from lorakit.text import IGNORE

# "step" around "forward" and "backward", once a micro-batch, and "optimizer".
Phase = Callable[[str], AbstractContextManager]


OPTIMIZERS = ("adamw", "sgd")
IMPLEMENTATIONS = ("auto", "plain", "foreach", "fused")


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
    gradient_checkpointing: bool = False  # of each layer keep the input, and compute the rest again
    optimizer: str = "adamw"  # or "sgd"
    momentum: float = 0.0  # of SGD
    # How the optimizer goes over the tensors: one by one ("plain"), each operation over all of
    # them ("foreach"), or all of it in one kernel ("fused"); "auto" is what PyTorch does.
    implementation: str = "auto"
    fast: bool = True  # adapters by fast.py where they can be, else by lora.py
    capture: bool = True  # on a GPU, steps as CUDA graphs where they can be
    compile: bool | None = None  # those steps' layers; None, if the run is long enough to pay
    seed: int = 0  # of dropout

    def __post_init__(self):
        for name, least in {"steps": 1, "accumulation": 1, "warmup_steps": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name, options in {"optimizer": OPTIMIZERS, "implementation": IMPLEMENTATIONS}.items():
            if getattr(self, name) not in options:
                raise ValueError(
                    f"{name} must be one of {', '.join(options)}, got {getattr(self, name)!r}"
                )
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum={self.momentum} is of sgd: adamw has moments of its own")
        for name in ("lr", "weight_decay", "momentum"):
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


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101) or SGD over what requires a gradient.

    Raises ValueError if nothing does.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("nothing to train: every parameter is frozen, unfreeze(model) or inject")
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.implementation != "auto":
        options |= {name: name == config.implementation for name in ("foreach", "fused")}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=config.momentum, **options)
    return torch.optim.AdamW(parameters, **options)


def prepare(model: nn.Module, config: TrainConfig) -> None:
    """Let `model` compute as the config says: what its layers keep, and how adapters are computed.

    Raises ValueError if it should keep its layers' inputs alone and cannot.
    """
    set_fast(model, config.fast)
    if hasattr(model, "gradient_checkpointing"):
        vars(model)["gradient_checkpointing"] = config.gradient_checkpointing
    elif config.gradient_checkpointing:
        raise ValueError(f"{type(model).__name__} has no gradient checkpointing: leave it off")


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
    average: Callable[[Tensor], Tensor] = lambda value: value,
    loss: Callable[[Tensor, Tensor], Tensor] = response_loss,
) -> tuple[Tensor, Tensor]:
    """One update from (tokens, labels) pairs; returns the loss and the gradient's norm.

    The loss is the mean over all response tokens of the step, so that several micro-batches give
    the gradient of one large batch. `check` may raise before any weight has changed. `average` is
    over the processes of a run; a model of several exchanges gradients in the last backward alone.
    """
    micro_batches = list(micro_batches)
    parameters = optimizer.param_groups[0]["params"]
    with phase("step"):
        count = torch.stack([(labels[:, 1:] != IGNORE).sum() for _, labels in micro_batches]).sum()
        count, losses = average(count), []
        for number, (tokens, labels) in enumerate(micro_batches, start=1):
            more = number < len(micro_batches)
            alone = getattr(model, "no_sync", nullcontext) if more else nullcontext
            bfloat16 = torch.autocast(tokens.device.type, torch.bfloat16, enabled=config.autocast)
            with phase("forward"), alone(), bfloat16:
                share = loss(model(tokens), labels) / count
            with phase("backward"):
                share.backward()
            losses.append(share.detach())
        whole = average(torch.stack(losses).sum())
        with phase("optimizer"):
            grad_norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            check(whole, grad_norm)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return whole, grad_norm
