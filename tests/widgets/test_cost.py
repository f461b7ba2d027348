"""The cost of a method, and pictures that follow every control there and back."""

import dataclasses

import pytest

from lorakit.counts import count
from lorakit.lora import LoRAConfig
from lorakit.memory import estimate
from lorakit.presets import PRESETS
from lorakit.run import Run, disk_bytes
from lorakit.widgets.cost import CostExplorer, cost, describe

MINI = PRESETS["mini"]
RUN = Run(rank=8, alpha=16, batch_size=4)
LENGTH = 24


@pytest.fixture
def explorer() -> CostExplorer:
    return CostExplorer(MINI, RUN, length=LENGTH)


def state(explorer) -> list:
    return [(picture.value, picture.text) for picture in explorer.pictures]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_cost_is_counted_and_estimated_not_made_up(method):
    run = dataclasses.replace(RUN, method=method)
    found = cost(MINI, run, LENGTH)
    lora = LoRAConfig(rank=8, alpha=16) if method == "lora" else None
    assert found.parameters == count(MINI, lora)
    assert found.disk == disk_bytes(MINI, lora)
    assert found.memory == estimate(MINI, lora, batch_size=4, length=LENGTH)


@pytest.mark.parametrize("alpha", [1, 64])
def test_alpha_changes_no_count_no_byte_and_no_memory(alpha):
    lora = LoRAConfig(rank=8, alpha=alpha)
    found = cost(MINI, dataclasses.replace(RUN, alpha=alpha), LENGTH)
    assert found.parameters == count(MINI, lora)
    assert found.disk == disk_bytes(MINI, lora)
    assert found.memory == estimate(MINI, lora, batch_size=4, length=LENGTH)


def test_the_words_hold_the_numbers():
    run = dataclasses.replace(RUN, rank=4, alpha=8)
    found = cost(MINI, run, LENGTH)
    words = describe(run, found)
    assert f"{found.parameters.trainable:,} of {found.parameters.total:,}" in words
    assert "alpha / rank = 2" in words
    assert f"{found.disk / 1e6:,.1f} MB" in words
    full = dataclasses.replace(run, method="full")
    assert "alpha" not in describe(full, cost(MINI, full, LENGTH))


@pytest.mark.parametrize(
    ("control", "value", "moves"),
    [
        ("rank", 64, {0, 1, 2}),
        ("batch_size", 16, {2}),
        ("method", "full", {0}),
    ],
)
def test_pictures_and_words_follow_a_control_there_and_back(explorer, control, value, moves):
    before = state(explorer)
    slider = getattr(explorer.settings, control)
    old, slider.value = slider.value, value
    after = state(explorer)
    for i, (was, now) in enumerate(zip(before, after, strict=True)):
        assert (was[0] != now[0]) == (i in moves), f"picture {i}"
    assert [text for _, text in before] != [text for _, text in after]
    slider.value = old
    assert state(explorer) == before


def test_alpha_changes_the_multiplier_and_no_picture(explorer):
    before = state(explorer)
    explorer.settings.alpha.value = 64
    after = state(explorer)
    assert [picture for picture, _ in before] == [picture for picture, _ in after]
    assert "alpha / rank = 8" in after[0][1]
    explorer.settings.alpha.value = 16
    assert state(explorer) == before
