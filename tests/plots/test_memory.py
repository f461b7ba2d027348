"""A memory bar is its parts, in order, in a unit that people use."""

from types import SimpleNamespace

import pytest
from drawings import texts
from matplotlib.colors import to_hex

from lorakit.memory import MemoryBreakdown
from lorakit.plots import PARTS, draw_memory, figure
from lorakit.plots.memory import CRASH
from lorakit.plots.style import frame_key, moving

RUNS = {
    "full": SimpleNamespace(
        weights=538_000_000, gradients=538_000_000, optimizer=1_076_000_000, activations=10**9
    ),
    "LoRA": SimpleNamespace(
        weights=548_000_000, gradients=9_800_000, optimizer=19_600_000, activations=10**9
    ),
}

FOUR = dict(list(PARTS.items())[:4])  # those of `RUNS`


def test_a_memory_bar_is_the_sum_of_its_parts_in_order(ax):
    draw_memory(ax, RUNS)
    for bars, (part, color) in zip(ax.containers, FOUR.items(), strict=True):
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
    assert dict(zip(names, colors, strict=True)) == FOUR


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_drawn_and_named_if_a_run_has_it(ax, part):
    runs = {"full": MemoryBreakdown(weights=5 * 10**8), "LoRA": MemoryBreakdown(**{part: 10**8})}
    draw_memory(ax, runs)
    there = [name for name in PARTS if name in ("weights", part)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == there
    assert [to_hex(bars[1].get_facecolor()) for bars in ax.containers] == [PARTS[p] for p in there]


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
    assert [[bar.get_alpha() for bar in bars] for bars in ax.containers] == [alphas] * len(FOUR)


@pytest.mark.parametrize("title", ["", "measured in step 4"])
def test_the_title_says_where_the_numbers_are_from(ax, title):
    draw_memory(ax, RUNS, title=title)
    assert ax.get_title() == title


# Totals and a budget

PEAKS = {
    "full, estimated": MemoryBreakdown(
        weights=16 * 10**9, gradients=16 * 10**9, optimizer=32 * 10**9, temporaries=16 * 10**9
    ),
    "full, measured": MemoryBreakdown(weights=16 * 10**9, optimizer=64 * 10**9),
    "LoRA, estimated": MemoryBreakdown(weights=16 * 10**9, activations=4 * 10**9, overhead=10**9),
    "LoRA, measured": MemoryBreakdown(weights=16 * 10**9, activations=5 * 10**9),
}
GB = 10**9


def marks(ax) -> list[tuple[float, float]]:
    """Where the marks of a crash stand."""
    places = [line.get_xydata()[0].tolist() for line in ax.lines if line.get_marker() == "X"]
    assert [text.get_text() for text in ax.texts].count(CRASH) == len(places)
    return [tuple(place) for place in places]


def lines(ax) -> list[float]:
    return [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]


def test_totals_stand_behind_the_ends_of_their_bars(ax):
    draw_memory(ax, PEAKS, totals=True)
    found = [text for text in ax.texts if text.get_text().endswith("GB")]
    assert [text.get_text() for text in found] == ["80 GB", "80 GB", "21 GB", "21 GB"]
    assert [text.get_position()[1] for text in found] == [0, 1, 2, 3]
    ends = [80, 80, 21, 21]
    assert all(text.get_position()[0] > end for text, end in zip(found, ends, strict=True))


def test_unasked_there_are_no_totals_and_no_budget(ax):
    draw_memory(ax, PEAKS)
    assert not [text for text in texts(ax) if "GB" in text and "memory" not in text]
    assert lines(ax) == marks(ax) == []


@pytest.mark.parametrize(
    ("budget", "label"), [(24 * GB, "budget 24 GB"), (GB // 2, "budget 500 MB")]
)
def test_a_budget_is_a_line_with_its_bytes_in_words(ax, budget, label):
    draw_memory(ax, PEAKS, budget=budget)
    assert lines(ax) == [budget / GB]
    assert label in texts(ax)


@pytest.mark.parametrize(
    ("budget", "rows"),
    [(10 * GB, [0, 1, 2, 3]), (24 * GB, [0, 1]), (80 * GB, []), (21 * GB - 1, [0, 1, 2, 3])],
)
def test_where_a_bar_goes_beyond_the_budget_it_is_marked(ax, budget, rows):
    draw_memory(ax, PEAKS, budget=budget)
    assert [x for x, _ in marks(ax)] == [budget / GB] * len(rows)
    bars = ax.containers[0]
    assert [y for _, y in marks(ax)] == [bars[row].get_y() for row in rows]  # on its upper edge


def test_a_budget_far_beyond_is_told_and_the_bars_stay_as_long_as_they_are(ax):
    draw_memory(ax, PEAKS, totals=True)
    limits = ax.get_xlim()
    draw_memory(ax, PEAKS, totals=True, budget=192 * GB)
    assert ax.get_xlim() == limits
    assert lines(ax) == marks(ax) == []
    assert "budget 192 GB \N{RIGHTWARDS ARROW}" in texts(ax)


def test_the_axes_stand_still_while_a_budget_moves_among_the_bars(ax):
    keys = []
    for budget in (GB, 24 * GB, 70 * GB, 192 * GB):
        draw_memory(ax, PEAKS, totals=True, budget=budget)
        keys.append(frame_key(ax))
    assert len(set(keys)) == 1


def test_a_number_that_the_line_meets_stands_on_its_parts_colour(ax):
    draw_memory(ax, PEAKS, budget=24 * GB)
    met = next(text for text in ax.texts if text.get_text() == "64")
    assert to_hex(met.get_bbox_patch().get_facecolor()) == PARTS["optimizer"]
    assert met.get_zorder() > next(line for line in ax.lines).get_zorder()


def lay_out_and_draw(ax) -> None:
    """As a blitted picture is: what moves has no say in where the axes lie."""
    for artist in moving(ax):
        artist.set_in_layout(False)
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    "total", [1.2e6, 83e6, 8.3e9, 66.6e9, 854e9, 1.28e12, 1.38e12, 1.7e12, 1.85e12]
)
def test_a_total_has_room_within_the_axes(total):
    ax = figure(860, 420)[1]
    draw_memory(ax, {"full": MemoryBreakdown(weights=int(total))}, totals=True)
    lay_out_and_draw(ax)
    box = next(t for t in ax.texts if t.get_weight() == "bold").get_window_extent()
    assert box.x1 <= ax.bbox.x1


@pytest.mark.parametrize("budget", [GB // 30, 8 * GB, 24 * GB, 50 * GB, 79 * GB, 90 * GB, 192 * GB])
@pytest.mark.parametrize("rows", [2, 4])
def test_no_letters_of_a_picture_with_a_budget_lie_on_others(budget, rows):
    ax = figure(860, 420)[1]
    draw_memory(ax, dict(list(PEAKS.items())[:rows]), title="x", totals=True, budget=budget)
    lay_out_and_draw(ax)
    boxes = [t.get_window_extent() for t in [*ax.texts, ax.title] if t.get_text()]
    overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert overlaps == []
    assert all(box.x0 >= 0 and box.x1 <= 860 for box in boxes)
