"""Where the layers of a base stand in a model, and how another layer is put in such a place.

Knows one layer at a time: no adapters by name.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from lorakit.lora import LoRALinear


@dataclass(frozen=True)
class Place:
    """Under `leaf` in `parent`; `base` is the base's own layer, its values at `address`."""

    parent: nn.Module
    leaf: str
    base: nn.Linear
    address: int

    @property
    def layer(self) -> nn.Module | None:
        """What stands here now."""
        return self.parent._modules[self.leaf]

    def put(self, layer: nn.Module) -> None:
        """Make `layer` stand here, in the mode of its parent.

        It was elsewhere when model.train() or model.eval() was last called.
        """
        object.__setattr__(layer, "training", self.parent.training)
        self.parent._modules[self.leaf] = layer  # as nn.Module does, a hundred times faster

    @property
    def is_kept(self) -> bool:
        """Whether the base's layer still holds the memory that it held."""
        return _held(self.base).data_ptr() == self.address


def place_of(model: nn.Module, path: str) -> Place:
    """The place at `path`, whatever stands there: a linear layer, or an adapter beside one."""
    above, _, leaf = path.rpartition(".")
    parent = model.get_submodule(above)
    layer = parent._modules[leaf]
    base = layer.base if isinstance(layer, LoRALinear) else layer
    assert isinstance(base, nn.Linear)
    return Place(parent, leaf, base, _held(base).data_ptr())


def bring(layers: Iterable[LoRALinear]) -> None:
    """Each A and B to the device of its base; an optimizer that has them keeps them."""
    for layer in layers:
        if layer.A.device != (device := _held(layer.base).device):
            layer.to(device)


def _held(base: nn.Linear) -> Tensor:
    """A tensor that the layer holds; in 4 bits, its weight is made anew at each look."""
    W = base._parameters.get("weight")
    return next(base.buffers()) if W is None else W
