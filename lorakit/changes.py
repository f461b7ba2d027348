"""Which numbers of a model did training change, and by how much: tensor by tensor.

before = snapshot(model)
...                                     # train
for change in changes(model, before): ...
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Change:
    """One tensor: how many numbers it has, how many differ, and the root mean square difference."""

    name: str
    numbers: int
    changed: int
    size: float


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter, by its path; a tied one once."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@torch.no_grad()
def changes(model: nn.Module, before: Mapping[str, Tensor]) -> list[Change]:
    """What differs from `before`, tensor by tensor, in the model's order.

    Raises ValueError if the model has other parameters than it had.
    """
    now = dict(model.named_parameters())
    if other := sorted(now.keys() ^ before.keys()):
        raise ValueError(
            f"{len(other)} parameters are not in both (first: {other[0]}): take the snapshot after "
            "adapters are injected, and before they are removed"
        )
    found = []
    for name, p in now.items():
        difference = p.cpu().double() - before[name].cpu().double()  # an Apple GPU has no double
        found.append(
            Change(
                name=name,
                numbers=p.numel(),
                changed=int((p != before[name]).sum()),
                size=difference.square().mean().sqrt().item(),
            )
        )
    return found
