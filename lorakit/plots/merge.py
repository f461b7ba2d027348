"""What merging loses: a dot a layer, by its delta beside its weight, or a bar a dtype."""

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from lorakit.merge_cost import MergeCost
from lorakit.plots.style import COLORS, EDGE, LARGE, SMALL, dress, frame

MARKERS = {"bfloat16": "^", "float16": "s", "float32": "o"}
LOW, HIGH = 1e-8, 5.0  # of the share that is lost
TENTH = 0.1


def draw_merge(
    ax: Axes, costs: Mapping[str, MergeCost], chosen: str, *, sizes: tuple[float, float]
) -> None:
    """The share of each delta that is lost by |delta| / |W|, both on log scales; `costs` by dtype.

    The chosen dtype is in colour, the others grey. `sizes` are the ends of the axis of sizes. What
    has no place on a log scale, a delta of nothing, has no dot.
    """
    with frame(ax, tuple(costs), chosen, sizes) as bare:
        if bare:
            ax.set_xscale("log")
            ax.set_xlim(*sizes)
            ax.set_yscale("log")
            ax.set_ylim(LOW, HIGH)
            for axis in (ax.xaxis, ax.yaxis):
                axis.set_major_locator(LogLocator(numticks=20))
                axis.set_minor_locator(NullLocator())
            ax.axhline(TENTH, color="black", linewidth=1, linestyle="--")
            ax.text(sizes[1], TENTH, "a tenth is lost ", ha="right", va="bottom", fontsize=SMALL)
            handles = [
                Line2D([], [], color=_color(name, chosen), ls="", marker=MARKERS[name], label=name)
                for name in costs
            ]
            dress(
                ax,
                x="|delta| / |W|",
                y="share of the delta lost",
                handles=handles,
                loc="lower left",
                handletextpad=0.2,
            )
    for name in sorted(costs, key=lambda name: name == chosen):  # the chosen one on top
        layers = [cost for cost in costs[name].layers if cost.size > 0 and cost.loss > 0]
        ax.plot(
            [cost.size for cost in layers],
            [cost.loss for cost in layers],
            color=_color(name, chosen),
            linestyle="",
            marker=MARKERS[name],
            markersize=8 if name == chosen else 5,
        )


def draw_merged(ax: Axes, shares: Mapping[str, float], *, x: str) -> None:
    """A bar a dtype, from nothing to all of it."""
    with frame(ax, tuple(shares), x) as bare:
        if bare:
            ax.set_xlim(0, 1.12)
            ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
            ax.set_ylim(len(shares) - 0.5, -0.5)
            ax.set_yticks(range(len(shares)), shares)
            dress(ax, x=x)
    for place, share in enumerate(shares.values()):
        ax.barh(place, share, color=COLORS["lora"], edgecolor=EDGE, height=0.6)
        ax.text(share + 0.01, place, f"{share:.1%}", va="center", fontsize=LARGE)


def _color(name: str, chosen: str) -> str:
    return COLORS["lora" if name == chosen else "base"]
