"""What a file is made of: a bar for each of its parts, in bytes."""

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from lorakit.plots.style import COLORS, EDGE, SMALL, dress, frame, unit

PALE = 0.45  # how much of a colour A has, to be told from B


def draw_adapter_file(ax: Axes, found: Any) -> None:
    """A bar a target module, of its A and its B; then what is beside them, and the header.

    `found` has bytes: `header`, and `A`, `B` and `beside` by name. Each bar's end tells its bytes.
    """
    rows, modules = [*found.A, *found.beside, "header"], range(len(found.A))
    totals = [found.A[row] + found.B[row] for row in found.A]
    totals += [*found.beside.values(), found.header]
    scale, unit_name = unit(max(totals))
    # The same for two ranks in a row, most often: then one sees the bars double.
    limit = 4 ** math.ceil(math.log(1.3 * max(totals) / scale, 4))
    with frame(ax, tuple(rows), scale, limit) as bare:
        if bare:
            ax.set_xlim(0, limit)
            ax.set_ylim(len(rows) - 0.4, -0.6)
            ax.set_yticks(range(len(rows)), rows)
            handles = [
                Patch(facecolor=COLORS["lora"], alpha=PALE, label="A"),
                Patch(facecolor=COLORS["lora"], label="B"),
                Patch(facecolor=COLORS["base"], label="no adapter"),
            ]
            place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": 3}
            dress(ax, x=unit_name, handles=handles, **place)
    A, B = ([part[name] / scale for name in found.A] for part in (found.A, found.B))
    ax.barh(modules, A, color=COLORS["lora"], alpha=PALE, edgecolor=EDGE)
    ax.barh(modules, B, left=A, color=COLORS["lora"], edgecolor=EDGE)
    others = [total / scale for total in totals[len(modules) :]]
    ax.barh(range(len(modules), len(rows)), others, color=COLORS["base"], edgecolor=EDGE)
    for row, total in enumerate(totals):
        text = f"{total:,} bytes"
        ax.text(total / scale + 0.01 * limit, row, text, va="center", fontsize=SMALL)
