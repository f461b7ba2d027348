"""What 4 bits do to a layer: errors by codebook and block, bytes, the levels on its weights."""

import ipywidgets
import torch
from torch import Tensor

from lorakit.lora import ALL_LINEAR, target_layers
from lorakit.model import Llama
from lorakit.plots import draw_errors, draw_levels
from lorakit.qlora import quantized_layers
from lorakit.quantize import CODEBOOKS, dequantize, normalised, quantize
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import choice, dropdown, slider

BLOCKS = tuple(2**n for n in range(4, 11))
BINS = 101  # an odd number: zero is the middle of one
SINGLE, DOUBLE = "32 bits", "8 bits"


def off(W: Tensor, *, block: int, codebook: str, double: bool) -> tuple[float, float]:
    """|Q(W) - W| / |W|, and the bytes that a weight takes."""
    held = quantize(W, block=block, codebook=codebook, double=double)
    return ((dequantize(held) - W).norm() / W.norm()).item(), held.nbytes / W.numel()


def histogram(W: Tensor, block: int) -> list[float]:
    """The share of the weights, divided by their block's largest, in each of `BINS` bins."""
    w = normalised(W, block)[0].flatten()[: W.numel()]
    return (w.histc(BINS, -1, 1) / W.numel()).tolist()


class QuantizeExplorer(Explorable):
    """A plain model; a layer, a block, a codebook, scales in 8 bits or 32 -> errors and levels.

    The error of every codebook and block is found out once for each layer.
    """

    def __init__(self, model: Llama):
        if quantized_layers(model):
            raise ValueError(
                "model is in 4 bits already, where nothing is left to lose: give it as it is loaded"
            )
        layers = target_layers(model, ALL_LINEAR)
        self.weights = {
            name: layer.weight.detach().to("cpu", torch.float32) for name, layer in layers.items()
        }
        labels = {name.removeprefix("model.layers."): name for name in layers}
        self.layer = dropdown("layer", labels, next(iter(layers)))
        self.block = slider("block", BLOCKS, 64)
        self.codebook = choice("codebook", list(CODEBOOKS), "nf4")
        self.scales = choice("scales in", [SINGLE, DOUBLE], DOUBLE)
        self.scales.tooltips = ["a float32 each", "double quantisation"]
        self.map = Picture(640, 240, alt="error of 4 bits by codebook and block")
        self.levels = Picture(640, 300, alt="16 levels over a layer's weights")
        self._found: dict[tuple[str, str, int, bool], tuple[float, float]] = {}
        self.controls = (self.layer, self.block, self.codebook, self.scales)
        super().__init__(
            [
                self.layer,
                self.block,
                ipywidgets.HBox([self.codebook, self.scales]),
                self.map,
                self.levels,
            ],
            alt="explorable: a layer's weights in 4 bits",
        )
        for control in self.controls:
            control.observe(self.refresh, names="value")
        self.refresh()

    def _off(self, codebook: str, block: int) -> tuple[float, float]:
        """Error and bytes a weight, of the layer and scales on show; found out once."""
        double = self.scales.value == DOUBLE
        key = self.layer.value, codebook, block, double
        if key not in self._found:
            W = self.weights[self.layer.value]
            self._found[key] = off(W, block=block, codebook=codebook, double=double)
        return self._found[key]

    @property
    def errors(self) -> dict[tuple[str, int], float]:
        """The relative error by codebook and block, of the layer and scales on show."""
        return {
            (codebook, block): self._off(codebook, block)[0]
            for codebook in CODEBOOKS
            for block in BLOCKS
        }

    @property
    def bytes_a_weight(self) -> float:
        """Of what the controls stand for."""
        return self._off(self.codebook.value, self.block.value)[1]

    @shown
    def refresh(self, change=None) -> None:
        here = self.codebook.value, self.block.value
        errors, W = self.errors, self.weights[self.layer.value]
        with self.map.drawing(blit=True) as ax:
            title = f"error in the weights' norm, scales in {self.scales.value}"
            draw_errors(ax, errors, title=title, here=here)
        with self.levels.drawing(blit=True) as ax:
            draw_levels(ax, histogram(W, here[1]), CODEBOOKS[here[0]])
        self.map.text = (
            f"{self.layer.label}: {here[0]} in blocks of {here[1]}, scales in {self.scales.value}, "
            f"moves the weights by {errors[here]:.2%} of their norm and takes "
            f"{self.bytes_a_weight:.4f} bytes a weight (float32 takes 4)"
        )
        self.levels.text = describe(W, *here)

    def close(self) -> None:
        """Take it off the page, and let go of the weights."""
        super().close()
        self.weights, self._found = {}, {}


def describe(W: Tensor, codebook: str, block: int) -> str:
    """How evenly the levels are used."""
    held = quantize(W, block=block, codebook=codebook, double=False)
    codes = torch.stack([held.packed >> 4, held.packed & 15], dim=1).flatten()[: W.numel()]
    shares = codes.int().bincount(minlength=16) / W.numel()
    used = int((shares > 0).sum())
    return (
        f"{used} of the 16 levels of {codebook} are used, the one met most by {shares.max():.1%} "
        f"of the weights, the one met least by {shares[shares > 0].min():.1%}"
    )
