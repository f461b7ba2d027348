"""Every figure of the lab: axes in, nothing out, no numbers made here but shares and medians.

Figures are object-oriented (`matplotlib.figure.Figure`, never pyplot): no global state, nothing to
close, nothing drawn twice. Sizes are pixels at 100 dpi, letters are made for a projector, and one
colour stands for one idea in the whole lab. This file knows no widgets.
"""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from lorakit.files import replacing
from lorakit.spectrum import Spectrum

# Okabe and Ito's palette: the pairs that meet in one figure differ for every kind of colour vision.
COLORS = {
    "base": "#7f7f7f",  # the model as it came; what is frozen
    "full": "#d55e00",  # full fine-tuning
    "lora": "#0072b2",
    "random": "#000000",  # what chance gives
    "expected": "#e69f00",  # what a student predicted
}
# The parts of a training step's memory; neighbours in a bar also differ in grey.
PARTS = {
    "weights": "#56b4e9",
    "gradients": "#f0e442",
    "optimizer": "#cc79a7",
    "activations": "#009e73",
}

SMALL, LARGE = 11, 13  # points: ticks and notes, titles


class Breakdown(Protocol):
    """Bytes by purpose, whoever counted them."""

    @property
    def weights(self) -> int: ...
    @property
    def gradients(self) -> int: ...
    @property
    def optimizer(self) -> int: ...
    @property
    def activations(self) -> int: ...


def figure(width: int, height: int) -> tuple[Figure, Axes]:
    """A white figure of so many pixels with one pair of axes; it belongs to nobody else."""
    fig = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
    fig.set_facecolor("white")
    FigureCanvasAgg(fig)
    return fig, fig.add_subplot()


def png(fig: Figure) -> bytes:
    """The figure as it looks now, as a PNG; packed for speed, not for size."""
    canvas = fig.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    file = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(file, "png", compress_level=1)
    return file.getvalue()


def save_picture(
    path: Path | str, draw: Callable[[Axes], None], *, width: int = 800, height: int = 450
) -> None:
    """Write what `draw(ax)` draws as a PNG file of so many pixels, or leave `path` as it was."""
    fig, ax = figure(width, height)
    draw(ax)
    with replacing(path) as fresh:
        fresh.write_bytes(png(fig))


def draw_loss(
    ax: Axes, losses: Sequence[float], *, total_steps: int, label: str, color: str
) -> None:
    """One run's loss by step; call it once a run. The steps' axis shows the whole run from the start,
    and the loss axis moves in jumps of 1, 2, 5, so that a live curve grows in a still picture.
    """
    steps = range(1, len(losses) + 1)
    ax.plot(steps, losses, color=color, linewidth=2, label=label, gid="loss")
    ax.plot(steps[-1:], losses[-1:], color=color, marker="o", markersize=6)
    lines = [line for line in ax.lines if line.get_gid() == "loss"]
    right = max([total_steps, *(len(np.asarray(line.get_ydata())) for line in lines)])
    ax.set_xlim(0, right * 1.02)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    seen = [y for line in lines for y in np.asarray(line.get_ydata()) if 0 < y < math.inf]
    low, high = (min(seen), max(seen)) if seen else (0.1, 1.0)
    ax.set_yscale("log")
    ax.set_ylim(_round_down(low / 1.05), _round_up(high * 1.05))
    _plain_log_ticks(ax)
    _dress(ax, x="step", y="loss")
    ax.legend(frameon=False, fontsize=SMALL, loc="upper right")


def draw_spectrum(ax: Axes, spectra: Sequence[Spectrum], *, cut: int | None = None) -> None:
    """The singular values of every layer, faint; their median, and chance at the same norms.

    `cut` marks a rank and the share of the energy that the values up to it hold, median of layers.
    """
    for spectrum in spectra:
        ax.plot(*_numbered(spectrum.values), color=COLORS["lora"], alpha=0.15, linewidth=1)
    middle = _numbered(_medians([spectrum.values for spectrum in spectra]))
    chance = _numbered(_medians([spectrum.random for spectrum in spectra]))
    ax.plot(*middle, color=COLORS["lora"], linewidth=3, marker="o", markersize=5, label="median")
    ax.plot(*chance, color=COLORS["random"], linewidth=2, linestyle="--", label="random")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
