"""Many adapters over one base: what the active one answers, and what they take on disk."""

import textwrap
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from lorakit.plots.style import COLORS, EDGE, LARGE, OVER, SMALL, dress, frame, round_up, size, unit

LETTERS = 92  # a line, at SMALL, in a picture of 860 pixels


def draw_answer(ax: Axes, parts: Mapping[str, str], *, whose: str) -> None:
    """Texts under one another, each under its name; the last in the colour of `whose` it is."""
    ax.set_axis_off()
    ax.set_xlim(0, 1)
    lines = {name: textwrap.wrap(text, LETTERS) or [""] for name, text in parts.items()}
    ax.set_ylim(sum(1 + len(text) for text in lines.values()) + 0.2, -0.2)
    row, *_, last = 0, *parts
    style: dict[str, Any] = {"va": "top", "ha": "left", "fontsize": SMALL}
    for name, text in lines.items():
        color = COLORS[whose] if name == last else "black"
        ax.text(0, row, name, color=EDGE, **style)
        ax.text(0, row + 1, "\n".join(text), color=color, family="monospace", **style)
        row += 1 + len(text)


def draw_disk(ax: Axes, base: int, adapters: int, copies: int, *, most: int) -> None:
    """One base with the adapters of some tasks, in bytes, beside a full copy for each task.

    `most` bytes is the axis' end, so that bars can be compared from one drawing to the next.
    """
    scale, unit_name = unit(most)
    limit = round_up(1.17 * most / scale)
    with frame(ax, scale, limit) as bare:
        if bare:
            ax.set_xlim(0, limit)
            ax.set_ylim(1.6, -0.6)
            ax.set_yticks([0, 1], ["base + adapters", "full copies"])
            dress(ax, x=f"on disk, in {unit_name}")
    ax.barh(0, base / scale, color=COLORS["base"], edgecolor=EDGE)
    ax.barh(0, adapters / scale, left=base / scale, color=COLORS["lora"], edgecolor=EDGE)
    ax.barh(1, copies / scale, color=COLORS["full"], edgecolor=EDGE)
    style: dict[str, Any] = {"va": "center", "fontsize": LARGE, "weight": "bold", "bbox": OVER}
    for row, end in enumerate([base + adapters, copies]):
        ax.text(end / scale + 0.012 * limit, row, size(end), **style)
