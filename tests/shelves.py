"""Adapters that differ in all that adapters may differ in, alone and on a shelf."""

import copy

import torch

from lorakit.adapters import save_adapter
from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.shelf import Shelf

CONFIGS = {
    "narrow": LoRAConfig(rank=2, alpha=4.0, targets=("q_proj", "v_proj")),
    "wide": LoRAConfig(rank=5, alpha=7.0),
    "uneven": LoRAConfig(
        rank=3,
        alpha=6.0,
        targets=("up_proj", "o_proj", "q_proj"),
        rank_pattern={"up_proj": 1},
        use_rslora=True,
    ),
}


def filled(model, config: LoRAConfig, seed: int):
    """A copy of the base with adapters of random values: what stands on the shelf, alone."""
    one = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    inject(one, config, generator=generator)
    with torch.no_grad():
        for _, layer in lora_layers(one):
            layer.B.copy_(0.3 * torch.randn(layer.B.shape, generator=generator))
    return one.eval()


def shelf_of(model, folder, configs=CONFIGS) -> tuple[Shelf, dict]:
    """A shelf over `model` with these adapters, from files, and a model for each alone."""
    alone = {name: filled(model, config, i) for i, (name, config) in enumerate(configs.items())}
    shelf = Shelf(model.eval())
    for name, one in alone.items():
        shelf.add(name, save_adapter(one, folder / name))
    return shelf, alone
