"""4 bits: how far weights are moved, by codebook and block, and the levels that they move to."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from lorakit.plots.style import COLORS, MAPS, SMALL, dress, frame, ink, round_up


def draw_errors(
    ax: Axes, errors: Mapping[tuple[str, int], float], *, title: str, here: tuple[str, int]
) -> None:
    """A cell a (codebook, block): the relative error, the darker the larger; `here` is framed."""
    rows = list(dict.fromkeys(codebook for codebook, _ in errors))
    columns = list(dict.fromkeys(block for _, block in errors))
    with frame(ax, tuple(rows), tuple(columns), title) as bare:
        if bare:
            ax.set_xlim(-0.5, len(columns) - 0.5)
            ax.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top
            ax.set_xticks(range(len(columns)), [str(block) for block in columns])
            ax.set_yticks(range(len(rows)), rows)
            ax.set_title(title)
            dress(ax, x="numbers that share a scale (block)")
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
    shades, most = matplotlib.colormaps[MAPS["qlora"]], max(errors.values()) or 1
    for (codebook, block), error in errors.items():
        top, left = rows.index(codebook), columns.index(block)
        color = shades(0.8 * error / most)
        ax.add_patch(Rectangle((left - 0.5, top - 0.5), 1, 1, facecolor=color, edgecolor="white"))
        where: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL + 1}
        ax.text(left, top, f"{error:.1%}", color=ink(color[:3]), **where)
    top, left = rows.index(here[0]), columns.index(here[1])
    box = Rectangle((left - 0.46, top - 0.46), 0.92, 0.92, fill=False, edgecolor="black", lw=3)
    box.set_zorder(4)
    ax.add_patch(box)


def draw_levels(ax: Axes, shares: Sequence[float], levels: Sequence[float]) -> None:
    """Shares of the weights, divided by their block's largest, in equal bins from -1 to 1; levels.

    A weight moves to the nearest of the lines.
    """
    limit = round_up(1.05 * max(shares))
    width = 2 / len(shares)
    with frame(ax, limit, len(shares)) as bare:
        if bare:
            ax.set_xlim(-1.05, 1.05)
            ax.set_ylim(0, limit)
            ax.yaxis.set_major_formatter(lambda value, place: f"{value:.1%}")
            ax.set_title("where the weights are, and the 16 levels", loc="left")
            handles = [
                Patch(facecolor=COLORS["base"], label="weights"),
                Line2D([], [], color=COLORS["qlora"], lw=2, label="levels"),
            ]
            # Above, beside the title: everywhere else there are lines.
            above: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.02, 0.97)}
            dress(ax, x="weight / largest of its block", handles=handles, ncols=2, **above)
    middles = [-1 + width * (i + 0.5) for i in range(len(shares))]
    ax.bar(middles, shares, width, color=COLORS["base"])
    ax.vlines(levels, 0, limit, color=COLORS["qlora"], linewidth=2)
