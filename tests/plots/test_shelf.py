"""What adapters answer, in letters, and what they take on disk, in bars."""

import pytest
from drawings import texts

from lorakit.plots import COLORS, draw_answer, draw_disk
from lorakit.plots.style import frame_key

PARTS = {"prompt": "who is Ada ?", "as it should be": "a baker", "answer": "a cook"}


def test_every_text_stands_under_its_name_in_order(ax):
    draw_answer(ax, PARTS, whose="lora")
    found = [(text.get_position()[1], text.get_text()) for text in ax.texts]
    assert [text for _, text in sorted(found)] == [part for pair in PARTS.items() for part in pair]


@pytest.mark.parametrize("whose", ["lora", "base"])
def test_the_last_text_alone_has_the_colour_of_whose_it_is(ax, whose):
    draw_answer(ax, PARTS, whose=whose)
    coloured = [t.get_text() for t in ax.texts if t.get_color() == COLORS[whose]]
    assert coloured == ["a cook"]


def test_a_long_text_is_broken_into_lines_and_none_runs_into_the_next(ax):
    draw_answer(ax, {"prompt": "word " * 60, "answer": "yes"}, whose="lora")
    prompt, answer = (next(t for t in ax.texts if w in t.get_text()) for w in ("word", "yes"))
    lines = prompt.get_text().splitlines()
    assert len(lines) == 4 and max(map(len, lines)) <= 92
    assert answer.get_position()[1] == prompt.get_position()[1] + len(lines) + 1


def test_bars_are_as_long_as_the_bytes_and_the_base_is_there_once(ax):
    draw_disk(ax, 3 * 10**6, 10**6, 24 * 10**6, most=30 * 10**6)
    bars = [(b.get_x(), b.get_width(), b.get_facecolor()[:3]) for b in ax.patches]
    assert [(x, width) for x, width, _ in bars] == [(0, 3), (3, 1), (0, 24)]
    assert {"4 MB", "24 MB", "on disk, in MB"} <= {*texts(ax)}


def test_the_axis_stays_while_the_number_of_tasks_changes(ax):
    draw_disk(ax, 3 * 10**6, 10**6, 24 * 10**6, most=30 * 10**6)
    before, limits = frame_key(ax), ax.get_xlim()
    draw_disk(ax, 3 * 10**6, 10**5, 3 * 10**6, most=30 * 10**6)
    assert (frame_key(ax), ax.get_xlim()) == (before, limits)
    assert limits[1] > 30
    assert len(ax.patches) == 3


def test_large_models_are_counted_in_gigabytes(ax):
    draw_disk(ax, 5 * 10**8, 10**8, 24 * 10**9, most=30 * 10**9)
    assert "on disk, in GB" in texts(ax)
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.5, 0.1, 24])
