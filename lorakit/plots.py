"""Every figure of the lab: axes in, nothing out, no numbers made here but shares and medians.

Figures are matplotlib's `Figure`, never pyplot: no global state, nothing to close. Sizes are pixels
at 100 dpi, letters are made for a projector, and one colour stands for one idea in the whole lab.
"""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from lorakit.files import replacing
from lorakit.spectrum import Spectrum, energy

# From Okabe and Ito's palette: what meets in one figure differs for every kind of colour vision.
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
TIMES = "\N{MULTIPLICATION SIGN}"
UNCHANGED = "nothing has changed yet"


def figure(width: int, height: int) -> tuple[Figure, Axes]:
    """A white figure of so many pixels with one pair of axes."""
    fig = Figure((width / 100, height / 100), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.add_subplot()


def png(fig: Figure) -> bytes:
    """The figure as it looks now, as a PNG; packed for speed, not for size."""
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=100, pil_kwargs={"compress_level": 1})
    return file.getvalue()


def save_picture(
    path: Path | str, draw: Callable[[Axes], None], *, width: int = 800, height: int = 450
) -> None:
    """Write what `draw(ax)` draws as a PNG file of so many pixels; `path` changes at the end."""
    fig, ax = figure(width, height)
    draw(ax)
    with replacing(path) as fresh:
        fresh.write_bytes(png(fig))


def draw_loss(
    ax: Axes, losses: Sequence[float], *, total_steps: int, label: str, color: str
) -> None:
    """One run's loss by step, so far; call it once a run to lay runs over each other.

    The step axis shows the whole run from the start, and the loss axis moves in jumps of 1, 2, 5:
    a live curve grows in a still picture.
    """
    steps = range(1, len(losses) + 1)
    ax.plot(steps, losses, color=color, linewidth=2, label=label)
    ax.plot(steps[-1:], losses[-1:], color=color, marker="o", markersize=6)
    ax.set_xlim(0, 1.02 * total_steps)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    _log_y(ax, [loss for line in ax.lines for loss in np.asarray(line.get_ydata())])
    _dress(ax, x="step", y="loss (log scale)", loc="upper right")


def draw_spectrum(
    ax: Axes, spectra: Sequence[Spectrum], *, cut: int | None = None, concept: str = "lora"
) -> None:
    """The singular values of every layer, faint; their median; and chance at the same norms.

    The medians go as far as every layer goes. `cut` marks a rank, and tells the share of the energy
    up to it (the layers' median).
    """
    for spectrum in spectra:
        _curve(ax, spectrum.values, concept, alpha=0.12, linewidth=1)
    middle = [median(s) for s in zip(*(spectrum.values for spectrum in spectra), strict=False)]
    chance = [median(s) for s in zip(*(spectrum.random for spectrum in spectra), strict=False)]
    who = f"median of {len(spectra)} layers" if len(spectra) > 1 else spectra[0].layer
    marker = "o" if len(middle) <= 64 else ""
    _curve(ax, middle, concept, linewidth=3, label=who, marker=marker)
    _curve(ax, chance, "random", linewidth=2, label="random, same norm and rank", linestyle="--")
    ax.set_xscale("log", base=2)
    ax.set_xlim(0.9, 1.1 * max(len(chance), *(len(spectrum.values) for spectrum in spectra)))
    ax.xaxis.set_major_locator(LogLocator(base=2, numticks=20))
    ax.xaxis.set_major_formatter("{x:g}")
    _log_y(ax, [*middle, *chance, *(spectrum.values[0] for spectrum in spectra)], decades=4)
    if cut is not None:
        ax.axvline(cut, color="black", linewidth=1)
        ax.text(cut, 0.03, f" rank {cut}", transform=ax.get_xaxis_transform(), fontsize=SMALL)
        share = median(spectrum.energy(cut) for spectrum in spectra)
        random = median(energy(spectrum.random, cut) for spectrum in spectra)
        title = f"the first {cut} values hold {share:.0%} of the energy (random: {random:.0%})"
        ax.set_title(title if share else UNCHANGED)
    _dress(ax, x="index, largest first", y="singular value (log scale)", loc="upper right")


