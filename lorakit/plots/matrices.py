"""How few numbers LoRA trains: the share of a model, and A and B beside each W, to scale."""

from collections.abc import Collection, Mapping

from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from lorakit.plots.curves import mixed
from lorakit.plots.style import COLORS, LARGE, OVER, SMALL, TIMES, dress, frame


def draw_share(
    ax: Axes,
    trainable: int,
    total: int,
    *,
    concept: str = "lora",
    beside: Mapping[str, float] | None = None,
) -> None:
    """The share of a model's parameters that train, on a log scale, beside the 1% line.

    `beside` are other models' shares in percent, by name.
    """
    percent = 100 * trainable / total
    low = next(low for low in (1e-3, 1e-4, 1e-6, 1e-12) if low <= percent / 1.5)
    high = next(high for high in (200, 2e3, 2e4, 2e12) if high >= percent * 1.5)
    with frame(ax, low, high, bool(beside)) as bare:
        if bare:
            ax.axvline(1, color="black", linewidth=1.5, linestyle="--")
            ax.text(1, 0.8, " 1%", fontsize=SMALL)
            ax.set_xscale("log")
            ax.set_xlim(low, high)
            ax.set_ylim(-1.8 if beside else -1, 1.6)
            ax.xaxis.set_major_formatter("{x:g}%")
            ax.set_yticks([])
            dress(ax, x="share of the parameters that train (log scale)")
            ax.spines["left"].set_visible(False)
    for place, (name, other) in enumerate(sorted((beside or {}).items(), key=lambda pair: pair[1])):
        ax.plot([other], [0], "o", color=mixed(COLORS[concept], "white", 0.5), markersize=9)
        lower = -19 if place % 2 else -7  # by turns, to have room
        ax.annotate(name, (other, 0), (0, lower), textcoords="offset points", fontsize=SMALL,
                    ha="center", va="top", bbox=OVER)  # fmt: skip
    ax.plot([percent], [0], "o", color=COLORS[concept], markersize=16)
    share = f"{percent:.2g}%" if percent < 10 else f"{percent:.0f}%"
    ax.text(percent, 0.5, share, ha="center", fontsize=LARGE, weight="bold")


def draw_matrices(
    ax: Axes,
    shapes: Mapping[str, tuple[int, int]],
    rank: int,
    *,
    adapted: Collection[str],
    widest: int = 64,
) -> None:
    """Each W (out, in) of a layer, with B at its left and A on top where it is adapted, to scale.

    The area of W is what full fine-tuning trains there, its two blue edges are what LoRA trains.
    `widest` is the largest rank that has room.
    """
    longest = max(max(shape) for shape in shapes.values())
    gap = max(0.2 * longest, 1.1 * max(widest, rank))
    width = sum(width + gap for _, width in shapes.values())
    top = max(widest, rank) + 0.05 * longest
    with frame(ax, tuple(shapes.items()), max(widest, rank), gap) as bare:
        if bare:
            x = gap
            for name, (height, wide) in shapes.items():
                ax.add_patch(Rectangle((x, -height), wide, height, color=COLORS["base"]))
                label = f"{name}\n{height}\n{TIMES} {wide}"
                ax.text(x + wide / 2, -longest * 1.03, label, ha="center", va="top", fontsize=SMALL)
                x += wide + gap
            ax.set_xlim(0, width + gap)
            ax.set_ylim(-1.4 * longest, top)
            ax.set_aspect("equal")
            ax.axis("off")
            ax.legend(
                handles=[
                    Patch(color=COLORS["base"], label="W, frozen"),
                    Patch(color=COLORS["lora"], label="B at the left, A on top: trained"),
                ],
                loc="lower center",
                bbox_to_anchor=(0.5, 1.0),
                ncols=2,
                frameon=False,
                fontsize=SMALL,
            )
    x = gap
    for name, (height, wide) in shapes.items():
        if name in adapted:
            # The edge is a point and more at any scale: the thinnest matrix is drawn too.
            B = Rectangle((x - rank, -height), rank, height)
            A = Rectangle((x, 0), wide, rank)
            for factor in (B, A):
                factor.set(color=COLORS["lora"], linewidth=1.5)
                ax.add_patch(factor)
        x += wide + gap
