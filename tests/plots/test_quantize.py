"""A cell a codebook and block with its number, and 16 lines over the weights."""

import pytest
from drawings import inked, texts

from lorakit.plots import COLORS, draw_errors, draw_levels, figure, png
from lorakit.plots.style import frame_key

ERRORS = {("nf4", 16): 0.08, ("nf4", 64): 0.0925, ("int4", 16): 0.085, ("int4", 64): 0.1}


def errors(ax, found=ERRORS, here=("nf4", 64)):
    draw_errors(ax, found, title="scales in 8 bits", here=here)


def test_every_error_stands_in_its_cell(ax):
    errors(ax)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["nf4", "int4"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["16", "64"]
    places = {text.get_position(): text.get_text() for text in ax.texts}
    assert places == {(0, 0): "8.0%", (1, 0): "9.2%", (0, 1): "8.5%", (1, 1): "10.0%"}
    assert ax.yaxis_inverted() and "scales in 8 bits" in texts(ax)


def test_the_larger_an_error_the_darker_its_cell(ax):
    errors(ax)
    *cells, _ = ax.patches
    light = [sum(cell.get_facecolor()[:3]) for cell in cells]
    order = sorted(range(4), key=lambda place: list(ERRORS.values())[place])
    assert sorted(light, reverse=True) == [light[place] for place in order]


@pytest.mark.parametrize("here", ERRORS)
def test_the_choice_is_framed(ax, here):
    errors(ax, here=here)
    box = ax.patches[-1]
    left, top = box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2
    assert (round(left), round(top)) == ([16, 64].index(here[1]), ["nf4", "int4"].index(here[0]))
    assert not box.get_fill()


def test_errors_of_nothing_are_drawn(ax):
    errors(ax, dict.fromkeys(ERRORS, 0.0))
    assert {text.get_text() for text in ax.texts} == {"0.0%"}


def test_the_choice_moves_within_one_frame(ax):
    errors(ax)
    key = frame_key(ax)
    errors(ax, here=("int4", 16))
    assert frame_key(ax) == key is not None and len(ax.patches) == 5


# Levels


def test_the_bars_fill_minus_1_to_1_and_hold_the_shares(ax):
    draw_levels(ax, [0.1, 0.2, 0.4, 0.2, 0.1], [-1, 0, 1])
    edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches]
    assert edges[0][0] == pytest.approx(-1) and edges[-1][1] == pytest.approx(1)
    assert [bar.get_height() for bar in ax.patches] == [0.1, 0.2, 0.4, 0.2, 0.1]
    low, high = ax.get_ylim()
    assert low == 0 and high > 0.4


def test_a_line_stands_at_every_level_and_is_named(ax):
    draw_levels(ax, [0.5, 0.5], [-1, -0.25, 1])
    (lines,) = ax.collections
    assert [segment[0][0] for segment in lines.get_segments()] == [-1, -0.25, 1]
    assert {"weights", "levels"} <= set(texts(ax))


def test_the_lines_are_in_qloras_color():
    fig, ax = figure(700, 400)
    draw_levels(ax, [0.5, 0.5], [])
    without = inked(png(fig), "qlora")
    draw_levels(ax, [0.5, 0.5], [-0.5, 0.5])
    assert inked(png(fig), "qlora") > without + 200
    assert COLORS["qlora"] != COLORS["lora"]
