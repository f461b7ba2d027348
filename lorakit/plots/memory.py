"""Memory of a training step, part by part."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from lorakit.plots.style import EDGE, PARTS, SMALL, dress, frame, ink, round_up


def draw_memory(
    ax: Axes, runs: Mapping[str, Any], *, chosen: str | None = None, title: str = ""
) -> None:
    """One stacked bar a run, in MB (10^6 bytes), or in GB where MB would be long numbers.

    A run is anything with the bytes of each of `PARTS` as attributes. With `chosen`, the other bars
    are pale. No total: gradients and activations are not at their largest at the same time.
    """
    largest = max(sum(getattr(run, part) for part in PARTS) for run in runs.values())
    unit, unit_name = (10**9, "GB") if largest >= 10**10 else (10**6, "MB")
    limit = round_up(1.02 * largest / unit)
    with frame(ax, tuple(runs), unit, limit, title) as bare:
        if bare:
            ax.set_xlim(0, limit)
            ax.set_ylim(len(runs) - 0.4, -0.6)
            ax.set_yticks(range(len(runs)), list(runs))
            ax.set_title(title)
            below = ax.transAxes + ScaledTranslation(0, -0.55, ax.figure.dpi_scale_trans)
            dress(
                ax,
                x=f"memory in {unit_name}",
                loc="upper center",
                handles=[Patch(facecolor=color, label=part) for part, color in PARTS.items()],
                ncols=len(PARTS),
                bbox_to_anchor=(0.5, 0),
                bbox_transform=below,
            )
    # A unit's width, near enough to know where a number fits. The axes' own is not known yet: it
    # differs before and after a layout, and so would what is written.
    pixels = 0.8 * ax.figure.bbox.width / limit
    left = np.zeros(len(runs))
    for part, color in PARTS.items():
        widths = np.array([getattr(run, part) / unit for run in runs.values()])
        bars = ax.barh(range(len(runs)), widths, left=left, color=color, edgecolor=EDGE)
        texts = [f"{w:,.4g}" if pixels * w > 54 else "" for w in widths]
        labels = ax.bar_label(bars, texts, label_type="center", fontsize=SMALL)
        for bar, label, name in zip(bars, labels, runs, strict=True):
            pale = chosen not in (None, name)
            bar.set_alpha(0.3 if pale else 1)
            label.set_color("black" if pale else ink(color))
        left += widths
