"""Matrices to one scale, and the share that trains on a log axis."""

import pytest
from drawings import drawn, inked, texts

from lorakit.plots import draw_matrices, draw_share

SHAPES = {"q_proj": (40, 40), "k_proj": (20, 40), "up_proj": (96, 40)}


@pytest.mark.parametrize("rank", [1, 8, 64, 100])
def test_the_matrices_are_drawn_to_one_scale(ax, rank):
    draw_matrices(ax, SHAPES, rank, adapted=["q_proj", "up_proj"])
    sizes = [(p.get_height(), p.get_width()) for p in ax.patches]
    assert sizes == [*SHAPES.values(), (40, rank), (rank, 40), (96, rank), (rank, 40)]
    assert ax.get_aspect() == 1


@pytest.mark.parametrize("rank", [1, 64, 100])
def test_b_stands_at_the_left_edge_of_its_w_and_a_on_its_upper_edge(ax, rank):
    draw_matrices(ax, SHAPES, rank, adapted=["k_proj"])
    W, (B, A) = ax.patches[1], ax.patches[3:]
    assert B.get_x() + B.get_width() == W.get_x() and B.get_y() == W.get_y()
    assert A.get_y() == W.get_y() + W.get_height() == 0 and A.get_x() == W.get_x()


@pytest.mark.parametrize("rank", [1, 64, 100])
def test_nothing_overlaps_and_nothing_leaves_the_axes(ax, rank):
    draw_matrices(ax, SHAPES, rank, adapted=SHAPES)
    Ws, Bs = ax.patches[:3], ax.patches[3::2]
    left, right = ax.get_xlim()
    edges = [left]
    for W, B in zip(Ws, Bs, strict=True):
        edges += [B.get_x(), B.get_x() + B.get_width(), W.get_x() + W.get_width()]
    assert [*edges, right] == sorted([*edges, right])
    low, high = ax.get_ylim()
    assert low < -96 and rank < high


def test_the_axes_stand_still_while_the_rank_has_room(ax):
    limits = []
    for rank in (1, 64):
        draw_matrices(ax, SHAPES, rank, adapted=["q_proj"])
        limits.append((ax.get_xlim(), ax.get_ylim()))
    assert limits[0] == limits[1]


def test_the_matrices_tell_their_shapes(ax):
    draw_matrices(ax, SHAPES, 8, adapted=[])
    assert "up_proj\n96\n\N{MULTIPLICATION SIGN} 40" in texts(ax)
    assert {"W, frozen", "B at the left, A on top: trained"} <= set(texts(ax))


def test_the_thinnest_matrix_is_visible():
    def thin(ax, adapted):
        draw_matrices(ax, {"up_proj": (28672, 8192)}, 1, adapted=adapted)

    blank = drawn(lambda ax: thin(ax, []))
    assert inked(drawn(lambda ax: thin(ax, ["up_proj"])), "lora") > inked(blank, "lora") + 200


# The share that trains


def test_the_trained_share_stands_on_a_log_axis_beside_the_1_percent_line(ax):
    draw_share(ax, 2_442_240, 134_515_008)
    line, point = ax.lines
    assert line.get_xdata()[0] == 1
    assert list(point.get_xdata()) == [100 * 2_442_240 / 134_515_008]
    assert ax.get_xscale() == "log"


def test_other_models_shares_stand_beside_it_by_their_names(ax):
    draw_share(ax, 94, 1000, beside={"wide": 1.8, "wider": 0.46})
    _, *others, own = ax.lines
    assert [list(dot.get_xdata()) for dot in others] == [[0.46], [1.8]]
    assert {"wide", "wider", "9.4%"} < set(texts(ax))
    assert others[0].get_color() != own.get_color()


@pytest.mark.parametrize("trainable", [1, 10**9, 2 * 10**9])
def test_any_share_lies_within_the_axis(ax, trainable):
    draw_share(ax, trainable, 10**9)
    low, high = ax.get_xlim()
    assert low < 100 * trainable / 10**9 < high


@pytest.mark.parametrize(("trainable", "share"), [(1000, "100%"), (145, "14%"), (18, "1.8%")])
def test_the_share_that_trains_is_told_in_plain_figures(ax, trainable, share):
    draw_share(ax, trainable, 1000)
    assert share in texts(ax)
