"""What a change of weights is made of: singular values against chance, and where it went."""

import math
import re
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from lorakit.plots.style import (
    COLORS,
    MAPS,
    SMALL,
    STILL,
    UNCHANGED,
    dress,
    frame,
    ink,
    log_limits,
    log_y,
)
from lorakit.spectrum import Spectrum

NAMES = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA"}


def draw_spectrum(ax: Axes, runs: Mapping[str, Sequence[Spectrum]], *, cut: int) -> None:
    """Singular values by run ("full", "lora"): each layer faint, their median, and chance dashed.

    Chance is what random matrices of the same shapes, norms and ranks have (medians again). The
    medians go as far as every layer goes. `cut` marks a rank.
    """
    middles = {run: medians([s.values for s in spectra]) for run, spectra in runs.items()}
    chances = {run: medians([s.random for s in spectra]) for run, spectra in runs.items()}
    longest = max(len(s.values) for spectra in runs.values() for s in spectra)
    tops = [s.values[0] for spectra in runs.values() for s in spectra]
    shown = [value for curve in (*middles.values(), *chances.values()) for value in curve]
    low, high = log_limits([*shown, *tops], decades=4)
    layers = {run: len(spectra) for run, spectra in runs.items()}
    with frame(ax, tuple(layers.items()), longest, low, high) as bare:
        if bare:
            ax.set_xscale("log", base=2)
            ax.set_xlim(0.9, 1.1 * longest)
            ax.xaxis.set_major_locator(LogLocator(base=2, numticks=20))
            ax.xaxis.set_major_formatter("{x:g}")
            log_y(ax, low, high)
            handles = [Line2D([], [], color=COLORS[run], lw=3, label=NAMES[run]) for run in runs]
            label = "random: same shape, norm, rank"
            handles.append(Line2D([], [], color=COLORS["random"], ls="--", lw=2, label=label))
            y = "singular value (log scale)"
            dress(ax, x="index, largest first", y=y, loc="upper right", handles=handles)
    for run, spectra in runs.items():
        color = COLORS[run]
        if len(spectra) > 1:
            for s in spectra:
                _curve(ax, s.values, color=color, alpha=0.12, linewidth=1)
        marker = "o" if len(middles[run]) <= 64 else ""
        _curve(ax, middles[run], color=color, linewidth=3, marker=marker)
        _curve(ax, chances[run], color=COLORS["random"], linewidth=1.5, linestyle="--")
    ax.axvline(cut, color="black", linewidth=1)
    ax.text(cut, low * 1.1, f" rank {cut}", va="bottom", fontsize=SMALL)


def draw_layers(ax: Axes, spectra: Sequence[Spectrum], *, concept: str = "lora") -> None:
    """Where the change went: every layer's delta, by depth and projection, relative to its weight.

    Norms over norms. A spectrum whose `base_norm` is unknown, or zero, is left out; raises
    ValueError if all are.
    """
    sizes = {_cell(spectrum.layer): spectrum.relative for spectrum in spectra}
    cells = {cell: size for cell, size in sizes.items() if size is not None}
    if not cells:
        raise ValueError("no spectrum has the norm of its weight: give each its base_norm")
    rows = sorted({row for row, _ in cells})
    columns = list(dict.fromkeys(column for _, column in cells))
    norms = np.array([[cells.get((row, column), np.nan) for column in columns] for row in rows])
    ax.set_facecolor(STILL)  # where there is no delta
    most = max(cells.values()) or 1
    image = ax.imshow(norms, cmap=MAPS[concept], vmin=0, vmax=most, aspect="auto")
    ax.set_xticks(range(len(columns)), columns)
    every = math.ceil(len(rows) / 16)
    ax.set_yticks(range(0, len(rows), every), [str(row) for row in rows[::every]])
    if len(rows) <= 8:  # room for numbers
        for (row, column), norm in np.ndenumerate(norms):
            color = ink(image.cmap(image.norm(norm)))
            told = f"{norm:.0%}" if norm >= 0.1 else f"{100 * norm:#.2g}%"
            text = "" if np.isnan(norm) else told
            ax.text(column, row, text, ha="center", va="center", color=color, fontsize=SMALL)
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label("norm of the change, over that of W", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    layer, projection = max(cells, key=cells.__getitem__)
    title = f"{NAMES[concept]}: {projection} of layer {layer} changed most"
    ax.set_title(title if any(cells.values()) else UNCHANGED)
    dress(ax, x="projection", y="layer")


def medians(curves: Sequence[Sequence[float]]) -> list[float]:
    """Across curves, as far as every one goes."""
    return [median(values) for values in zip(*curves, strict=False)]


def _curve(ax: Axes, values: Sequence[float], **style) -> None:
    ax.plot(range(1, len(values) + 1), values, **style)


def _cell(layer: str) -> tuple[int, str]:
    """model.layers.3.self_attn.q_proj -> (3, "q_proj")"""
    match = re.search(r"\.(\d+)\..*?([^.]+)$", layer)
    if not match:
        raise ValueError(f"{layer!r} is not a path like 'model.layers.3.self_attn.q_proj'")
    return int(match[1]), match[2]
