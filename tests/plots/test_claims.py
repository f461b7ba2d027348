"""The evidence of a claim: every line named above the axes, where no point is covered."""

import pytest

from lorakit.claims.evidence import claims
from lorakit.plots import draw_claim, figure

CURVES = {
    f"{claim['name']}, {base}": claim[base]["curves"]
    for claim in claims()
    for base in ("mini", "smollm2")
    if claim[base]
}


@pytest.mark.parametrize("name", CURVES)
def test_every_line_is_named_above_the_axes_and_within_the_picture(name):
    fig, ax = figure(700, 360)
    draw_claim(ax, CURVES[name])
    fig.canvas.draw()
    legend, whole = ax.get_legend(), fig.bbox
    box = legend.get_window_extent()
    assert [text.get_text() for text in legend.get_texts()] == [*CURVES[name]["lines"]]
    assert box.y0 >= ax.get_window_extent().y1 - 1
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and box.y1 <= whole.y1
