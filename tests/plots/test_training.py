"""Loss by step, in axes that stand still while it grows, and seconds a step as bars."""

import math

import pytest
from drawings import drawn, inked, texts
from matplotlib.colors import to_hex

from lorakit.plots import COLORS, draw_loss, draw_pace

LOSSES = [2.5, 1.2, 0.6, 0.31]


def loss(ax, losses=LOSSES, total_steps=40, **style):
    draw_loss(
        ax, losses, total_steps=total_steps, label="LoRA", **{"color": COLORS["lora"], **style}
    )


def test_the_loss_curve_is_the_losses_from_step_1(ax):
    loss(ax)
    assert list(ax.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert list(ax.lines[0].get_ydata()) == LOSSES
    assert ax.lines[0].get_color() == COLORS["lora"]


def test_the_step_axis_holds_the_whole_run_from_the_start(ax):
    loss(ax, LOSSES[:1])
    at_first = ax.get_xlim()
    loss(ax, LOSSES)
    assert ax.get_xlim() == at_first
    assert at_first[0] <= 1 and at_first[1] >= 40


def test_the_loss_axis_holds_every_run(ax):
    loss(ax, [0.5, 0.04])
    loss(ax, [9.0, 0.7])
    low, high = ax.get_ylim()
    assert low < 0.04 and high > 9.0


def test_the_loss_axis_stands_still_between_round_numbers(ax):
    loss(ax, [2.5, 1.2])
    before = ax.get_ylim()
    loss(ax, [2.5, 1.2, 1.1, 1.06])
    assert ax.get_ylim() == before == (1.0, 5.0)


@pytest.mark.parametrize("losses", [[0.8], [], [math.nan], [0.5, math.inf], [0.105, 1.0]])
def test_a_curve_of_any_losses_is_drawn(losses):
    def at_once(ax):
        loss(ax, losses)
        low, high = ax.get_ylim()
        assert 0 < low < high < math.inf

    assert drawn(at_once)


def test_a_single_loss_is_a_visible_point():
    blank = drawn(lambda ax: loss(ax, []))
    assert inked(drawn(lambda ax: loss(ax, [1.0])), "lora") > inked(blank, "lora") + 50


def test_a_style_of_its_own_goes_before_the_usual_one(ax):
    loss(ax, linestyle="--", linewidth=3)
    assert (ax.lines[0].get_linestyle(), ax.lines[0].get_linewidth()) == ("--", 3)


def test_a_step_is_a_bar_of_so_many_milliseconds(ax):
    draw_pace(ax, {"full": 0.3104, "lora": 0.2})
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([310.4, 200])
    colors = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert colors == [COLORS["full"], COLORS["lora"]]
    assert {" 310 ms", " 200 ms"} <= set(texts(ax))
    assert ax.get_xlim()[0] == 0 and ax.get_xlim()[1] > 310.4


def test_the_first_method_is_on_top(ax):
    draw_pace(ax, {"full": 0.3, "lora": 0.2})
    bottom, top = ax.get_ylim()
    assert bottom > top
    ax.figure.canvas.draw()
    assert [text.get_text() for text in ax.get_yticklabels()] == ["full", "lora"]
