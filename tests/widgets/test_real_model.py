"""Three methods on a real model: every stored run is shown, one's own beside it, in one unit."""

from dataclasses import replace
from statistics import fmean

import pytest
from explorables import assert_moves

from lorakit.claims.evidence import real_model
from lorakit.plots.spread import OWN
from lorakit.widgets.real_model import MATCH, MEASURES, METHODS, RealModelExplorer


@pytest.fixture
def rows() -> list:
    return real_model()["runs"]


@pytest.mark.parametrize("measure", MEASURES[1:])
def test_each_measure_changes_picture_and_words_and_comes_back(measure):
    explorer = RealModelExplorer()
    assert_moves(explorer, explorer.measure, measure, [explorer.picture])


def test_what_is_shown_is_what_the_rows_say(rows):
    explorer = RealModelExplorer()
    expected = {m: [r["after"] for r in rows if r["run"]["method"] == m] for m in METHODS}
    assert explorer.values() == expected
    assert f"full {fmean(expected['full']):.3g} (" in explorer.picture.text
    explorer.measure.value = "on disk, MB"
    assert {m: {*v} for m, v in explorer.values().items()} == {
        m: {r["disk"] / 1e6 for r in rows if r["run"]["method"] == m} for m in METHODS
    }


def test_ones_own_results_are_stars_in_the_same_units(lora, full):
    explorer = RealModelExplorer(full, lora)
    for measure in MEASURES:
        explorer.measure.value = measure
        own = explorer.values(own=True)
        assert own.keys() == {"full", "lora"}
        assert explorer.picture.text.endswith(f", on {lora.device}")
    assert explorer.values(own=True)["lora"] == [lora.history.seconds / len(lora.history.steps)]
    explorer.measure.value = "parameters trained"
    assert explorer.values(own=True)["full"] == [full.parameters.trainable]
    stars = [line for line in explorer.picture.axes.lines if line.get_marker() == OWN["marker"]]
    assert sum(len(star.get_xdata()) for star in stars) == 2


def test_a_stopped_result_is_left_out(lora):
    stopped = replace(lora, after=None)
    explorer = RealModelExplorer(stopped)
    assert explorer.values(own=True) == {} and "yours" not in explorer.picture.text
    assert explorer.measure.value == MATCH
