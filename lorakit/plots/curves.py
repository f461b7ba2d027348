"""Several runs in one picture: curves by step that grow in still axes, and their ends by rank."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from lorakit.plots.style import COLORS, dress, frame, log_limits, log_y, score_y

Style = Mapping[str, Any]  # of a line, in matplotlib's words


MARKERS = ("o", "s", "^", "D", "v", "P")  # what a curve ends with


def mixed(color: str, other: str, share: float) -> str:
    """`color`, with so large a `share` of `other`, from 0 to 1."""
    pairs = zip(to_rgb(color), to_rgb(other), strict=True)
    red, green, blue = (a + share * (b - a) for a, b in pairs)
    return to_hex((red, green, blue))


def shades(concept: str, count: int) -> list[str]:
    """So many shades of an idea's color, from light to dark; a single one is the color itself.

    The lightest can still be seen on white.
    """
    places = [2 * place / (count - 1) - 1 for place in range(count)] if count > 1 else [0.0]
    return [
        mixed(COLORS[concept], *(("white", -0.25 * place) if place < 0 else ("black", 0.8 * place)))
        for place in places
    ]


def draw_curves(
    ax: Axes,
    curves: Mapping[str, Sequence[float]],
    *,
    styles: Mapping[str, Style],
    total_steps: int,
    y: str,
) -> None:
    """A curve a name, step by step from 1, on a log axis; names and styles stand beside it.

    Where it is now a curve has its marker. The step axis holds all of `total_steps`, and the other
    moves in jumps of 1, 2, 5; what is not finite leaves a gap.
    """
    low, high = log_limits([value for values in curves.values() for value in values], decades=9)
    look: dict[str, dict[str, Any]] = {
        name: {"linewidth": 2, "marker": "o", "markersize": 6, **styles[name]} for name in curves
    }
    key = tuple((name, *sorted(style.items())) for name, style in look.items())
    with frame(ax, key, total_steps, y, low, high) as bare:
        if bare:
            ax.set_xlim(0, 1.02 * total_steps)
            ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
            log_y(ax, low, high)
            handles = [Line2D([], [], label=name, **style) for name, style in look.items()]
            dress(ax, x="step", y=f"{y} (log scale)", **_beside(handles))
    for name, values in curves.items():
        last = [-1] if len(values) else None
        ax.plot(range(1, len(values) + 1), values, markevery=last, **look[name])


def draw_by_rank(
    ax: Axes,
    what: str,
    ranks: Sequence[int],
    values: Mapping[int, float],
    *,
    full: float | None = None,
) -> None:
    """`what` ("exact match", "loss") by rank, a point each, and full fine-tuning's as a line.

    `ranks` are all there are, side by side; those that `values` lacks have no point.
    """
    known = [*values.values(), *([] if full is None else [full])]
    low, high = (-0.04, 1.04) if what == "exact match" else log_limits(known, decades=9)
    dashed: dict[str, Any] = {"color": COLORS["full"], "linewidth": 2, "linestyle": (0, (4, 3))}
    with frame(ax, what, tuple(ranks), full is None, low, high) as bare:
        if bare:
            ax.set_xlim(-0.5, len(ranks) - 0.5)
            ax.set_xticks(range(len(ranks)), [str(rank) for rank in ranks])
            label = score_y(ax, what, low, high)
            handles = [Line2D([], [], color=COLORS["lora"], lw=2, marker="o", label="LoRA")]
            if full is not None:
                handles.append(Line2D([], [], label="full", **dashed))
            dress(ax, x="rank", y=label, **_above(handles))
    places = [
        place for place, rank in enumerate(ranks) if math.isfinite(values.get(rank, math.nan))
    ]
    found = [values[ranks[place]] for place in places]
    ax.plot(places, found, color=COLORS["lora"], linewidth=2, marker="o", markersize=7)
    if full is not None:
        ax.axhline(full, **dashed)


def _beside(handles: Sequence[Line2D]) -> dict[str, Any]:
    """For `dress`: a legend to the right of the axes, where no curve is."""
    place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
    return {"handles": handles, **place, "handlelength": 1.6, "handletextpad": 0.5}


def _above(handles: Sequence[Line2D]) -> dict[str, Any]:
    """For `dress`: a legend in one row above the axes."""
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    return {"handles": handles, **place, "ncols": len(handles), "handlelength": 1.6}
