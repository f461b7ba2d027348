"""A memory bar is its parts, in order, in a unit that people use."""

from types import SimpleNamespace

import pytest
from drawings import texts
from matplotlib.colors import to_hex

from lorakit.plots import PARTS, draw_memory

RUNS = {
    "full": SimpleNamespace(
        weights=538_000_000, gradients=538_000_000, optimizer=1_076_000_000, activations=10**9
    ),
    "LoRA": SimpleNamespace(
        weights=548_000_000, gradients=9_800_000, optimizer=19_600_000, activations=10**9
    ),
}


def test_a_memory_bar_is_the_sum_of_its_parts_in_order(ax):
    draw_memory(ax, RUNS)
    for bars, (part, color) in zip(ax.containers, PARTS.items(), strict=True):
        megabytes = [getattr(run, part) / 10**6 for run in RUNS.values()]
        assert [bar.get_width() for bar in bars] == pytest.approx(megabytes)
        assert to_hex(bars[0].get_facecolor()) == color
    ends = [bars[0].get_x() + bars[0].get_width() for bars in ax.containers]
    assert ends == [538, 1076, 2152, 3152]
    assert ax.get_xlabel() == "memory in MB"


def test_the_legend_names_each_part_by_its_color(ax):
    draw_memory(ax, RUNS)
    legend = ax.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    colors = [to_hex(patch.get_facecolor()) for patch in legend.get_patches()]
    assert dict(zip(names, colors, strict=True)) == PARTS


def test_the_first_run_is_on_top(ax):
    draw_memory(ax, RUNS)
    bottom, top = ax.get_ylim()
    assert bottom > top
    assert [t.get_text() for t in ax.get_yticklabels()] == ["full", "LoRA"]


def test_a_bar_tells_the_parts_that_have_room(ax):
    draw_memory(ax, RUNS)
    assert {"538", "1,076", "548"} <= set(texts(ax))
    assert not {"9.8", "19.6"} & set(texts(ax))


@pytest.mark.parametrize("weights", range(7 * 10**8, 11 * 10**8, 5 * 10**7))
def test_a_number_is_told_or_left_out_whether_the_axes_are_new_or_not(ax, weights):
    rest = {"gradients": 0, "optimizer": 0, "activations": 9 * 10**9 - weights}
    runs = {"full": SimpleNamespace(weights=weights, **rest)}
    draw_memory(ax, runs)
    at_first = [text.get_text() for text in ax.texts]
    ax.figure.canvas.draw()
    draw_memory(ax, runs)
    assert [text.get_text() for text in ax.texts] == at_first


def test_large_memory_is_told_in_gigabytes(ax):
    parts = {"weights": 32 * 10**9, "gradients": 0, "optimizer": 0, "activations": 10**9}
    draw_memory(ax, {"full": SimpleNamespace(**parts)})
    assert ax.get_xlabel() == "memory in GB"
    assert "32" in texts(ax)


@pytest.mark.parametrize(
    ("chosen", "alphas"), [(None, [1, 1]), ("full", [1, 0.3]), ("LoRA", [0.3, 1])]
)
def test_bars_that_are_not_chosen_are_pale(ax, chosen, alphas):
    draw_memory(ax, RUNS, chosen=chosen)
    assert [[bar.get_alpha() for bar in bars] for bars in ax.containers] == [alphas] * len(PARTS)


@pytest.mark.parametrize("title", ["", "measured in step 4"])
def test_the_title_says_where_the_numbers_are_from(ax, title):
    draw_memory(ax, RUNS, title=title)
    assert ax.get_title() == title
