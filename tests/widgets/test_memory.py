"""Memory: what a real step holds, part by part, and what moves which part."""

from dataclasses import astuple, replace

import pytest
import torch
from live_bytes import LiveBytes
from matplotlib.colors import to_hex

from lorakit.lora import LoRAConfig, inject, trainable
from lorakit.memory import quick_estimate
from lorakit.model import Llama
from lorakit.plots import PARTS
from lorakit.step import TrainConfig, make_optimizer, response_loss
from lorakit.widgets.memory import MemoryExplorer, _measured, describe, measured, memory

LENGTH = 12
LORA = LoRAConfig(rank=4)


@pytest.fixture
def explorer(shape, run) -> MemoryExplorer:
    return MemoryExplorer(shape, run, length=LENGTH)


def counted(shape, lora, batch_size) -> dict[str, int]:
    """Bytes of a step done by hand, from the lives of its storages."""
    model = Llama(shape)
    if lora is not None:
        inject(model, lora)
    optimizer = make_optimizer(model, TrainConfig())
    tokens = torch.zeros(batch_size, LENGTH, dtype=torch.long)
    with LiveBytes(model) as live:
        tokens = tokens.clone()
        start = live.now
        loss = response_loss(model(tokens), tokens)
        activations = live.now - start
        loss.backward()
        del loss
        gradients = live.now - start
        optimizer.step()
        optimizer.zero_grad()
        return {
            "weights": live.before,
            "gradients": gradients,
            "optimizer": live.now - start,
            "activations": activations,
        }


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("batch_size", [2, 8])
def test_what_is_measured_is_what_a_step_done_by_hand_keeps_alive(shape, lora, batch_size):
    found = measured(shape, lora, batch_size=batch_size, length=LENGTH)
    expected = counted(shape, lora, batch_size)
    assert found.weights == expected["weights"]
    assert found.gradients == expected["gradients"]
    assert found.optimizer == expected["optimizer"]
    assert found.activations == pytest.approx(expected["activations"], rel=0.02)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_gradients_and_moments_are_those_of_what_trains(shape, lora):
    model = Llama(shape)
    if lora is not None:
        inject(model, lora)
    trains = trainable(model)
    found = measured(shape, lora, batch_size=2, length=LENGTH)
    assert found.weights == 4 * sum(p.numel() for p in model.parameters())
    assert found.gradients == 4 * sum(p.numel() for p in trains)
    assert found.optimizer == 2 * found.gradients + 4 * len(trains)  # and a step count a tensor


def test_the_explorers_numbers_are_the_measured_ones(explorer, shape):
    explorer.settings.batch_size.value = 8
    assert explorer.memories() == {
        "full": measured(shape, None, batch_size=8, length=LENGTH),
        "lora": measured(shape, replace(LORA, alpha=1.0), batch_size=8, length=LENGTH),
    }


@pytest.mark.parametrize("batch_size", [2, 8])
def test_unmeasured_the_numbers_are_the_quick_estimates(shape, run, batch_size):
    explorer = MemoryExplorer(shape, run, length=LENGTH, measure=False)
    explorer.settings.batch_size.value = batch_size
    assert explorer.memories() == {
        "full": quick_estimate(shape, None, batch_size=batch_size, length=LENGTH),
        "lora": quick_estimate(shape, LORA, batch_size=batch_size, length=LENGTH),
    }


def test_unmeasured_no_step_is_done(shape, run, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a step was measured")

    monkeypatch.setattr("lorakit.widgets.memory.measure", refuse)
    _measured.cache_clear()
    explorer = MemoryExplorer(shape, run, length=LENGTH, measure=False)
    explorer.settings.batch_size.value = 32
    assert "estimated: one step of 32 x 12 tokens" in explorer.picture.axes.get_title()


def test_measured_numbers_name_the_device(explorer):
    assert explorer.picture.axes.get_title().startswith("measured on ")


def changed(before, after) -> set[str]:
    return {part for part in PARTS if getattr(before, part) != getattr(after, part)}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_batch_size_moves_activations_and_nothing_that_learns(explorer, method):
    before = explorer.memories()[method]
    explorer.settings.batch_size.value = 16
    after = explorer.memories()[method]
    assert changed(before, after) == {"activations"}
    assert after.activations > 4 * before.activations


def test_the_rank_moves_gradients_and_optimizer_state_of_lora_alone(explorer):
    before = explorer.memories()
    explorer.settings.rank.value = 32
    after = explorer.memories()
    assert after["full"] == before["full"]
    assert after["lora"].gradients == 8 * before["lora"].gradients
    moments = [run.optimizer - 2 * run.gradients for run in (before["lora"], after["lora"])]
    assert moments[0] == moments[1]


def test_alpha_is_no_control(explorer):
    assert explorer.settings.alpha not in explorer.settings.children
    assert [c.description for c in explorer.settings.children] == ["method", "rank", "batch size"]


@pytest.mark.parametrize("source", [measured, quick_estimate])
def test_no_byte_depends_on_alpha(shape, run, source):
    found = [memory(source, shape, replace(run, alpha=alpha), LENGTH) for alpha in (1.0, 64.0)]
    assert found[0] == found[1]


def test_the_same_settings_are_measured_once(explorer, monkeypatch):
    explorer.settings.rank.value = 8

    def refuse(*args, **kwargs):
        raise AssertionError("measured again")

    monkeypatch.setattr("lorakit.widgets.memory.measure", refuse)
    explorer.settings.rank.value = 4
    explorer.settings.method.value = "full"
    explorer.settings.rank.value = 8


@pytest.mark.parametrize("batch_size", [2, 16])
@pytest.mark.parametrize("rank", [4, 64])
def test_a_bar_is_as_wide_as_its_part_is_large(explorer, batch_size, rank):
    explorer.settings.batch_size.value, explorer.settings.rank.value = batch_size, rank
    found = explorer.memories()
    containers = explorer.picture.axes.containers
    widths = [[bar.get_width() * 1e6 for bar in bars] for bars in containers]
    assert widths == [
        pytest.approx([getattr(found[method], part) for method in ("full", "lora")])
        for part in PARTS
    ]
    assert [to_hex(bars[0].get_facecolor()) for bars in containers] == [*PARTS.values()]


@pytest.mark.parametrize(("method", "pale"), [("full", [1, 0.3]), ("lora", [0.3, 1])])
def test_the_method_that_is_not_chosen_is_pale(explorer, method, pale):
    explorer.settings.method.value = method
    for bars in explorer.picture.axes.containers:
        assert [bar.get_alpha() for bar in bars] == pale


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_words_hold_the_numbers(explorer, method):
    explorer.settings.method.value = method
    found = explorer.memories()
    _, gradients, optimizer, activations = astuple(found[method])
    words = explorer.picture.text
    assert words == describe(method, found)
    assert words.startswith(f"{method}: {activations / 1e6:,.4g} MB of activations")
    assert f"{(gradients + optimizer) / 1e6:,.4g} MB of gradients and optimizer state" in words
    assert f"{found['lora'].activations / found['full'].activations:.0%} of its act" in words
