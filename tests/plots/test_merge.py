"""A dot a layer and a dtype, the chosen one in colour and on top; the axes stand still."""

import pytest
from drawings import texts

from lorakit.merge_cost import LayerCost, MergeCost
from lorakit.plots import COLORS, draw_merge, draw_merged
from lorakit.plots.style import frame_key

SIZES = (1e-4, 1.0)


def cost(dtype: str, *pairs: tuple[float, float]) -> MergeCost:
    """Layers by size and loss."""
    return MergeCost(
        dtype=dtype,
        layers=tuple(
            LayerCost(layer="a", weight=1.0, delta=s, error=s * loss, entries=4, kept=1)
            for s, loss in pairs
        ),
    )


COSTS = {
    "float32": cost("float32", (0.01, 1e-6), (0.02, 5e-7)),
    "float16": cost("float16", (0.01, 0.02), (0.02, 0.01)),
    "bfloat16": cost("bfloat16", (0.01, 0.16), (0.02, 0.08)),
}


def dots(ax) -> dict[str, tuple[list[float], list[float], str]]:
    """By marker: where they are, and their color."""
    lines = [line for line in ax.lines if line.get_linestyle() == "None"]
    return {
        line.get_marker(): (list(line.get_xdata()), list(line.get_ydata()), line.get_color())
        for line in lines
    }


def test_every_layer_is_a_dot_at_its_size_and_its_loss_in_each_dtype(ax):
    draw_merge(ax, COSTS, "bfloat16", sizes=SIZES)
    found = dots(ax)
    assert len(found) == 3
    for marker, name in (("o", "float32"), ("s", "float16"), ("^", "bfloat16")):
        sizes, losses, _ = found[marker]
        assert sizes == [0.01, 0.02]
        assert losses == pytest.approx([c.loss for c in COSTS[name].layers])
    assert ax.get_xscale() == ax.get_yscale() == "log"


@pytest.mark.parametrize(("chosen", "marker"), [("float32", "o"), ("bfloat16", "^")])
def test_the_chosen_dtype_is_in_colour_and_on_top(ax, chosen, marker):
    draw_merge(ax, COSTS, chosen, sizes=SIZES)
    assert {m: color for m, (*_, color) in dots(ax).items()} == {
        m: COLORS["lora" if m == marker else "base"] for m in "os^"
    }
    assert ax.lines[-1].get_marker() == marker
    handles = ax.get_legend().legend_handles
    assert [h.get_color() == COLORS["lora"] for h in handles] == [n == chosen for n in COSTS]


def test_the_dtypes_and_the_tenth_are_named(ax):
    draw_merge(ax, COSTS, "float16", sizes=SIZES)
    assert {"float32", "float16", "bfloat16", "a tenth is lost ", "|delta| / |W|"} <= {*texts(ax)}
    assert list(ax.lines[0].get_ydata()) == [0.1, 0.1]


def test_a_delta_of_nothing_has_no_dot(ax):
    draw_merge(ax, {"float32": cost("float32", (0.0, 0.0), (0.5, 1e-7))}, "float32", sizes=SIZES)
    assert dots(ax)["o"][0] == [0.5]


def test_other_sizes_move_the_dots_and_keep_the_frame(ax):
    draw_merge(ax, COSTS, "bfloat16", sizes=SIZES)
    key = frame_key(ax)
    draw_merge(ax, {**COSTS, "bfloat16": cost("bfloat16", (0.1, 0.02))}, "bfloat16", sizes=SIZES)
    assert frame_key(ax) == key is not None
    assert dots(ax)["^"][0] == [0.1]
    assert ax.get_xlim() == SIZES
    draw_merge(ax, COSTS, "float16", sizes=SIZES)
    assert frame_key(ax) != key


def test_merged_in_each_dtype_a_bar_is_as_long_as_its_share_and_says_it(ax):
    draw_merged(ax, {"float32": 0.0, "bfloat16": 0.286}, x="lost")
    assert [bar.get_width() for bar in ax.patches] == [0.0, 0.286]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["float32", "bfloat16"]
    assert {"0.0%", "28.6%"} <= {*texts(ax)}
