"""Memory: what a real step holds, part by part, and what moves which part."""

from dataclasses import astuple, replace

import pytest
import torch
from live_bytes import LiveBytes
from matplotlib.colors import to_hex

from lorakit.lora import LoRAConfig, inject, trainable
from lorakit.memory import MemoryBreakdown, StepMemory, estimate
from lorakit.model import Llama
from lorakit.plots import PARTS
from lorakit.plots.style import size
from lorakit.presets import PRESETS
from lorakit.run import Run
from lorakit.step import TrainConfig, make_optimizer, response_loss
from lorakit.widgets import measured as module
from lorakit.widgets.measured import measured
from lorakit.widgets.memory import MemoryExplorer, describe

LENGTH = 12
LORA = LoRAConfig(rank=4, alpha=8)  # the run's
CPU = torch.device("cpu")
LESSON = ("weights", "gradients", "optimizer", "activations")


@pytest.fixture
def explorer(shape, run) -> MemoryExplorer:
    return MemoryExplorer(shape, run, length=LENGTH)


def setup(run, shape, lora, batch_size):
    method = "full" if lora is None else "lora"
    run = replace(run.with_method(method), batch_size=batch_size)
    return run.setup(shape, LENGTH, "cpu")


def most(step: StepMemory) -> MemoryBreakdown:
    return replace(step.most, temporaries=0, overhead=0)


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
def test_what_is_measured_is_what_a_step_done_by_hand_keeps_alive(run, shape, lora, batch_size):
    found = measured(setup(run, shape, lora, batch_size), CPU).most
    expected = counted(shape, lora, batch_size)
    assert found.weights == expected["weights"]
    assert found.gradients == expected["gradients"]
    assert found.optimizer == expected["optimizer"]
    assert found.activations == pytest.approx(expected["activations"], rel=0.02)


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_gradients_and_moments_are_those_of_what_trains(run, shape, lora):
    model = Llama(shape)
    if lora is not None:
        inject(model, lora)
    trains = trainable(model)
    found = measured(setup(run, shape, lora, 2), CPU).most
    assert found.weights == 4 * sum(p.numel() for p in model.parameters())
    assert found.gradients == 4 * sum(p.numel() for p in trains)
    assert found.optimizer == 2 * found.gradients + 4 * len(trains)  # and a step count a tensor


def test_the_explorers_numbers_are_the_measured_ones(explorer, run, shape):
    explorer.settings.batch_size.value = 8
    assert explorer.memories() == {
        "full": most(measured(setup(run, shape, None, 8), CPU)),
        "lora": most(measured(setup(run, shape, LORA, 8), CPU)),
    }


@pytest.mark.parametrize("batch_size", [2, 8])
def test_unmeasured_the_numbers_are_the_estimates(shape, run, batch_size):
    explorer = MemoryExplorer(shape, run, length=LENGTH, measure=False)
    explorer.settings.batch_size.value = batch_size
    assert explorer.memories() == {
        "full": most(estimate(setup(run, shape, None, batch_size))),
        "lora": most(estimate(setup(run, shape, LORA, batch_size))),
    }


def test_what_is_there_for_a_moment_is_left_out(explorer):
    assert all(step.most.temporaries > 0 for step in explorer.steps().values())
    for memory in explorer.memories().values():
        assert memory.temporaries == memory.overhead == 0
    legend = explorer.picture.axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [*LESSON]


def test_unmeasured_no_step_is_done(shape, run, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a step was measured")

    monkeypatch.setattr(module, "measure", refuse)
    measured.cache_clear()
    explorer = MemoryExplorer(shape, run, length=LENGTH, measure=False)
    explorer.settings.batch_size.value = 32
    assert explorer.picture.axes.get_title() == "estimated for a CPU: one step of 32 x 12 tokens"


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


@pytest.mark.parametrize("measure", [True, False])
def test_no_byte_depends_on_alpha(shape, run, measure):
    runs = [replace(run, alpha=alpha) for alpha in (1.0, 64.0)]
    one, other = (MemoryExplorer(shape, r, length=LENGTH, measure=measure) for r in runs)
    assert one.memories() == other.memories()


def test_measuring_draws_nothing_from_the_random_numbers_of_others(explorer):
    measured.cache_clear()
    before = torch.random.get_rng_state()
    explorer.settings.batch_size.value = 16
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_the_base_is_held_in_the_setups_precision(run, shape, lora, dtype):
    found = measured(replace(setup(run, shape, lora, 2), dtype=dtype), CPU).most
    bytes_ = {"float32": 4, "bfloat16": 2}[dtype]
    base = sum(p.numel() for p in Llama(shape).parameters())
    assert found.weights - bytes_ * base == (found.gradients if lora else 0)  # A and B: float32


def test_the_same_settings_are_measured_once(explorer, monkeypatch):
    explorer.settings.rank.value = 8

    def refuse(*args, **kwargs):
        raise AssertionError("measured again")

    monkeypatch.setattr(module, "measure", refuse)
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
        for part in LESSON
    ]
    assert [to_hex(bars[0].get_facecolor()) for bars in containers] == [PARTS[p] for p in LESSON]


@pytest.mark.parametrize(("method", "pale"), [("full", [1, 0.3]), ("lora", [0.3, 1])])
def test_the_method_that_is_not_chosen_is_pale(explorer, method, pale):
    explorer.settings.method.value = method
    for bars in explorer.picture.axes.containers:
        assert [bar.get_alpha() for bar in bars] == pale


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_words_hold_the_numbers(explorer, method):
    explorer.settings.method.value = method
    found = explorer.memories()
    weights, gradients, optimizer, activations, *_ = astuple(found[method])
    words = explorer.picture.text
    assert words == describe(method, found)
    assert words.startswith(f"{method}: {size(weights)} of weights, ")
    assert f"{size(activations)} of activations, " in words
    assert f"{size(gradients + optimizer)} of gradients and optimizer state" in words
    assert f"{found['lora'].activations / found['full'].activations:.0%} of its act" in words
    assert f"LoRA has {found['lora'].weights / found['full'].weights:.0%} of full " in words


def test_qlora_is_told_by_its_own_numbers():
    run = Run(base="mini", task="json", method="qlora")
    explorer = MemoryExplorer(PRESETS["mini"], run, length=16, measure=False)
    found = explorer.memories()
    share = found["qlora"].weights / found["full"].weights
    assert share < 0.3
    assert f"QLoRA has {share:.0%} of full fine-tuning's weights" in explorer.picture.text
