"""Means and their spread along an axis of numbers or of words, one's own runs as stars."""

import math

import pytest
from drawings import drawn, texts

from lorakit.plots import COLORS, draw_spread
from lorakit.plots.style import frame_key

LINES = {
    "full": {8: [0.2, 0.3, 0.7], 16: [0.1, 0.1, 0.4]},
    "rank 8": {8: [0.5, 0.9], 64: [0.25, 0.35]},
}
STYLES = {"full": {"color": COLORS["full"], "linestyle": "--"}, "rank 8": {"color": "#0072b2"}}


def spread(ax, lines=LINES, **found):
    found = {"y": "loss", "places": [8, 16, 64], "bounds": (0.05, 1.0)} | found
    draw_spread(ax, lines, styles=STYLES, x="batch size", **found)


def drawn_lines(ax, marker: str, color: str | None = None) -> list[tuple[list, list]]:
    """The points of every line with that marker."""
    return [
        (list(line.get_xdata()), list(line.get_ydata()))
        for line in ax.lines
        if line.get_marker() == marker and color in (None, line.get_color())
    ]


def seen(values: list[float]) -> list[float]:
    return [value for value in values if not math.isnan(value)]


def test_a_point_is_the_mean_of_its_seeds_where_it_belongs(ax):
    spread(ax)
    assert drawn_lines(ax, "o", COLORS["full"]) == [([8, 16], pytest.approx([0.4, 0.2]))]
    assert drawn_lines(ax, "o", "#0072b2") == [([8, 64], pytest.approx([0.7, 0.3]))]


def test_a_bar_goes_from_the_lowest_seed_to_the_highest(ax):
    spread(ax)
    (x, y), _ = drawn_lines(ax, "_")
    assert (x[:2], y[:2], x[3:5], y[3:5]) == ([8, 8], [0.2, 0.7], [16, 16], [0.1, 0.4])
    assert math.isnan(y[2]) and math.isnan(y[5]), "nothing joins two bars"


def test_the_chosen_line_is_thick_with_its_seeds_and_a_ring(ax):
    spread(ax, bold="full", here=16)
    widths = {line.get_color(): line.get_linewidth() for line in ax.lines[-6:]}
    assert widths[COLORS["full"]] > widths["#0072b2"]
    seeds = [line for line in ax.lines if line.get_color() == "black"]
    assert sorted(seeds[0].get_ydata()) == sorted([0.2, 0.3, 0.7, 0.1, 0.1, 0.4])
    (ring,) = [line for line in ax.lines if line.get_markersize() == 20]
    assert (list(ring.get_xdata()), list(ring.get_ydata())) == ([16], pytest.approx([0.2]))


def test_ones_own_runs_are_stars_on_their_line_and_only_where_they_are(ax):
    spread(ax, own={"rank 8": {64: [0.6, 0.8]}})
    assert [points for points in drawn_lines(ax, "*") if points[0]] == [([64, 64], [0.6, 0.8])]
    (line,) = [line for line in ax.lines if line.get_marker() == "*" and len(line.get_xdata())]
    assert line.get_markerfacecolor() == COLORS["own"]
    assert "yours" in texts(ax)


def test_lines_at_one_place_stand_a_few_pixels_apart(ax):
    spread(ax)
    ax.figure.canvas.draw()
    at = [
        line.get_transform().transform((8, 0.5)) - ax.transData.transform((8, 0.5))
        for line in ax.lines
        if line.get_marker() == "o"
    ]
    assert [tuple(shift.round(1)) for shift in at] == [(-2.8, 0), (2.8, 0)]


def test_a_level_goes_across_at_the_mean(ax):
    spread(ax, {"full": {8: [0.2, 0.4]}}, levels=["full"])
    (x, y), *_ = drawn_lines(ax, "")
    assert (x, y) == ([0, 1], pytest.approx([0.3, 0.3]))


def test_words_stand_in_their_order(ax):
    spread(ax, {"full": {"q": [0.2], "all": [0.1]}}, places=["all", "q, v", "q"])
    assert drawn_lines(ax, "o") == [([2, 0], [0.2, 0.1])]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["all", "q, v", "q"]


def test_numbers_have_their_own_ticks_unless_they_stand_close(ax):
    spread(ax)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["8", "16", "64"]
    spread(ax, places=[8, 10, 64])
    assert list(ax.get_xticks()) != [8, 10, 64]


@pytest.mark.parametrize(("y", "scale"), [("exact match", "linear"), ("loss", "log")])
def test_losses_are_on_a_log_axis_and_matches_are_not(ax, y, scale):
    spread(ax, y=y)
    assert ax.get_yscale() == scale
    assert ax.get_ylim() == (0.05, 1.0)
    assert ("(log scale)" in ax.get_ylabel()) == (scale == "log")


def test_the_frame_stands_still_while_lines_ring_and_stars_move(ax):
    spread(ax, bold="full", here=8)
    before, count = frame_key(ax), len(ax.get_children())
    spread(ax, {name: {8: [0.3]} for name in LINES}, bold="rank 8", here=8)
    assert (frame_key(ax), len(ax.get_children())) == (before, count)
    spread(ax, bounds=(0.01, 1.0))
    assert frame_key(ax) != before


@pytest.mark.parametrize("values", [[math.inf], [0.2, math.inf], [math.nan, 0.2], [math.inf] * 3])
@pytest.mark.parametrize("y", ["loss", "exact match"])
def test_what_is_not_finite_is_left_off_and_nothing_crashes(values, y):
    def at_once(ax):
        spread(ax, {"full": {8: values, 16: [0.3]}}, y=y, bold="full", here=8, levels=["full"])
        (_, means), *_ = drawn_lines(ax, "o", COLORS["full"])
        assert seen(means) == [0.3]

    assert drawn(at_once)


@pytest.mark.parametrize("lines", [{}, {"full": {}}])
def test_nothing_at_all_is_drawn_as_empty_axes(lines):
    assert drawn(lambda ax: spread(ax, lines, here=8))
