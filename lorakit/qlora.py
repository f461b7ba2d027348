"""QLoRA: a frozen base in 4 bits under adapters in full precision.

    y = dequantize(Q) x + scale * B A x        Q (4 bits) frozen, A and B trained

arXiv 2305.14314, section 3. A weight is made whole for one product and let go: once in forward, and
again in backward, where the gradient goes through it to the adapters below. Works on any nn.Module;
`inject` adapts such layers like others.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorakit.linear import Linear
from lorakit.lora import ALL_LINEAR, lora_layers, target_layers
from lorakit.quantize import Quantized, check_values, dequantize, quantize


class QuantizedLinear(nn.Linear):
    """A frozen linear layer whose weight is held in 4 bits; `weight` is made anew at each look.

    `model.to(dtype)` changes the dtype of `weight`, and no stored bit: floats are kept as int32, so
    that it passes them by. The bias stays as it was. Raises ValueError as `quantize` does.
    """

    like: Tensor

    def __init__(
        self, base: nn.Linear, *, block: int = 64, codebook: str = "nf4", double: bool = True
    ):
        nn.Module.__init__(self)  # nn.Linear's own would make the weight
        self.in_features, self.out_features = base.in_features, base.out_features
        self.bias = base.bias
        self.form: dict[str, Any] = {"block": block, "codebook": codebook, "double": double}
        W = base.weight.detach()
        held = quantize(W, block=block, codebook=codebook, double=double)
        self.stored = tuple(held.tensors)  # names
        for name, tensor in held.tensors.items():
            bits = tensor.view(torch.int32) if tensor.is_floating_point() else tensor
            self.register_buffer(name, bits)
        # Of no size: it is there for its dtype, which follows the model's.
        self.register_buffer("like", W.new_empty(0), persistent=False)
        self.train(base.training).requires_grad_(False)

    @property
    def quantized(self) -> Quantized:
        """What is stored, over the same memory."""
        tensors = {name: getattr(self, name) for name in self.stored}
        for name, tensor in tensors.items():
            if tensor.dtype == torch.int32:
                tensors[name] = tensor.view(torch.float32)
        shape = (self.out_features, self.in_features)
        return Quantized(**tensors, shape=shape, block=self.form["block"])

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The dequantised weight (out, in), a new tensor: what is done to it changes no layer."""
        return dequantize(self.quantized, self.like.dtype)

    def forward(self, x: Tensor) -> Tensor:
        held = self.quantized
        y = _Product.apply(x, held.shape, held.block, self.stored, *held.tensors.values())
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        return ", ".join([super().extra_repr(), *(f"{k}={v}" for k, v in self.form.items())])


class _Product(torch.autograd.Function):
    """x (..., in) -> x W^T (..., out), in the dtype of x, or autocast's; keeps the 4 bits alone."""

    @staticmethod
    def forward(ctx, x, shape, block, names, *tensors):
        ctx.form = {"shape": shape, "block": block}, names
        ctx.save_for_backward(*tensors)
        return F.linear(x, _whole(ctx.form, tensors, x.dtype))

    @staticmethod
    def backward(ctx, gradient):
        tensors = ctx.saved_tensors  # asked for once: gradient checkpointing gives them once
        W = _whole(ctx.form, tensors, gradient.dtype)
        return gradient @ W, None, None, None, *(None for _ in tensors)


def _whole(form, tensors, dtype) -> Tensor:
    shape, names = form
    return dequantize(Quantized(**dict(zip(names, tensors, strict=True)), **shape), dtype)


def quantized_layers(model: nn.Module) -> list[tuple[str, QuantizedLinear]]:
    """The layers in 4 bits and their paths, in the model's order."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, QuantizedLinear)]


def quantized_form(model: nn.Module) -> str | None:
    """Of the layers in 4 bits: codebook/block/scales, as "nf4/64/double"; None without any."""
    forms = {
        f"{form['codebook']}/{form['block']}/{'double' if form['double'] else 'single'}"
        for form in (layer.form for _, layer in quantized_layers(model))
    }
    return ", ".join(sorted(forms)) or None


def quantize_(
    model: nn.Module, *, block: int = 64, codebook: str = "nf4", double: bool = True
) -> list[str]:
    """Put every linear layer that "all-linear" names in 4 bits, in place, and return their paths.

    Embedding, norms and output head stay as they are. Raises ValueError, the model untouched, if it
    is quantised already, has adapters, or a weight is not finite; and as `quantize` does.
    """
    if present := lora_layers(model):
        raise ValueError(
            f"model has {len(present)} adapters (first: {present[0][0]}), trained over the weights "
            "as they are: quantise the base, then inject; remove(model) takes them off"
        )
    if quantized := quantized_layers(model):
        raise ValueError(
            f"model is quantised already, {len(quantized)} layers (first: {quantized[0][0]}): "
            "dequantize_(model) makes them plain, with what is left of their values"
        )
    layers = target_layers(model, ALL_LINEAR)
    for name, layer in layers.items():
        check_values(layer.weight, name)
    for name, layer in layers.items():
        quantized_layer = QuantizedLinear(layer, block=block, codebook=codebook, double=double)
        model.set_submodule(name, quantized_layer)
    return list(layers)


def plain(layer: nn.Linear, W: Tensor) -> nn.Linear:
    """A frozen linear layer around W, with the bias of `layer`."""
    made = Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    made.weight, made.bias = nn.Parameter(W), layer.bias
    return made.train(layer.training).requires_grad_(False)


@torch.no_grad()
def dequantize_(model: nn.Module) -> list[str]:
    """Make every layer in 4 bits a plain, frozen one of the same values, in place; their paths.

    Adapters over them stay. What quantising has rounded away does not come back. Raises ValueError
    if no layer is quantised.
    """
    layers = quantized_layers(model)
    if not layers:
        raise ValueError("nothing to dequantise: no layer is in 4 bits, quantize_(model) does it")
    for name, layer in layers:
        model.set_submodule(name, plain(layer, layer.weight))
    return [name for name, _ in layers]


@dataclass(frozen=True, kw_only=True)
class QuantizedBytes:
    """A model's bytes: `weights` numbers in `quantized` bytes, and the rest of it in `rest`.

    `plain` is what the weights would take in the model's own dtype.
    """

    weights: int
    quantized: int
    rest: int
    plain: int

    @property
    def per_weight(self) -> float:
        """Bytes a weight, of the quantised layers."""
        return self.quantized / self.weights

    @property
    def ratio(self) -> float:
        """The whole model's bytes as a share of what it would take unquantised."""
        return (self.quantized + self.rest) / (self.plain + self.rest)


def quantized_bytes(model: nn.Module) -> QuantizedBytes:
    """What the model's tensors take, tied ones once, its adapters with the rest.

    Raises ValueError if no layer is quantised.
    """
    layers = [layer for _, layer in quantized_layers(model)]
    if not layers:
        raise ValueError("no layer is in 4 bits: quantize_(model) does it")
    held = {id(tensor): tensor.nbytes for tensor in [*model.parameters(), *model.buffers()]}
    quantized = sum(layer.quantized.nbytes for layer in layers)
    numbers = [layer.in_features * layer.out_features for layer in layers]
    return QuantizedBytes(
        weights=sum(numbers),
        quantized=quantized,
        rest=sum(held.values()) - quantized,
        plain=sum(n * m.like.element_size() for n, m in zip(numbers, layers, strict=True)),
    )
