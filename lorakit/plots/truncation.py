"""A delta cut at a rank: which singular values stay, and what is left of what was learnt."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from lorakit.plots.spectrum import medians
from lorakit.plots.style import COLORS, SMALL, dress, frame, log_limits, log_y, score_y
from lorakit.spectrum import Spectrum


def draw_cut(ax: Axes, spectra: Sequence[Spectrum], *, cut: int) -> None:
    """Singular values, medians over layers: the first `cut` kept, the others grey, chance dashed.

    Chance is what random matrices of the same shapes and norms have.
    """
    values = medians([s.values for s in spectra])
    chance = medians([s.random for s in spectra])
    low, high = log_limits([*values, *chance], decades=4)
    with frame(ax, len(values), low, high) as bare:
        if bare:
            ax.set_xscale("log", base=2)
            ax.set_xlim(0.7, 1.15 * len(values))
            ax.xaxis.set_major_locator(LogLocator(base=2, numticks=20))
            ax.xaxis.set_major_formatter("{x:g}")
            log_y(ax, low, high)
            random = "random: same shape, norm"
            handles = [
                Line2D([], [], color=COLORS["full"], lw=3, marker="o", label="kept"),
                Line2D([], [], color=COLORS["base"], lw=3, label="cut off"),
                Line2D([], [], color=COLORS["random"], lw=1.5, ls="--", label=random),
            ]
            dress(ax, x="index, largest first", y="singular value (log scale)", **_above(handles))
    index = range(1, len(values) + 1)
    ax.plot(index, chance, color=COLORS["random"], linewidth=1.5, linestyle="--")
    # From the last that is kept on, so that the curve has no gap.
    lost = max(0, cut - 1)
    ax.plot(index[lost:], values[lost:], color=COLORS["base"], linewidth=3)
    ax.plot(index[:cut], values[:cut], color=COLORS["full"], linewidth=3, marker="o", markersize=5)
    place = math.sqrt(cut * (cut + 1)) if cut else 0.8
    ax.axvline(place, color="black", linewidth=1)
    side = "right" if cut > len(values) / 4 else "left"
    ax.text(place, low * 1.1, f" rank {cut} ", va="bottom", ha=side, fontsize=SMALL)


def draw_scores(
    ax: Axes,
    what: str,
    ranks: Sequence[int],
    cuts: Mapping[int, float],
    chances: Mapping[int, float],
    *,
    whole: float,
    base: float,
    now: int,
) -> None:
    """`what` ("exact match", "loss") by rank: the ranks tried so far, of the delta and of chance.

    `ranks` are all there are, side by side; `whole` and `base` are lines. The rank `now` is larger.
    """
    places = {rank: place for place, rank in enumerate(ranks)}
    values = [whole, base, *cuts.values(), *chances.values()]
    low, high = (-0.04, 1.04) if what == "exact match" else log_limits(values)
    with frame(ax, what, tuple(ranks), whole, base, low, high) as bare:
        if bare:
            ax.set_xlim(-0.4, len(ranks) - 0.6)
            ax.set_xticks(range(len(ranks)), [str(rank) for rank in ranks])
            label = score_y(ax, what, low, high)
            ax.axhline(whole, color=COLORS["full"], linewidth=1.5, linestyle=":")
            ax.axhline(base, color=COLORS["base"], linewidth=1.5)
            handles = [
                Line2D([], [], color=COLORS["full"], lw=2, marker="o", label="cut"),
                Line2D([], [], color=COLORS["full"], lw=1.5, ls=":", label="whole"),
                Line2D([], [], color=COLORS["random"], lw=1.5, ls="--", marker="s", label="random"),
                Line2D([], [], color=COLORS["base"], lw=1.5, label="base"),
            ]
            dress(ax, x="rank", y=label, **_above(handles))
    for found, color, style, marker in (
        (chances, COLORS["random"], "--", "s"),
        (cuts, COLORS["full"], "-", "o"),
    ):
        tried = sorted(found)
        x, y = [places[rank] for rank in tried], [found[rank] for rank in tried]
        ax.plot(x, y, color=color, linewidth=1.5, linestyle=style, marker=marker, markersize=5)
        if now in found:
            ax.plot([places[now]], [found[now]], color=color, marker=marker, markersize=10)


def _above(handles: Sequence[Line2D]) -> dict[str, Any]:
    """For `dress`: a legend in one row above the axes, where no curve is."""
    return {
        "handles": handles,
        "loc": "lower center",
        "bbox_to_anchor": (0.45, 1.0),
        "ncols": len(handles),
        "handlelength": 1.5,
        "handletextpad": 0.4,
        "columnspacing": 1.0,
    }
