"""The cut: what is kept and what is not, and the points tried so far beside their lines."""

import math

import numpy as np
import pytest
from drawings import drawn, inked, texts

from lorakit.plots import COLORS, draw_cut, draw_scores, figure
from lorakit.plots.style import frame_key

RANKS = (0, 1, 2, 4, 8, 40)


def scores(ax, what="loss", cuts=None, chances=None, whole=0.1, base=3.0, now=2):
    cuts = {2: 0.5, 8: 0.2} if cuts is None else cuts
    chances = {2: 2.5, 8: 2.8} if chances is None else chances
    draw_scores(ax, what, RANKS, cuts, chances, whole=whole, base=base, now=now)


# The spectrum


@pytest.mark.parametrize("cut", [0, 1, 3, 6])
def test_the_first_values_are_kept_and_the_others_grey(ax, spectra, cut):
    draw_cut(ax, spectra, cut=cut)
    middle = [float(np.median(values)) for values in zip(*(s.values for s in spectra), strict=True)]
    index = list(range(1, 7))
    chance, lost, kept, _ = ax.lines
    assert (kept.get_color(), lost.get_color()) == (COLORS["full"], COLORS["base"])
    assert (list(kept.get_xdata()), list(kept.get_ydata())) == (index[:cut], middle[:cut])
    first = max(0, cut - 1)  # the curve has no gap
    assert (list(lost.get_xdata()), list(lost.get_ydata())) == (index[first:], middle[first:])
    assert (chance.get_color(), chance.get_linestyle()) == (COLORS["random"], "--")
    expected = [float(np.median(v)) for v in zip(*(s.random for s in spectra), strict=True)]
    assert list(chance.get_ydata()) == expected


@pytest.mark.parametrize("cut", [0, 1, 3, 6])
def test_the_line_stands_between_the_last_kept_and_the_first_that_is_not(ax, spectra, cut):
    draw_cut(ax, spectra, cut=cut)
    place = ax.lines[-1].get_xdata()[0]
    assert cut < place < cut + 1
    low, high = ax.get_xlim()
    assert low < place < high
    assert f" rank {cut} " in texts(ax)


def test_kept_and_cut_off_and_random_are_named(ax, spectra):
    draw_cut(ax, spectra, cut=2)
    assert {"kept", "cut off", "random: same shape, norm"} <= set(texts(ax))


def test_the_first_value_alone_is_a_visible_point(spectra):
    def without_legend(ax, cut):
        draw_cut(ax, spectra, cut=cut)
        ax.get_legend().remove()

    assert inked(drawn(lambda ax: without_legend(ax, 1)), "full") > 20
    assert inked(drawn(lambda ax: without_legend(ax, 0)), "full") == 0


def test_moving_the_cut_keeps_the_frame(ax, spectra):
    draw_cut(ax, spectra, cut=2)
    key, label = frame_key(ax), ax.xaxis.label
    draw_cut(ax, spectra, cut=5)
    assert frame_key(ax) == key is not None and ax.xaxis.label is label
    assert len(ax.lines) == 4


# Scores


def test_the_ranks_stand_side_by_side_and_the_points_at_theirs(ax):
    scores(ax)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "1", "2", "4", "8", "40"]
    assert list(ax.get_xticks()) == [0, 1, 2, 3, 4, 5]
    points = [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines[2:]]
    assert points == [([2, 4], [2.5, 2.8]), ([2], [2.5]), ([2, 4], [0.5, 0.2]), ([2], [0.5])]
    assert [line.get_color() for line in ax.lines[2:]] == [COLORS["random"]] * 2 + [
        COLORS["full"]
    ] * 2


def test_points_are_joined_in_the_order_of_their_ranks_and_not_of_the_visits(ax):
    scores(ax, cuts={8: 0.2, 1: 0.9, 2: 0.5})
    assert list(ax.lines[4].get_xdata()) == [1, 2, 4]
    assert list(ax.lines[4].get_ydata()) == [0.9, 0.5, 0.2]


def test_fine_tune_and_base_are_lines_across(ax):
    scores(ax)
    whole, base = ax.lines[:2]
    assert (list(whole.get_ydata()), whole.get_color()) == ([0.1, 0.1], COLORS["full"])
    assert (list(base.get_ydata()), base.get_color()) == ([3.0, 3.0], COLORS["base"])
    assert {"cut", "whole", "random", "base"} <= set(texts(ax))


def test_the_rank_of_now_is_larger_and_one_not_tried_has_no_mark(ax):
    scores(ax, now=8)
    assert [list(line.get_xdata()) for line in ax.lines[2:] if line.get_markersize() == 10] == [
        [4],
        [4],
    ]
    scores(ax, now=1)
    assert [line for line in ax.lines[2:] if line.get_markersize() == 10] == []


def test_exact_match_goes_from_0_to_1_and_loss_is_logarithmic_and_holds_all():
    match, loss = (figure(400, 300)[1] for _ in range(2))
    scores(match, "exact match", {2: 0.5}, {2: 0.0}, whole=1.0, base=0.0)
    assert (match.get_yscale(), match.get_ylabel()) == ("linear", "exact match")
    assert match.get_ylim()[0] < 0 and match.get_ylim()[1] > 1  # the points at the ends are whole
    scores(loss, chances={2: 90.0})
    assert (loss.get_yscale(), loss.get_ylabel()) == ("log", "loss (log scale)")
    low, high = loss.get_ylim()
    assert low < 0.1 and high > 90


def test_a_loss_that_is_not_finite_does_not_stretch_the_axis(ax):
    scores(ax, chances={2: math.inf, 8: math.nan})
    assert ax.get_ylim()[1] <= 5


def test_another_point_within_the_limits_keeps_the_frame_and_one_beyond_does_not(ax):
    scores(ax, cuts={2: 0.5})
    key = frame_key(ax)
    scores(ax, cuts={2: 0.5, 4: 0.3})
    assert frame_key(ax) == key is not None
    scores(ax, cuts={2: 0.5, 4: 30.0})
    assert frame_key(ax) != key
    assert ax.get_ylim()[1] > 30
    assert [t.get_text() for t in ax.get_xticklabels()] == [str(rank) for rank in RANKS]


def test_the_words_of_the_legend_find_room_in_a_narrow_picture():
    fig, ax = figure(400, 300)
    scores(ax)
    fig.canvas.draw()
    box = ax.get_legend().get_window_extent()
    assert box.x0 >= 0 and box.x1 <= 400 and box.y1 <= 300
    assert box.y0 >= ax.get_window_extent().y1
    assert box.height < 40  # one row
