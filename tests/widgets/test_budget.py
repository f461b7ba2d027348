"""Will it fit: estimates beside real steps, a bar for what the device gives, and what to change."""

import random
import re
from dataclasses import replace

import pytest
import torch
from explorables import assert_moves, controls, look, values

from lorakit.lora import LoRAConfig
from lorakit.memory import Setup, estimate
from lorakit.plots import PARTS, figure
from lorakit.plots.memory import CRASH
from lorakit.plots.style import size
from lorakit.step import TrainConfig
from lorakit.widgets import BudgetExplorer
from lorakit.widgets import budget as module
from lorakit.widgets.budget import METHODS, OPTIMIZERS, of_device
from lorakit.widgets.measured import measured

CPU = torch.device("cpu")
ESTIMATED, MEASURED = ["full, estimated", "LoRA, estimated"], ["full, measured", "LoRA, measured"]
ALL = [row for pair in zip(ESTIMATED, MEASURED, strict=True) for row in pair]


@pytest.fixture
def explorer(shapes) -> BudgetExplorer:
    return BudgetExplorer(length=32, batch_size=2)


def rows(explorer) -> list[str]:
    return [text.get_text() for text in explorer.picture.axes.get_yticklabels()]


def letters(explorer) -> list[str]:
    return [text.get_text() for text in explorer.picture.axes.texts]


def drawn_bytes(explorer) -> dict[str, dict[str, float]]:
    """The bytes of each part of each bar."""
    axes = explorer.picture.axes
    scale = 1e9 if "GB" in axes.get_xlabel() else 1e6
    parts = [text.get_text() for text in axes.get_legend().get_texts()]
    return {
        row: {
            part: scale * bars[place].get_width()
            for part, bars in zip(parts, axes.containers, strict=True)
        }
        for place, row in enumerate(rows(explorer))
    }


def held(step) -> dict[str, int]:
    return {part: getattr(of_device(step), part) for part in PARTS}


def assert_drawn(explorer, row: str, step) -> None:
    drawn = dict.fromkeys(PARTS, 0.0) | drawn_bytes(explorer)[row]
    assert drawn == pytest.approx(held(step), abs=1)


# What the controls stand for


def test_the_controls_are_a_setup_a_method(brief, explorer, shapes):
    explorer.model.value, explorer.rank.value, explorer.batch_size.value = "smollm2-135m", 16, 8
    explorer.length.value, explorer.dtype.value = 64, "bfloat16"
    explorer.optimizer.value = OPTIMIZERS["SGD with momentum"]
    explorer.checkpointing.value = True
    full = Setup(
        model=shapes["smollm2-135m"],
        batch_size=8,
        length=64,
        config=TrainConfig(optimizer="sgd", momentum=0.9, gradient_checkpointing=True),
        dtype="bfloat16",
    )
    assert explorer.setups == {"full": full, "LoRA": replace(full, lora=LoRAConfig(rank=16))}


@pytest.mark.parametrize("name", ["AdamW, plain", "AdamW, foreach", "AdamW, fused"])
def test_adamw_goes_over_the_tensors_as_its_name_says(name):
    config = OPTIMIZERS[name]
    assert (config.optimizer, config.implementation) == ("adamw", name.split(", ")[1])


def test_the_optimizers_are_all_different_and_sgd_has_momentum_if_named_so():
    assert len(set(OPTIMIZERS.values())) == len(OPTIMIZERS) == 5
    assert OPTIMIZERS["SGD"].momentum == 0 < OPTIMIZERS["SGD with momentum"].momentum


def test_gradient_checkpointing_moves_the_picture_and_back(explorer):
    assert explorer.checkpointing in explorer.controls
    assert_moves(explorer, explorer.checkpointing, True, [explorer.picture])


def test_a_picture_reached_by_many_moves_is_that_drawn_afresh(brief, explorer):
    draw = random.Random("budget")
    for _ in range(12):
        control = draw.choice(controls(explorer))
        control.value = draw.choice([v for v in values(control) if v not in (128, 256)])
    reached = look(explorer)
    explorer.picture._figure, explorer.picture.axes = figure(860, 420)
    explorer.picture._kept = {}
    explorer.refresh()
    assert look(explorer) == reached


def test_the_lengths_are_those_that_the_model_reads(brief, explorer):
    assert values(explorer.length)[-1] == 256
    explorer.model.value = "smollm2-135m"
    assert values(explorer.length)[-1] == 1024
    assert explorer.length.value == 32


