"""What a method costs before anything is trained: parameters, bytes on disk, memory of a step."""

from dataclasses import dataclass, replace

from lorakit.counts import Count, count
from lorakit.memory import MemoryBreakdown, quick_estimate
from lorakit.model import ModelConfig
from lorakit.plots import draw_matrices, draw_memory, draw_parameters
from lorakit.run import Run, disk_bytes
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run would take: its parameters, bytes on disk, and bytes held in a step."""

    parameters: Count
    disk: int
    memory: MemoryBreakdown


def cost(model: ModelConfig, run: Run, length: int) -> Cost:
    """`length` is that of a batch's longest example, in tokens."""
    # No number here depends on alpha: with one alpha for all, each is worked out once.
    lora = run.lora and replace(run.lora, alpha=1.0)
    return Cost(
        parameters=count(model, lora),
        disk=disk_bytes(model, lora),
        memory=quick_estimate(model, lora, batch_size=run.batch_size, length=length),
    )


def describe(run: Run, cost: Cost) -> str:
    """The cost in words."""
    numbers = cost.parameters
    line = (
        f"{numbers.trainable:,} of {numbers.total:,} parameters train ({numbers.percent:.2f}%), "
        f"{cost.disk / 1e6:,.1f} MB on disk a variant"
    )
    if run.lora is None:
        return f"{line}."
    return (
        f"{line}. alpha / rank = {run.lora.scale:g} multiplies B A: alpha changes what the delta "
        "weighs, and none of these numbers."
    )


class CostExplorer(Explorable):
    """Settings -> `cost` -> pictures of the share that trains, the factors, and the memory."""

    def __init__(self, model: ModelConfig, run: Run, *, length: int):
        self.model, self.length = model, length
        self.settings = Settings(run)
        self.parameters = Picture(720, 150, alt="share of the parameters that train")
        self.matrices = Picture(720, 260, alt="W, B and A of one layer, to scale")
        self.memory = Picture(720, 240, alt="memory of a training step, full and LoRA")
        super().__init__(
            [self.settings, self.parameters, self.matrices, self.memory],
            alt="explorable: what full fine-tuning and LoRA cost",
        )
        self.settings.observe_all(self.refresh)
        self.refresh()

    @shown
    def refresh(self, change=None) -> None:
        run = self.settings.run
        full, lora = (
            cost(self.model, replace(run, method=method), self.length)
            for method in ("full", "lora")
        )
        chosen = full if run.lora is None else lora
        with self.parameters.drawing() as ax:
            draw_parameters(ax, chosen.parameters.trainable, chosen.parameters.total)
        self.parameters.text = describe(run, chosen)
        wide, size = self.model.intermediate_size, self.model.hidden_size
        with self.matrices.drawing() as ax:
            draw_matrices(ax, wide, size, run.rank)
        self.matrices.text = f"one layer's up_proj at rank {run.rank}"
        with self.memory.drawing() as ax:
            draw_memory(ax, {"full": full.memory, f"lora, rank {run.rank}": lora.memory})
            ax.set_title(f"estimated for a batch of {run.batch_size} x {self.length} tokens")
        self.memory.text = (
            f"LoRA's gradients and optimizer state are {lora.parameters.percent:.2g}% of full "
            "fine-tuning's, its activations "
            f"{lora.memory.activations / full.memory.activations:.0%}. At once, at the end of "
            f"forward or backward: {lora.memory.total / full.memory.total:.0%}."
        )
