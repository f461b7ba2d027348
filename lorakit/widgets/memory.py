"""What a training step holds in memory, part by part, full fine-tuning beside LoRA."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch

from lorakit.device import describe as device_name
from lorakit.device import pick_device
from lorakit.lora import LoRAConfig, inject
from lorakit.memory import MemoryBreakdown, measure
from lorakit.memory import estimate as quick_estimate
from lorakit.model import Llama, ModelConfig
from lorakit.plots import draw_memory
from lorakit.run import Run
from lorakit.step import TrainConfig
from lorakit.text import Batches, Encoded
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import Settings

Memory = Callable[..., MemoryBreakdown]


@lru_cache(maxsize=512)
def _measured(
    model: ModelConfig,
    lora: LoRAConfig | None,
    batch_size: int,
    length: int,
    device: torch.device,
) -> MemoryBreakdown:
    # A slider draws nothing from the random numbers of the cells beside it.
    with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        net = Llama(model)
        if lora is not None:
            inject(net, lora)
    example = Encoded(tokens=(0,) * length, prompt=1)
    batches = Batches(examples=(example,), batch_size=batch_size, pad_id=0)
    return measure(net, batches, TrainConfig())


def measured(
    model: ModelConfig, lora: LoRAConfig | None, *, batch_size: int, length: int
) -> MemoryBreakdown:
    """One real step of a model of this shape, with random weights, on `length` tokens a row."""
    return _measured(model, lora, batch_size, length, pick_device())


def memory(source: Memory, model: ModelConfig, run: Run, length: int) -> MemoryBreakdown:
    """What a step of `run` holds, by `source`: `measured` or `quick_estimate`."""
    # No byte depends on alpha: with one alpha for all, each is found out once.
    lora = run.lora and replace(run.lora, alpha=1.0)
    return source(model, lora, batch_size=run.batch_size, length=length)


class MemoryExplorer(Explorable):
    """Method, rank and batch size -> `memory` of both methods -> a bar each, the chosen one bold.

    `length` is the tokens of a row. With `measure`, each number comes from a real step, made when
    it is first asked for; without, from a dry run that takes no memory.
    """

    def __init__(self, model: ModelConfig, run: Run, *, length: int, measure: bool = True):
        self.model, self.length, self.measure = model, length, measure
        self.settings = Settings(run, alpha=False, on_release=measure)
        self.picture = Picture(720, 260, alt="memory of a training step, full and LoRA")
        super().__init__(
            [self.settings, self.picture], alt="explorable: what a training step holds in memory"
        )
        self.settings.observe_all(self.refresh)
        self.refresh()

    def memories(self) -> dict[str, MemoryBreakdown]:
        """Both methods' memory at the settings."""
        source = measured if self.measure else quick_estimate
        return {
            method: memory(source, self.model, self.settings.run.with_method(method), self.length)
            for method in ("full", "lora")
        }

    @shown
    def refresh(self, change=None) -> None:
        run, found = self.settings.run, self.memories()
        how = f"measured on {device_name(pick_device())}" if self.measure else "estimated"
        names = {"full": "full", "lora": f"LoRA, rank {run.rank}"}
        with self.picture.drawing(blit=True) as ax:
            draw_memory(
                ax,
                {names[method]: parts for method, parts in found.items()},
                chosen=names[run.method],
                title=f"{how}: one step of {run.batch_size} x {self.length} tokens",
            )
        self.picture.text = describe(run.method, found)


def describe(method: str, found: dict[str, MemoryBreakdown]) -> str:
    """The chosen method's parts, and what the other one's are in comparison."""
    full, lora = found["full"], found["lora"]
    chosen = found[method]
    learning = (lora.gradients + lora.optimizer) / (full.gradients + full.optimizer)
    return (
        f"{method}: {chosen.activations / 1e6:,.4g} MB of activations, "
        f"{(chosen.gradients + chosen.optimizer) / 1e6:,.4g} MB of gradients and optimizer state. "
        f"LoRA has {learning:.1%} of full fine-tuning's gradients and optimizer state, and "
        f"{lora.activations / full.activations:.0%} of its activations."
    )
