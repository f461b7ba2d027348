"""The evidence of a claim: means and their spread over seeds, along numbers or along words."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from lorakit.plots.curves import MARKERS, shades
from lorakit.plots.style import COLORS, SMALL, dress, log_limits, log_y

SHADES = ("#117733", "#882255", "#8c8c1a", "#2a8f80")  # of what has no color of its own in the lab
NAMED = {"random": COLORS["random"], "full": COLORS["full"]}


def draw_claim(ax: Axes, curves: Mapping[str, Any]) -> None:
    """`curves` has x, y, log (of x, of y) and lines: by name, points (x, middle, lowest, highest).

    Where x are words the points stand in their order, not joined: nothing lies between them.
    """
    lines = curves["lines"]
    names = list(dict.fromkeys(p[0] for points in lines.values() for p in points))
    words = any(isinstance(name, str) for name in names)
    free = iter(SHADES)
    ranks = [label for label in lines if label.startswith("rank ")] or ["lora"]
    named = NAMED | dict(zip(ranks, shades("lora", len(ranks)), strict=True))
    for number, (label, points) in enumerate(lines.items()):
        color = named.get(label) or next(free)
        shift = 0.12 * (number - (len(lines) - 1) / 2) if words else 0
        x = [names.index(p[0]) + shift if words else p[0] for p in points]
        y = [p[1] for p in points]
        errors = [[p[1] - p[2] for p in points], [p[3] - p[1] for p in points]]
        style: dict[str, Any] = {
            "color": color,
            "marker": MARKERS[number],
            "markersize": 8,
            "label": label,
        }
        joined = "" if words else "--" if label == "random" else "-"
        ax.errorbar(x, y, yerr=errors, linestyle=joined, linewidth=2, capsize=4, **style)
    if curves["log"][0] and not words:
        ax.set_xscale("log", base=2)
        ticks = sorted(names)[:: 1 + len(names) // 8]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
    if curves["log"][1]:
        ends = [end for points in lines.values() for p in points for end in p[2:]]
        log_y(ax, *log_limits(ends))
    if words:
        ax.set_xticks(range(len(names)), names, rotation=20 if len(names) > 5 else 0)
        ax.set_xlim(-0.6, len(names) - 0.4)
    ax.grid(axis="y", color="#e8e8e8")
    ax.set_axisbelow(True)
    columns = len(lines) if len(lines) < 4 else 2
    above = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": columns}
    dress(ax, x=curves["x"], y=curves["y"], **above)
    ax.tick_params(labelsize=SMALL)
