"""What a training step is, as far as its memory goes."""

from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch

from lorakit.lora import ALL_LINEAR, LoRAConfig, target_layers
from lorakit.memory.layers import LAYERS
from lorakit.model import Llama, ModelConfig
from lorakit.step import TrainConfig

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # of the base's weights
DEVICES = {"cpu": "a CPU", "cuda": "CUDA"}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A step: of `model`, with `lora` or in full, on `batch_size` rows of `length` tokens.

    With accumulation, `batch_size` is the micro-batch's. `dtype` is that of the base's weights,
    where they are not `quantized` (QLoRA, in NF4), and `device` where the step shall run: it need
    not be here. Raises ValueError for a step that cannot be, with the value and the rule.
    """

    model: ModelConfig
    lora: LoRAConfig | None = None
    quantized: bool = False
    batch_size: int = 1
    length: int = 128
    config: TrainConfig = field(default_factory=TrainConfig)
    dtype: str = "float32"
    device: str = "cpu"

    def __post_init__(self):
        for name in ("batch_size", "length"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        longest = self.model.max_position_embeddings
        if self.length > longest:
            raise ValueError(
                f"length={self.length} is more than max_position_embeddings={longest}: "
                "the model reads no longer text"
            )
        for name, known in (("dtype", DTYPES), ("device", DEVICES)):
            if getattr(self, name) not in known:
                options = ", ".join(known)
                raise ValueError(f"{name} must be one of {options}, got {getattr(self, name)!r}")
        if self.quantized and self.lora is None:
            raise ValueError(
                "quantized=True needs lora: 4 bits cannot train, adapters over them can"
            )
        if self.lora is not None:
            if self.lora.rank_pattern:
                raise ValueError(
                    f"rank_pattern={dict(self.lora.rank_pattern)} is not estimated: bytes are told "
                    "for one rank of all layers, so estimate with the largest of them as rank"
                )
            width, layer = narrowest(self.model, self.lora.targets)
            if self.lora.rank > width:
                raise ValueError(
                    f"rank={self.lora.rank} is more than {layer} has rows or columns ({width}): "
                    "at that rank B A can be any matrix already, so lower the rank"
                )


def few_layers(model: ModelConfig, targets: tuple[str, ...] | str = ALL_LINEAR) -> ModelConfig:
    """`model` with as many layers as tell all: as it is if a target names a layer's number."""
    if targets != ALL_LINEAR and any(
        part.isdigit() for target in targets for part in target.split(".")
    ):
        return model
    return replace(model, num_hidden_layers=min(LAYERS, model.num_hidden_layers))


@lru_cache(maxsize=64)
def narrowest(model: ModelConfig, targets: tuple[str, ...] | str = ALL_LINEAR) -> tuple[int, str]:
    """The least rows or columns of a targeted layer, and its name."""
    with torch.device("meta"):
        net = Llama(few_layers(model, targets))
    layers = target_layers(net, targets)
    return min((min(layer.weight.shape), name) for name, layer in layers.items())
