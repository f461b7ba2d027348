"""What is inside an adapter's file, and what makes it large: rank, targets, saved embeddings."""

import ipywidgets

from lorakit.adapter_file import AdapterFile, adapter_file
from lorakit.lora import ALL_LINEAR, LoRAConfig
from lorakit.model import ModelConfig
from lorakit.plots import draw_adapter_file
from lorakit.plots.style import size
from lorakit.presets import PRESETS
from lorakit.run import disk_bytes
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.parameters import TARGETS
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import RANKS, dropdown, slider


def describe(found: AdapterFile, model: ModelConfig) -> str:
    """What the picture shows, in words."""
    copy = disk_bytes(model, None)
    factors = sum(found.A.values()) + sum(found.B.values())
    told = (
        f"{found.total:,} bytes in all, {found.total / copy:.2%} of the model's {size(copy)}: "
        f"{factors / found.total:.1%} are A and B"
    )
    if not found.beside:
        return f"{told}. The base's own embedding is not in it"
    beside = sum(found.beside.values())
    twice = ", the same numbers twice" if model.tie_word_embeddings else ""
    return (
        f"{told}, {beside / found.total:.1%} the base's embedding and head, which no adapter here "
        f"has changed{twice}"
    )


class AdapterFileExplorer(Explorable):
    """A model's shape, rank, targets, a tick for the embeddings -> `adapter_file` -> a picture."""

    def __init__(self, model: str = "smollm2-135m", *, rank: int = 8):
        self.model = dropdown("model", [*PRESETS], model)
        self.targets = dropdown("targets", TARGETS, ALL_LINEAR)
        self.rank = slider("rank", RANKS, rank)
        self.embeddings = ipywidgets.Checkbox(False, description="save embeddings", indent=False)
        self.picture = Picture(860, 420, alt="the parts of an adapter's file, in bytes")
        self.controls = (self.model, self.targets, self.rank, self.embeddings)
        super().__init__(
            [*self.controls, self.picture], alt="explorable: what is inside an adapter's file"
        )
        for control in self.controls:
            control.observe(self.refresh, names="value")
        self.refresh()

    @shown
    def refresh(self, change=None) -> None:
        with self.picture.drawing(blit=True) as ax:
            # Read and counted here: whoever draws last has read last.
            model = PRESETS[self.model.value]
            lora = LoRAConfig(rank=self.rank.value, targets=self.targets.value)
            found = adapter_file(model, lora, embeddings=self.embeddings.value)
            draw_adapter_file(ax, found)
            self.picture.text = describe(found, model)
