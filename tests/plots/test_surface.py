"""A map of who is ahead: a number in every cell, the winner's color, one frame."""

import math

import pytest
from drawings import texts
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle

from lorakit.plots import COLORS, draw_surface
from lorakit.plots.style import STILL, frame_key
from lorakit.plots.surface import shade, written

VALUES = {("json", "32"): 1.5, ("json", "128"): 1.0, ("deep", "32"): 0.5, ("deep", "128"): 40.0}


def surface(ax, values=VALUES, here=("deep", "32"), note="rank 8", ratio=True):
    draw_surface(
        ax,
        values,
        rows=["json", "deep"],
        columns=["32", "128"],
        x="training examples",
        title="loss",
        note=note,
        limit=2.0,
        ratio=ratio,
        here=here,
    )


def boxes(ax) -> list[Rectangle]:
    return [patch for patch in ax.patches if isinstance(patch, Rectangle)]


def middle(box: Rectangle) -> tuple[float, float]:
    return tuple(round(float(at), 6) for at in box.get_center())


def test_every_cell_has_its_color_and_its_number_in_its_place(ax):
    surface(ax)
    places = {("json", "32"): (0, 0), ("json", "128"): (1, 0)}
    places |= {("deep", "32"): (0, 1), ("deep", "128"): (1, 1)}
    filled = {middle(box): to_hex(box.get_facecolor()) for box in boxes(ax) if box.get_fill()}
    numbers = {text.get_position(): text.get_text() for text in ax.texts}
    for cell, place in places.items():
        assert filled[place] == shade(VALUES[cell], 2.0, ratio=True)
        assert numbers[place] == written(VALUES[cell], ratio=True)


def test_the_first_row_is_on_top_and_columns_go_to_the_right(ax):
    surface(ax)
    ax.figure.canvas.draw()
    at = {text.get_text(): text.get_window_extent() for text in ax.texts}
    assert at["1.50"].y0 > at["0.50"].y0 and at["1.00"].x0 > at["1.50"].x0
    assert [label.get_text() for label in ax.get_yticklabels()] == ["json", "deep"]


@pytest.mark.parametrize(("here", "place"), [(("json", "128"), (1, 0)), (("deep", "32"), (0, 1))])
def test_one_cell_is_framed(ax, here, place):
    surface(ax, here=here)
    (box,) = [box for box in boxes(ax) if not box.get_fill()]
    assert middle(box) == place


def test_what_is_dressed_stands_still_while_numbers_note_and_frame_move(ax):
    surface(ax)
    before, count = frame_key(ax), len(ax.get_children())
    surface(ax, dict.fromkeys(VALUES, 1.2), here=("json", "32"), note="rank 1")
    assert frame_key(ax) == before
    assert len(ax.get_children()) == count, "what moves is drawn once"
    assert "rank 1" in texts(ax) and "rank 8" not in texts(ax)


@pytest.mark.parametrize("ratio", [True, False])
def test_full_colors_are_full_fine_tunings_and_loras_and_white_is_equal(ratio):
    high, low, even = (2.0, 0.5, 1.0) if ratio else (2.0, -2.0, 0.0)
    assert shade(high, 2.0, ratio=ratio) == COLORS["full"]
    assert shade(low, 2.0, ratio=ratio) == COLORS["lora"]
    assert min(to_rgb(shade(even, 2.0, ratio=ratio))) > 0.99


def test_beyond_the_limit_a_color_stays():
    assert shade(40, 2.0, ratio=True) == shade(2, 2.0, ratio=True)
    assert shade(-3, 2.0, ratio=False) == COLORS["lora"]


def test_twice_as_much_is_as_far_from_white_as_half_as_much():
    def distance(value: float) -> float:
        white, full = to_rgb("white"), COLORS["full" if value > 1 else "lora"]
        color = to_rgb(shade(value, 4.0, ratio=True))
        whole = [a - b for a, b in zip(white, to_rgb(full), strict=True)]
        part = [a - b for a, b in zip(white, color, strict=True)]
        return sum(part) / sum(whole)

    assert distance(2.0) == pytest.approx(distance(0.5), abs=0.02)
    assert distance(2.0) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_grey_and_said(ax, value):
    assert shade(value, 2.0, ratio=True) == STILL
    surface(ax, {("json", "32"): value})
    assert "diverged" in texts(ax)


@pytest.mark.parametrize(
    ("value", "ratio", "words"),
    [
        (1.254, True, "1.25"),
        (34.2, True, "34"),
        (9.999, True, "10"),
        (0.031, False, "+0.03"),
        (-0.2, False, "-0.20"),
        (-0.001, False, "0.00"),
        (0.0, False, "0.00"),
    ],
)
def test_numbers_are_short_and_a_difference_has_its_sign(value, ratio, words):
    assert written(value, ratio=ratio) == words
