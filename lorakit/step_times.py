"""Where a training step's time goes: forward, backward and optimizer, by who trains what.

    full     every weight            taught    adapters, as lora.py computes them
    floor    one gain of the         fast      adapters, as fast.py does
             first layer

The floor is under every LoRA: the loss's gradient has to come through all layers to the first
adapter, and no weight's own gradient is made. Two thirds of full fine-tuning's products are left.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median

import torch

from lorakit.begin import begin
from lorakit.lora import freeze
from lorakit.run import Run
from lorakit.train import Training

KINDS = ("full", "taught", "fast", "floor")
WARM = 2  # steps that are not counted


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Seconds of a step's phases."""

    forward: float
    backward: float
    optimizer: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.optimizer


def step_times(run: Run, *, steps: int = 7) -> dict[str, StepTimes]:
    """The median seconds of `steps` real steps of `run`, by kind; the kinds take turns.

    Each step is done kernel by kernel, and each phase waited for: on a GPU, too.
    """
    trainings = {kind: _training(run, kind, WARM + steps) for kind in KINDS}
    taken: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(WARM + steps):
        for kind, training in trainings.items():
            device = next(iter(training.parameters.values())).device

            @contextmanager
            def phase(name: str, kind: str = kind, device=device) -> Iterator[None]:
                _wait(device)
                start = time.perf_counter()
                yield
                _wait(device)
                now = taken[kind][-1]
                now[name] = now.get(name, 0.0) + time.perf_counter() - start

            taken[kind].append({})
            training.step(phase=phase)
    return {
        kind: StepTimes(
            **{
                name: median(step[name] for step in of[WARM:])
                for name in ("forward", "backward", "optimizer")
            }
        )
        for kind, of in taken.items()
    }


def _training(run: Run, kind: str, steps: int) -> Training:
    own = run.with_method("full" if kind in ("full", "floor") else "lora")
    training = begin(replace(own, steps=max(run.steps, steps), fast=kind == "fast"))
    if kind != "floor":
        return training
    model = training.model
    freeze(model)
    model.get_parameter("model.layers.0.input_layernorm.weight").requires_grad_(True)
    return Training(model, training.batches, training.config)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
