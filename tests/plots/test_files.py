"""An adapter's file: a bar a part, as long as its bytes, with the number at its end."""

import pytest
from drawings import texts
from matplotlib.colors import to_hex

from lorakit.adapter_file import AdapterFile
from lorakit.plots import COLORS, draw_adapter_file
from lorakit.plots.files import PALE

FOUND = AdapterFile(
    header=500_000,
    A={"q_proj": 1_000_000, "up_proj": 2_000_000},
    B={"q_proj": 3_000_000, "up_proj": 500_000},
    beside={},
)
WHOLE = AdapterFile(header=500_000, A=FOUND.A, B=FOUND.B, beside={"embed_tokens": 90_000_000})


def bars(ax) -> list[tuple[float, float, float, str]]:
    """Row, start, length and colour of every bar."""
    return [
        (round(p.get_y() + p.get_height() / 2), p.get_x(), p.get_width(), to_hex(p.get_facecolor()))
        for p in ax.patches
    ]


def test_a_and_b_follow_each_other_and_the_header_stands_below(ax):
    draw_adapter_file(ax, FOUND)
    blue, grey = COLORS["lora"], COLORS["base"]
    assert sorted(bars(ax)) == [
        (0, 0, 1.0, blue),
        (0, 1.0, 3.0, blue),
        (1, 0, 2.0, blue),
        (1, 2.0, 0.5, blue),
        (2, 0, 0.5, grey),
    ]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["q_proj", "up_proj", "header"]


def test_embeddings_are_grey_and_as_long_as_they_are_large(ax):
    draw_adapter_file(ax, WHOLE)
    assert bars(ax)[-2:] == [(2, 0, 90.0, COLORS["base"]), (3, 0, 0.5, COLORS["base"])]


def test_every_bar_tells_its_bytes(ax):
    draw_adapter_file(ax, WHOLE)
    expected = {"4,000,000 bytes", "2,500,000 bytes", "90,000,000 bytes", "500,000 bytes"}
    assert expected <= set(texts(ax))


@pytest.mark.parametrize("largest", [4_096, 2_101_346_304, 16_813_916_160])
def test_the_numbers_stay_within_the_axes(ax, largest):
    found = AdapterFile(header=1000, A={"q_proj": largest // 2}, B={"q_proj": largest}, beside={})
    draw_adapter_file(ax, found)
    ax.figure.draw_without_rendering()
    right = ax.figure.bbox.x1
    assert all(text.get_window_extent().x1 <= right for text in ax.texts)


def test_a_is_paler_than_b(ax):
    draw_adapter_file(ax, FOUND)
    alphas = [patch.get_alpha() for patch in ax.patches]  # A of each module, B, what is neither
    assert alphas[:2] == [PALE, PALE] and PALE < 1
    assert alphas[2:] == [None, None, None]