def draw_layers(ax: Axes, spectra: Sequence[Spectrum]) -> None:
    """Where the change went: the norm of every layer's delta, by depth and projection."""
    cells = {_cell(spectrum.layer): spectrum.norm for spectrum in spectra}
    rows = sorted({row for row, _ in cells})
    columns = list(dict.fromkeys(column for _, column in cells))
    norms = np.array([[cells.get((row, column), np.nan) for column in columns] for row in rows])
    ax.set_facecolor("#e8e8e8")  # where there is no delta
    image = ax.imshow(norms, cmap="Blues", vmin=0, vmax=max(cells.values()) or 1, aspect="auto")
    ax.set_xticks(range(len(columns)), columns)
    every = math.ceil(len(rows) / 16)
    ax.set_yticks(range(0, len(rows), every), [str(row) for row in rows[::every]])
    if len(rows) <= 8:  # room for numbers
        for (row, column), norm in np.ndenumerate(norms):
            ink = _ink(image.cmap(image.norm(norm)))
            text = "" if np.isnan(norm) else f"{norm:#.2g}"
            ax.text(column, row, text, ha="center", va="center", color=ink, fontsize=SMALL)
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label("norm of the change", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    layer, projection = max(cells, key=cells.__getitem__)
    ax.set_title(
        f"{projection} of layer {layer} changed most" if any(cells.values()) else UNCHANGED
    )
    _dress(ax, x="projection", y="layer")


def draw_memory(ax: Axes, runs: Mapping[str, Any]) -> None:
    """One stacked bar a run, in MB (10^6 bytes), or in GB where MB would be long numbers.

    A run is anything with the bytes of each of `PARTS` as attributes. The title is the caller's.
    No total: gradients and activations are not at their largest at the same time.
    """
    largest = max(sum(getattr(run, part) for part in PARTS) for run in runs.values())
    unit, unit_name = (10**9, "GB") if largest >= 10**10 else (10**6, "MB")
    limit = 1.15 * largest / unit
    pixels = ax.bbox.width / limit  # a unit's width, near enough to know where a number fits
    left = np.zeros(len(runs))
    for part, color in PARTS.items():
        widths = np.array([getattr(run, part) / unit for run in runs.values()])
        bars = ax.barh(list(runs), widths, left=left, color=color, edgecolor="white", label=part)
        texts = [f"{w:,.4g}" if pixels * w > 54 else "" for w in widths]
        ax.bar_label(bars, texts, label_type="center", color=_ink(color), fontsize=SMALL)
        left += widths
    ax.set_xlim(0, limit)
    ax.invert_yaxis()
    below = ax.transAxes + ScaledTranslation(0, -0.55, ax.figure.dpi_scale_trans)
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below}
    _dress(ax, x=f"memory in {unit_name}", y="", ncols=len(PARTS), **place)


def draw_matrices(ax: Axes, out_features: int, in_features: int, rank: int) -> None:
    """W + B A, every matrix to the same scale: how thin the two factors are."""
    gap = 0.35 * max(out_features, in_features)
    x = 0.0
    for name, height, width, color, sign in (
        ("W, frozen", out_features, in_features, COLORS["base"], "+"),
        ("B, trained", out_features, rank, COLORS["lora"], TIMES),
        ("A, trained", rank, in_features, COLORS["lora"], ""),
    ):
        # The edge is 2 points at any scale: the thinnest matrix is drawn too.
        ax.add_patch(Rectangle((x, -height / 2), width, height, color=color, linewidth=2))
        label = f"{name}\n{height} {TIMES} {width}"
        under = -height / 2 - gap / 12
        ax.text(x + width / 2, under, label, ha="center", va="top", fontsize=SMALL)
        x += width + gap
        ax.text(x - gap / 2, 0, sign, ha="center", va="center", fontsize=LARGE + 4)
    ax.autoscale()
    ax.set_aspect("equal")
    ax.set_axis_off()
    percent = 100 * rank * (in_features + out_features) / (in_features * out_features)
    ax.set_title(f"B and A together have {percent:.3g}% as many numbers as W", fontsize=LARGE)


def draw_parameters(ax: Axes, trainable: int, total: int) -> None:
    """The share of a model's parameters that train, on a log scale from 0.001% to all."""
    percent = 100 * trainable / total
    ax.axvline(1, color="black", linewidth=1.5, linestyle="--")
    ax.plot([percent], [0], "o", color=COLORS["lora"], markersize=16)
    ax.set_xscale("log")
    ax.set_xlim(min(0.001, percent / 2), 1.5 * max(100, percent))
    ax.xaxis.set_major_formatter("{x:g}%")
    ax.set_yticks([])
    share = f"{percent:.2g}" if percent < 10 else f"{percent:.0f}"
    ax.set_title(f"{trainable:,} of {total:,} parameters train: {share}%")
    _dress(ax, x="share of the parameters (log scale)")
    ax.spines["left"].set_visible(False)


def _dress(ax: Axes, *, x: str, y: str = "", **legend: Any) -> None:
    """Letters that the last row can read, no more frame than needed; a legend where told to."""
    ax.set_xlabel(x, fontsize=SMALL)
    ax.set_ylabel(y, fontsize=SMALL)
    ax.title.set_fontsize(LARGE)
    ax.tick_params(labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(frameon=False, fontsize=SMALL, **legend)


def _curve(ax: Axes, values: Sequence[float], color: str, **style: Any) -> None:
    ax.plot(range(1, len(values) + 1), values, color=COLORS[color], **style)


def _log_y(ax: Axes, values: Sequence[float], decades: float = 300) -> None:
    """A log axis that holds `values`, at most so many decades of them, with plain numbers on it."""
    seen = [value for value in values if 0 < value < math.inf] or [1.0]
    low, high = max(min(seen), max(seen) / 10**decades), max(seen)
    ax.set_ylim(_round_down(low / 1.05), 1 / _round_down(1 / (1.05 * high)))
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())


def _round_down(value: float) -> float:
    """The next of ..., 0.5, 1, 2, 5, 10, ... from `value` on down."""
    decade = 10.0 ** math.floor(math.log10(value))
    return decade * max(step for step in (0.5, 1, 2, 5) if step * decade <= value)


def _cell(layer: str) -> tuple[int, str]:
    """model.layers.3.self_attn.q_proj -> (3, "q_proj")"""
    match = re.search(r"\.(\d+)\..*?([^.]+)$", layer)
    if not match:
        raise ValueError(f"{layer!r} is not a path like 'model.layers.3.self_attn.q_proj'")
    return int(match[1]), match[2]


def _ink(color) -> str:
    """Black or white, whichever is legible on `color`."""
    red, green, blue = to_rgb(color)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
