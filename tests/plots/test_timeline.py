"""A timeline: at each instant each part as high as its bytes, both methods on one axis."""

from types import SimpleNamespace

import numpy as np
import pytest
from drawings import texts
from matplotlib.colors import to_hex

from lorakit.plots import PARTS, draw_timeline
from lorakit.plots.style import frame_key, moving
from lorakit.plots.timeline import GAP

MB = 10**6
STARTS = {"forward": 0, "backward": 2, "optimizer": 6}
BYTES = np.array(  # weights, gradients, optimizer, activations, temporaries, overhead
    [
        [10, 0, 20, 5, 1, 0],
        [10, 0, 20, 40, 3, 0],
        [10, 2, 20, 40, 9, 0],
        [10, 4, 20, 30, 2, 0],
        [10, 6, 20, 20, 2, 0],
        [10, 8, 20, 10, 2, 0],
        [10, 10, 20, 0, 6, 0],
    ]
)


def memory(rows=BYTES, starts=STARTS) -> SimpleNamespace:
    return SimpleNamespace(timeline=rows * MB, starts=starts)


BOTH = {"full": memory(), "LoRA": memory(BYTES // 2)}


def color_at(ax, x: float, y: float) -> str | None:
    """The color of the area at that place; None where there is none."""
    areas = [area for area in ax.collections if area.get_paths()[0].contains_point((x, y))]
    assert len(areas) < 2
    return to_hex(areas[0].get_facecolor()[0]) if areas else None


def middles() -> list[float]:
    """The middle of each instant of a method that begins at 0."""
    ends = [*list(STARTS.values())[1:], len(BYTES)]
    return [
        phase + (i + 0.5) / (end - start)
        for phase, (start, end) in enumerate(zip(STARTS.values(), ends, strict=True))
        for i in range(end - start)
    ]


@pytest.mark.parametrize(("left", "rows"), [(0, BYTES), (3 + GAP, BYTES // 2)], ids=BOTH)
def test_at_every_instant_each_part_is_as_high_as_its_bytes(ax, left, rows):
    draw_timeline(ax, BOTH)
    for x, row in zip(middles(), rows, strict=True):
        bottom = 0.0
        for color, bytes_ in zip(PARTS.values(), row, strict=True):
            if bytes_:
                assert color_at(ax, left + x, bottom + 0.05) == color
                assert color_at(ax, left + x, bottom + bytes_ - 0.05) == color
            bottom += bytes_
        assert color_at(ax, left + x, bottom + 0.05) is None


def test_between_the_methods_there_is_nothing_and_behind_the_last_one_neither(ax):
    draw_timeline(ax, BOTH)
    assert color_at(ax, 3 + GAP / 2, 1) is None
    assert ax.get_xlim() == (0, 6 + GAP)


def test_phases_are_equally_wide_and_named_in_order(ax):
    draw_timeline(ax, BOTH)
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert names == ["forward", "backward", "optimizer"] * 2
    places = [0.5, 1.5, 2.5]
    assert list(ax.get_xticks()) == pytest.approx([*places, *(3 + GAP + x for x in places)])
    boundaries = [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == ":"]
    assert boundaries == pytest.approx([1, 2, 4 + GAP, 5 + GAP])


def test_the_methods_names_stand_above_them(ax):
    draw_timeline(ax, BOTH)
    found = {text.get_text(): text.get_position() for text in ax.texts}
    top = ax.get_ylim()[1]
    assert found["full"] == (1.5, top) and found["LoRA"] == (4.5 + GAP, top)


@pytest.mark.parametrize("order", [["full", "LoRA"], ["LoRA", "full"]])
def test_all_share_an_axis_that_holds_the_highest(ax, order):
    draw_timeline(ax, {name: BOTH[name] for name in order})
    assert ax.get_ylim() == (0, 100)  # 81 MB, and room for its letters


def test_the_peaks_bytes_stand_above_the_peak(ax):
    draw_timeline(ax, BOTH)
    found = {text.get_text(): text.xy for text in ax.texts if hasattr(text, "xy")}
    assert found == {
        "81 MB": pytest.approx((1.125, 81)),
        "40 MB": pytest.approx((4.125 + GAP, 40)),
    }


def test_the_legend_names_the_parts_that_there_are(ax):
    draw_timeline(ax, BOTH)
    legend = ax.get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [part for part in PARTS if part != "overhead"]
    colors = [to_hex(patch.get_facecolor()) for patch in legend.get_patches()]
    assert colors == [PARTS[part] for part in names]


def test_large_memory_is_told_in_gigabytes(ax):
    draw_timeline(ax, {"full": memory(1000 * BYTES)})
    assert ax.get_ylabel() == "memory in GB"
    assert ax.get_ylim() == (0, 100)
    assert "81 GB" in texts(ax)


def test_a_third_method_has_its_place(ax):
    draw_timeline(ax, BOTH | {"QLoRA": memory(BYTES // 4)})
    assert color_at(ax, 6 + 2 * GAP + 0.25, 1) == PARTS["weights"]
    assert ax.get_xlim() == (0, 9 + 2 * GAP)


def test_a_step_of_the_real_recorder_is_drawn_up_to_its_peak(ax, measured_step):
    draw_timeline(ax, {"full": measured_step})
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in ax.collections]
    assert MB * max(tops) == pytest.approx(measured_step.peak.total)


# What moves


def test_what_grows_within_the_limit_moves_no_axes(ax):
    draw_timeline(ax, BOTH, title="step 1")
    key, before = frame_key(ax), len(moving(ax))
    draw_timeline(ax, BOTH | {"LoRA": memory(BYTES)}, title="step 2")
    assert frame_key(ax) == key
    assert len(moving(ax)) == before
    draw_timeline(ax, BOTH | {"LoRA": memory(2 * BYTES)}, title="step 3")
    assert ax.get_ylim() == (0, 200)


def test_the_title_moves_and_leaves_no_trace(ax):
    for step in (1, 2):
        draw_timeline(ax, BOTH, title=f"full: step {step}")
    assert [text for text in texts(ax) if "step " in text and "full" in text] == ["full: step 2"]


def test_the_title_stands_above_the_names_and_within_the_figure(ax):
    draw_timeline(ax, BOTH, title="full: step 12")
    ax.figure.canvas.draw()
    box = {text.get_text(): text.get_window_extent() for text in ax.texts}
    assert box["full"].y1 <= box["full: step 12"].y0
    assert box["full: step 12"].y1 <= ax.figure.bbox.height
