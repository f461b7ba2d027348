"""A training step's time, phase by phase."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from lorakit.plots.style import COLORS, EDGE, SMALL, dress

# Of one bar's phases: as dark as they are late.
SHADES = {"forward": 0.35, "backward": 0.7, "optimizer": 1.0}
ROWS = {
    "full": ("full", "full"),
    "taught": ("LoRA as taught", "lora"),
    "fast": ("LoRA, fast", "lora"),
    "floor": ("the floor", "base"),
}


def draw_step_times(ax: Axes, times: Mapping[str, Any]) -> None:
    """One stacked bar a kind, in milliseconds, and a line where the floor ends.

    `times` by kind have the seconds of `SHADES` as attributes, and their `total`.
    """
    left = np.zeros(len(times))
    colors = [COLORS[ROWS[kind][1]] for kind in times]
    for name, shade in SHADES.items():
        widths = np.array([1000 * getattr(found, name) for found in times.values()])
        bars = ax.barh(range(len(times)), widths, left=left, color=colors, edgecolor=EDGE)
        for bar, color in zip(bars, colors, strict=True):
            bar.set_facecolor(_paler(color, shade))
        left += widths
    limit = 1.4 * left.max()
    for row, (found, end) in enumerate(zip(times.values(), left, strict=True)):
        words = f" {1000 * found.total:.0f} ms"
        if "floor" in times:
            words += f", {found.total / times['floor'].total:.2f} times the floor"
        ax.text(end, row, words, va="center", fontsize=SMALL)
    if "floor" in times:
        ax.axvline(1000 * times["floor"].total, color="black", linewidth=1.5, linestyle="--")
    ax.set_xlim(0, limit)
    ax.set_ylim(len(times) - 0.4, -0.6)
    ax.set_yticks(range(len(times)), [ROWS[kind][0] for kind in times])
    dress(ax, x="milliseconds a step: forward (pale), backward, optimizer (dark)")


def _paler(color: str, shade: float) -> tuple[float, ...]:
    return tuple(1 - shade * (1 - part) for part in to_rgb(color))
