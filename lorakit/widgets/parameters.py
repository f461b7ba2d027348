"""How many parameters train, what a variant takes on disk, and the factors beside their weights."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lorakit.adapter_file import adapter_bytes
from lorakit.counts import Count, count, skeleton
from lorakit.lora import ALL_LINEAR, LoRAConfig, target_layers
from lorakit.model import ModelConfig
from lorakit.plots import draw_matrices, draw_share
from lorakit.plots.style import size
from lorakit.presets import PRESETS
from lorakit.run import disk_bytes
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import ALPHAS, RANKS, dropdown, slider

TARGETS: dict[str, tuple[str, ...] | str] = {
    "q and v (the paper's choice)": ("q_proj", "v_proj"),
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "MLP": ("gate_proj", "up_proj", "down_proj"),
    "every linear layer but the head": ALL_LINEAR,
}


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What LoRA trains of a model; `shapes` are those of one layer's weights, (out, in)."""

    count: Count
    adapter: int  # bytes on disk
    copy: int  # bytes of every weight in float32
    shapes: Mapping[str, tuple[int, int]]
    adapted: tuple[str, ...]


def parameters(model: ModelConfig, lora: LoRAConfig) -> Parameters:
    """Counted on the real module, without memory."""
    shapes, adapted = _first_layer(model, lora.targets)
    return Parameters(
        count=count(model, lora),
        adapter=adapter_bytes(model, lora),
        copy=disk_bytes(model, None),
        shapes=shapes,
        adapted=adapted,
    )


def _first_layer(
    model: ModelConfig, targets: tuple[str, ...] | str
) -> tuple[dict[str, tuple[int, int]], tuple[str, ...]]:
    layer = skeleton(replace(model, num_hidden_layers=1)).model.layers[0]
    linear = target_layers(layer, ALL_LINEAR)
    shapes = {
        name.rpartition(".")[2]: (m.out_features, m.in_features) for name, m in linear.items()
    }
    return shapes, tuple(name.rpartition(".")[2] for name in target_layers(layer, targets))


def describe(found: Parameters, lora: LoRAConfig) -> str:
    """The numbers in words."""
    return (
        f"{found.count.trainable:,} of {found.count.total:,} parameters train "
        f"({found.count.percent:.3g}%). On disk "
        f"{size(found.adapter)} an adapter, {size(found.copy)} a full copy. "
        f"alpha / rank = {lora.scale:g} multiplies B A; alpha changes none of these counts."
    )


def describe_layer(found: Parameters, lora: LoRAConfig) -> str:
    """One layer's adapters and the weights that they stand beside, in words."""
    full = sum(math.prod(found.shapes[name]) for name in found.adapted)
    factors = sum(lora.rank * sum(found.shapes[name]) for name in found.adapted)
    return (
        f"one layer at rank {lora.rank}: B and A have {factors:,} numbers, the weights that they "
        f"stand beside {full:,} ({factors / full:.2%})"
    )


class ParametersExplorer(Explorable):
    """Rank, alpha, targets and a model's shape -> `parameters` -> two pictures and a line.

    `beside` are presets whose shares stand beside the model's own, smaller.
    """

    def __init__(
        self,
        model: str = "mini",
        *,
        rank: int = 8,
        alpha: float = 16,
        beside: Sequence[str] = (),
    ):
        self.beside = tuple(beside)
        self.model = dropdown("model", [*PRESETS], model)
        self.targets = dropdown("targets", TARGETS, ALL_LINEAR)
        self.rank = slider("rank", RANKS, rank)
        self.alpha = slider("alpha", ALPHAS, alpha)
        self.share = Picture(720, 150, alt="share of the parameters that train")
        self.matrices = Picture(860, 330, alt="W, B and A of one layer, to scale")
        self.controls = (self.model, self.targets, self.rank, self.alpha)
        super().__init__(
            [*self.controls, self.share, self.matrices],
            alt="explorable: how many parameters LoRA trains",
        )
        for control in self.controls:
            control.observe(self.refresh, names="value")
        self.refresh()

    @property
    def lora(self) -> LoRAConfig:
        """What the controls stand for."""
        return LoRAConfig(
            rank=self.rank.value, alpha=float(self.alpha.value), targets=self.targets.value
        )

    @shown
    def refresh(self, change=None) -> None:
        with self.share.drawing(blit=True) as share, self.matrices.drawing(blit=True) as matrices:
            # Read and counted here: whoever draws last has read last.
            lora = self.lora
            found = parameters(PRESETS[self.model.value], lora)
            others = {
                name: count(PRESETS[name], lora).percent
                for name in self.beside
                if name != self.model.value
            }
            draw_share(share, found.count.trainable, found.count.total, beside=others)
            draw_matrices(matrices, found.shapes, lora.rank, adapted=found.adapted)
            self.share.text = describe(found, lora) + "".join(
                f" {name}: {percent:.2g}%." for name, percent in others.items()
            )
            self.matrices.text = describe_layer(found, lora)
