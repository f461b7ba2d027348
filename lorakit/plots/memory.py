"""Memory of a training step, part by part."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lorakit.plots.style import (
    EDGE,
    LARGE,
    OVER,
    PARTS,
    SMALL,
    below,
    dress,
    frame,
    ink,
    round_up,
    size,
    unit,
)

NEAR = 2  # times the longest bar: a budget up to there has its place on the axis
CRASH = "would crash here"


def draw_memory(
    ax: Axes,
    runs: Mapping[str, Any],
    *,
    chosen: str | None = None,
    title: str = "",
    totals: bool = False,
    budget: int | None = None,
) -> None:
    """One stacked bar a run, in MB (10^6 bytes), or in GB where MB would be long numbers.

    A run is anything with the bytes of `PARTS` as attributes; a part that no run has is left out.
    With `chosen`, the other bars are pale. `totals` stand at the bars' ends: only where the parts
    are there at the same time. `budget` is a line at so many bytes, and a bar beyond it is marked
    where it crosses.
    """
    held = {part: np.array([getattr(run, part, 0) for run in runs.values()]) for part in PARTS}
    parts = [part for part, values in held.items() if values.any()]
    ends = np.sum([*held.values()], axis=0)
    reach = ends.max() * (1.17 if totals else 1.02)
    line = budget if budget is not None and budget <= NEAR * ends.max() else 0
    scale, unit_name = unit(ends.max())
    limit = round_up(max(reach, 1.02 * line) / scale)
    with frame(ax, tuple(runs), tuple(parts), scale, limit, title, budget is None) as bare:
        if bare:
            ax.set_xlim(0, limit)
            ax.set_ylim(len(runs) - 0.4, -0.6 if budget is None else -1.1)
            ax.set_yticks(range(len(runs)), list(runs))
            ax.set_title(title)
            dress(ax, x=f"memory in {unit_name}", **below(ax, parts))
    # A unit's width, near enough to know where a number fits. The axes' own is not known yet: it
    # differs before and after a layout, and so would what is written.
    pixels = 0.8 * ax.figure.bbox.width / limit
    height = 0.8 if budget is None else 0.5
    left = np.zeros(len(runs))
    for part in parts:
        widths = held[part] / scale
        bars = ax.barh(
            range(len(runs)), widths, height, left=left, color=PARTS[part], edgecolor=EDGE
        )
        texts = [f"{w:,.4g}" if pixels * w > 54 else "" for w in widths]
        labels = ax.bar_label(bars, texts, label_type="center", fontsize=SMALL)
        for bar, label, name in zip(bars, labels, runs, strict=True):
            pale = chosen not in (None, name)
            bar.set_alpha(0.3 if pale else 1)
            label.set_color("black" if pale else ink(PARTS[part]))
            if budget is not None and label.get_text():
                label.set_bbox(OVER | {"facecolor": PARTS[part]})
        left += widths
    if totals:
        style: dict[str, Any] = {"va": "center", "fontsize": LARGE, "weight": "bold", "bbox": OVER}
        for row, end in enumerate(ends):
            ax.text(end / scale + 0.012 * limit, row, size(end), **style)
    if budget is not None:
        _draw_budget(ax, budget / scale, f"budget {size(budget)}", limit, ends / scale, height)


def _draw_budget(
    ax: Axes, budget: float, label: str, limit: float, ends: np.ndarray, height: float
) -> None:
    """A line with its label, and a mark on every bar that goes beyond; all in units of the axis."""
    style: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": SMALL}
    if budget > limit:
        ax.text(limit, -0.84, f"{label} \N{RIGHTWARDS ARROW}", **style)
        return
    ax.axvline(budget, color="black", linewidth=2, linestyle="--")
    beside = -0.015 * limit
    if budget < 0.6 * limit:
        style["ha"], beside = "left", -beside
    ax.text(budget + beside, -0.84, label, **style)
    for row in np.flatnonzero(ends > budget):
        top = row - height / 2
        ax.plot([budget], [top], "X", color="black", mec="white", markersize=13, clip_on=False)
        ax.text(budget + beside, top - 0.17, CRASH, weight="bold", **style)
