"""Curves of several runs in axes that stand still, shades that differ, and their ends by rank."""

import math
from itertools import pairwise

import pytest
from drawings import drawn, texts
from matplotlib.colors import to_hex, to_rgb

from lorakit.plots import COLORS, draw_by_rank, draw_curves
from lorakit.plots.curves import MARKERS, mixed, shades
from lorakit.plots.style import frame_key

CURVES = {"full": [2.5, 1.2, 0.6], "rank 8": [2.5, 1.6, 0.9]}
STYLES = {"full": {"color": COLORS["full"], "linewidth": 3}, "rank 8": {"color": COLORS["lora"]}}
RANKS = (1, 2, 4, 8)


def curves(ax, found=CURVES, styles=STYLES, total_steps=40):
    draw_curves(ax, found, styles=styles, total_steps=total_steps, y="loss")


def test_a_curve_is_its_numbers_from_step_1_in_its_style(ax):
    curves(ax)
    for line, (name, values) in zip(ax.lines, CURVES.items(), strict=True):
        assert list(line.get_xdata()) == [1, 2, 3]
        assert list(line.get_ydata()) == values
        assert line.get_color() == STYLES[name]["color"]
    assert [line.get_linewidth() for line in ax.lines] == [3, 2]


def test_the_axes_stand_still_while_curves_grow(ax):
    curves(ax, {"full": [2.5], "rank 8": [2.4, 1.7]})
    before, limits = frame_key(ax), (ax.get_xlim(), ax.get_ylim())
    curves(ax, {"full": [2.5, 1.4], "rank 8": [2.4, 1.7, 1.2]})
    assert frame_key(ax) == before
    assert (ax.get_xlim(), ax.get_ylim()) == limits
    assert ax.get_xlim()[1] >= 40
    assert len(ax.lines) == 2, "what moves is drawn once"


def test_axes_hold_every_curve(ax):
    curves(ax, {"full": [9.0, 0.7], "rank 8": [0.5, 0.04]})
    low, high = ax.get_ylim()
    assert low < 0.04 and high > 9.0


@pytest.mark.parametrize("what", ["names", "styles", "steps"])
def test_what_stands_beside_or_below_is_dressed_anew_when_it_changes(ax, what):
    curves(ax)
    before = frame_key(ax)
    other = {"full": CURVES["full"], "rank 2": CURVES["rank 8"]}
    dashed = STYLES | {"full": {"color": "black", "linestyle": "--"}}
    if what == "names":
        curves(ax, other, {"full": STYLES["full"], "rank 2": STYLES["rank 8"]})
        assert "rank 2" in texts(ax) and "rank 8" not in texts(ax)
    elif what == "styles":
        curves(ax, styles=dashed)
        assert to_hex(ax.get_legend().get_lines()[0].get_color()) == "#000000"
    else:
        curves(ax, total_steps=80)
        assert ax.get_xlim()[1] >= 80
    assert frame_key(ax) != before


def test_names_stand_beside_the_axes_in_their_order_and_on_no_curve(ax):
    curves(ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(CURVES)
    ax.figure.canvas.draw()
    beside, axes = ax.get_legend().get_window_extent(), ax.get_window_extent()
    assert beside.x0 >= axes.x1 and beside.x1 <= ax.figure.bbox.x1


def test_a_curve_has_its_marker_where_it_is_now(ax):
    curves(ax)
    assert all(line.get_marker() == "o" and line.get_markevery() == [-1] for line in ax.lines)


@pytest.mark.parametrize(
    "values", [[], [0.8], [math.nan], [0.5, math.inf], [1.0, math.nan, 2.0], [0.0, 0.1]]
)
def test_curves_of_any_numbers_are_drawn(values):
    def at_once(ax):
        curves(ax, {"full": values, "rank 8": []})
        low, high = ax.get_ylim()
        assert 0 < low < high < math.inf

    assert drawn(at_once)


@pytest.mark.parametrize("count", [1, 2, 6, 9])
def test_shades_go_from_light_to_dark_and_differ(count):
    found = shades("lora", count)
    assert len(found) == count
    greys = [sum(to_rgb(color)) / 3 for color in found]
    assert all(lighter - darker > 0.3 / count for lighter, darker in pairwise(greys))
    assert max(greys) < 0.6, "on white it can be seen"


def test_a_single_shade_is_the_color_itself():
    assert shades("lora", 1) == [COLORS["lora"]]
    assert shades("full", 3)[1] == COLORS["full"]


def test_there_are_as_many_markers_as_ranks_of_a_race():
    assert len(set(MARKERS)) == 6


@pytest.mark.parametrize(("share", "color"), [(0, "#0072b2"), (1, "#ffffff"), (0.5, "#80b9d8")])
def test_a_color_mixes_with_another(share, color):
    assert mixed("#0072b2", "white", share) == color


# By rank


def by_rank(ax, what="loss", values=None, full=0.1):
    values = {1: 0.9, 2: 0.4, 8: 0.2} if values is None else values
    draw_by_rank(ax, what, RANKS, values, full=full)


def test_a_rank_is_a_point_in_its_place_and_full_a_line(ax):
    by_rank(ax)
    points, line = ax.lines
    assert list(points.get_xdata()) == [0, 1, 3]
    assert list(points.get_ydata()) == [0.9, 0.4, 0.2]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2", "4", "8"]
    assert list(line.get_ydata()) == [0.1, 0.1]
    assert (points.get_color(), line.get_color()) == (COLORS["lora"], COLORS["full"])


def test_full_is_seen_also_where_every_rank_has_the_same(ax):
    by_rank(ax, "exact match", dict.fromkeys(RANKS, 1.0), full=1.0)
    points, line = ax.lines
    assert ax.lines.index(line) > ax.lines.index(points) and line.is_dashed()


def test_without_full_fine_tuning_there_is_no_line_of_it(ax):
    by_rank(ax, full=None)
    assert len(ax.lines) == 1
    assert "full" not in texts(ax) and "LoRA" in texts(ax)


def test_exact_match_is_drawn_from_none_to_all(ax):
    by_rank(ax, "exact match", {1: 0.5}, full=0.6)
    low, high = ax.get_ylim()
    assert low < 0 and high > 1 and high - low < 1.2


def test_the_loss_axis_holds_every_rank_and_full(ax):
    by_rank(ax, values={1: 7.0}, full=0.02)
    low, high = ax.get_ylim()
    assert low < 0.02 and high > 7


@pytest.mark.parametrize("values", [{}, {1: math.nan}, {1: math.inf, 4: 0.5}])
@pytest.mark.parametrize("full", [None, math.nan, 0.3])
def test_any_numbers_are_drawn_and_only_finite_ones_as_points(values, full):
    def at_once(ax):
        by_rank(ax, values=values, full=full)
        found = list(ax.lines[0].get_ydata())
        assert found == [value for value in values.values() if math.isfinite(value)]

    assert drawn(at_once)