def test_a_length_beyond_another_model_becomes_its_longest(brief, explorer, monkeypatch):
    explorer.model.value, explorer.length.value = "smollm2-135m", 1024
    lengths, real = set(), module.estimate
    monkeypatch.setattr(module, "estimate", lambda setup: lengths.add(setup.length) or real(setup))
    explorer.model.value = "mini"
    assert explorer.length.value == 256
    assert lengths == {256}  # on the way there is no other
    explorer.length.value = 128
    assert explorer.setups["full"].length == 128


def test_what_is_slow_waits_for_the_mouse_and_what_is_arithmetic_does_not(explorer):
    assert not explorer.length.continuous_update
    for control in (explorer.rank, explorer.batch_size, explorer.budget):
        assert control.continuous_update


# Bars


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_estimated_bar_is_the_estimate(explorer, device):
    explorer.device.value = device
    for row, setup in zip(ESTIMATED, explorer.setups.values(), strict=True):
        assert_drawn(explorer, row, estimate(setup))


@pytest.mark.parametrize("batch_size", [2, 8])
def test_a_measured_bar_is_a_real_step(explorer, batch_size):
    explorer.batch_size.value = batch_size
    assert rows(explorer) == ALL
    for row, setup in zip(MEASURED, explorer.setups.values(), strict=True):
        assert_drawn(explorer, row, measured(setup, CPU))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_bar_ends_at_what_is_gone_from_the_device(explorer, device):
    explorer.device.value = device
    for row, setup in zip(ESTIMATED, explorer.setups.values(), strict=True):
        total = sum(drawn_bytes(explorer)[row].values())
        assert total == pytest.approx(estimate(setup).device)
        assert size(total) in letters(explorer)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_total_of_the_picture_is_in_the_words(explorer, device):
    explorer.device.value = device
    totals = [text for text in letters(explorer) if re.fullmatch(r"[\d.,]+ [MG]B", text)]
    assert len(totals) == (4 if device == "cpu" else 2)
    for total in totals:
        assert total in explorer.picture.text


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_words_say_where_each_peak_falls(explorer, device):
    explorer.device.value = device
    phases = set()
    for length, optimizer in ((32, "AdamW, plain"), (16, "AdamW, foreach")):
        explorer.length.value, explorer.optimizer.value = length, OPTIMIZERS[optimizer]
        for method, setup in explorer.setups.items():
            step = estimate(setup)
            words = f"{method}: {size(step.peak.total)} at the peak, in {step.phase}"
            assert words in explorer.picture.text
            phases.add(step.phase)
    assert len(phases) > 1


def test_the_words_say_what_is_reserved_and_gone_from_a_gpu_alone(explorer):
    assert "reserved" not in explorer.picture.text
    explorer.device.value = "cuda"
    for setup in explorer.setups.values():
        step = estimate(setup)
        assert f"{size(step.reserved)} are reserved" in explorer.picture.text
        assert f"{size(step.device)} of the device" in explorer.picture.text


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("short", [0, 1], ids=["just enough", "a byte short"])
@pytest.mark.parametrize("method", METHODS)
def test_a_bar_beyond_the_budget_would_crash(shapes, device, method, short):
    options = {"length": 32, "batch_size": 2, "device": device}
    setups = BudgetExplorer(**options).setups
    budget = estimate(setups[method]).device - short
    explorer = BudgetExplorer(**options, budget=budget / 1e9)
    beyond = sum(estimate(setup).device > budget for setup in setups.values())
    assert beyond >= short
    assert letters(explorer).count(CRASH) == beyond * (2 if device == "cpu" else 1)


def test_another_method_is_one_more_row_of_the_table(shapes, monkeypatch):
    wider = lambda setup, rank: replace(setup, lora=LoRAConfig(rank=2 * rank))  # noqa: E731
    monkeypatch.setitem(METHODS, "twice the rank", wider)
    explorer = BudgetExplorer(length=32, batch_size=2)
    assert rows(explorer) == [*ALL, "twice the rank, estimated", "twice the rank, measured"]
    assert "twice the rank" in explorer.picture.text and "twice the rank" in explorer.advice.value


# Settings that cannot be


def test_a_step_that_cannot_be_is_refused_from_the_start(shapes):
    with pytest.raises(ValueError, match="length=512 is more than max_position_embeddings=256"):
        BudgetExplorer(length=512)


def test_a_refused_rank_is_shown_and_the_old_picture_stays(explorer, monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST")
    before, advice = look(explorer), explorer.advice.value
    explorer.rank.value = 128
    assert "rank=128 is more than" in explorer.error.value
    assert look(explorer) == before and explorer.advice.value == advice
    explorer.rank.value = 8
    assert explorer.error.value == ""
    assert look(explorer) == before
