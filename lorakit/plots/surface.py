"""Who is ahead, full fine-tuning or LoRA, over two things that vary: a map with its numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.patches import Patch, Rectangle

from lorakit.plots.style import COLORS, LARGE, SMALL, STILL, dress, frame, ink

# From LoRA's color where it is ahead, over white, to full fine-tuning's.
AHEAD = LinearSegmentedColormap.from_list("ahead", [COLORS["lora"], "white", COLORS["full"]])


def draw_surface(
    ax: Axes,
    values: Mapping[tuple[str, str], float],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    x: str,
    title: str,
    note: str,
    limit: float,
    ratio: bool,
    here: tuple[str, str],
) -> None:
    """A cell a (row, column), with its number; the one that is `here` is framed.

    `title` and `note` stand above it, to the left and to the right; the note may move.
    With `ratio` white is 1, and the full colors are `limit` times as much or as little; without,
    white is 0, and they are `limit` above and below. Beyond, a color stays; what is not finite is
    grey.
    """
    with frame(ax, tuple(rows), tuple(columns), x, title) as bare:
        if bare:
            ax.set_xlim(-0.5, len(columns) - 0.5)
            ax.set_ylim(len(rows) - 0.5, -0.5)  # the first row on top
            ax.set_xticks(range(len(columns)), columns)
            ax.set_yticks(range(len(rows)), rows)
            ax.set_title(title, loc="left")
            names = {"full ahead": COLORS["full"], "equal": "white", "LoRA ahead": COLORS["lora"]}
            handles = [
                Patch(facecolor=color, edgecolor="black", label=name)
                for name, color in names.items()
            ]
            beside: dict[str, Any] = {
                "loc": "center left",
                "bbox_to_anchor": (1, 0.5),
                "handlelength": 1.2,
            }
            dress(ax, x=x, handles=handles, **beside)
            ax.tick_params(length=0)
            ax.spines[:].set_visible(False)
    over: dict[str, Any] = {
        "transform": ax.transAxes,
        "ha": "right",
        "va": "bottom",
        "fontsize": LARGE,
    }
    ax.text(1, 1.02, note, **over)
    for (row, column), value in values.items():
        top, left = rows.index(row), columns.index(column)
        color = shade(value, limit, ratio=ratio)
        ax.add_patch(
            Rectangle((left - 0.5, top - 0.5), 1, 1, facecolor=color, edgecolor=STILL, zorder=1)
        )
        where: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALL + 2, "zorder": 3}
        ax.text(left, top, written(value, ratio=ratio), color=ink(color), **where)
    top, left = rows.index(here[0]), columns.index(here[1])
    box = Rectangle((left - 0.46, top - 0.44), 0.92, 0.88, fill=False, edgecolor="black", lw=3)
    box.set_zorder(4)
    ax.add_patch(box)


def shade(value: float, limit: float, *, ratio: bool) -> str:
    """A cell's color."""
    if not math.isfinite(value) or (ratio and value <= 0):
        return STILL
    share = math.log(value) / math.log(limit) if ratio else value / limit
    return to_hex(AHEAD((1 + share) / 2))


def written(value: float, *, ratio: bool) -> str:
    """A cell's number: 1.25 or 34, or +0.03."""
    if not math.isfinite(value):
        return "diverged"
    if ratio:
        return f"{value:.2f}" if value < 9.995 else f"{value:.0f}"
    return f"{value:+.2f}" if round(value, 2) else "0.00"
