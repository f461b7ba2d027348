"""The committed merges of a real model's adapter: what each dtype lost, and what it kept."""

import pytest
from explorables import assert_moves

from lorakit.claims.evidence import real_model
from lorakit.widgets import MergedExplorer
from lorakit.widgets.merged import MEASURES


def test_it_begins_with_what_is_lost_and_tells_every_dtype():
    explorer = MergedExplorer()
    for row in real_model()["merges"]:
        assert f"{row['dtype']} {row['lost']:.1%}" in explorer.picture.text
    size = f"{row['size']:.1%}"  # nearly the same in every dtype
    assert explorer.picture.text.endswith(f"The delta is {size} as large as W")


@pytest.mark.parametrize("measure", [*MEASURES.values()][1:])
def test_another_measure_is_another_picture_there_and_back(measure):
    explorer = MergedExplorer()
    assert_moves(explorer, explorer.measure, measure, explorer.pictures)
