"""A model as a map of its tensors, coloured by what training did to each."""

import re
from collections.abc import Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.patches import Patch, Rectangle

from lorakit.changes import Change
from lorakit.plots.style import MAPS, SMALL, STILL, dress, ink

SIZES = (1e-5, 1e-1)  # the colours' ends; a first step of AdamW moves a number by the learning rate
NORMS = {"input_layernorm": "norm 1", "post_attention_layernorm": "norm 2"}
# The parts of an adapted layer, from left to right: where each begins, and how wide it is.
SPLIT = {"W": (0.0, 0.42), "B": (0.44, 0.25), "A": (0.71, 0.25)}


def draw_tensors(ax: Axes, changes: Sequence[Change], *, concept: str) -> None:
    """One tile a tensor: a row a layer, a column a kind of weight; grey where nothing changed."""
    tiles = [(_place(change.name), change) for change in changes]
    columns = list(dict.fromkeys(column for (row, column, _), _ in tiles if row is not None))
    depth = 1 + max(row for (row, _, _), _ in tiles if row is not None)
    colors, norm = _upper(colormaps[MAPS[concept]]), LogNorm(*SIZES, clip=True)
    for (row, column, part), change in tiles:
        if row is None:  # embedding and head stand above the layers, the last norm below them
            x, width, y = 4.0 * (column == "lm_head"), 3.96, depth if column == "norm" else -1
            text = f"{column}, {change.numbers:,} numbers"
        else:
            start, width = SPLIT[part] if part else (0.0, 0.96)
            x, y = columns.index(column) + start, row
            text = part
        shade = STILL if not change.changed else colors(float(norm(change.size)))
        ax.add_patch(Rectangle((x, y + 0.04), width, 0.92, facecolor=shade))
        if text:
            middle = (x + width / 2, y + 0.5)
            ax.text(*middle, text, ha="center", va="center", color=ink(shade), fontsize=SMALL)
    ax.set_xlim(-0.05, len(columns))
    ax.set_ylim(depth + 1, -1)
    ax.set_xticks([i + 0.48 for i in range(len(columns))], columns, rotation=20, ha="right")
    ax.set_yticks([y + 0.5 for y in range(depth)], [f"layer {y}" for y in range(depth)])
    bar = ax.figure.colorbar(ScalarMappable(norm, colors), ax=ax, pad=0.01)
    bar.set_label("mean change of a number", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    unchanged = [Patch(facecolor=STILL, label="not changed at all")]
    dress(ax, x="", handles=unchanged, loc="upper right", bbox_to_anchor=(1, 1.0))
    ax.spines[["left", "bottom"]].set_visible(False)


def _upper(colors):
    """The darker three quarters of a colour map: its lightest would pass for no change."""
    upper = [colors(0.25 + 0.75 * i / 63) for i in range(64)]
    return LinearSegmentedColormap.from_list("upper", upper)


def _place(name: str) -> tuple[int | None, str, str]:
    """model.layers.3.self_attn.q_proj.A -> (3, "q_proj", "A").

    Outside of the layers the row is None. The part is "W", "A" or "B" in an
    adapted layer, and empty otherwise.
    """
    parts = name.split(".")
    part = {"A": "A", "B": "B"}.get(parts[-1], "W" if parts[-2:] == ["base", "weight"] else "")
    column = parts[-3] if part == "W" else parts[-2]
    row = re.search(r"\.layers\.(\d+)\.", name)
    return (int(row[1]) if row else None), NORMS.get(column, column), part
