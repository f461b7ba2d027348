"""Bytes by purpose: the dry run says what the real step holds, and each part is what it claims."""

from contextlib import contextmanager

import pytest
import torch
from live_bytes import LiveBytes
from weights import assert_same_weights, weights

from lorakit.lora import LoRAConfig, freeze, inject, trainable
from lorakit.memory import MemoryBreakdown, estimate, measure, quick_estimate
from lorakit.presets import PRESETS
from lorakit.step import TrainConfig, make_optimizer, step
from lorakit.text import Batches, Encoded

LENGTH = 24
LORA = LoRAConfig(rank=4)


def batches(batch_size: int) -> Batches:
    return Batches(
        examples=(Encoded(tuple(range(1, LENGTH + 1)), prompt=0),) * 8,
        batch_size=batch_size,
        pad_id=0,
    )


def size(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("lora", [None, LORA, LoRAConfig(rank=1, targets=("q_proj",))])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_estimate_is_the_measurement_to_the_byte(model, lora, batch_size, accumulation):
    if lora:
        inject(model, lora)
    config = TrainConfig(accumulation=accumulation)
    measured = measure(model, batches(batch_size), config)
    expected = estimate(model.config, lora, batch_size=batch_size, length=LENGTH, config=config)
    assert measured == expected


def test_full_fine_tuning_holds_a_gradient_and_two_moments_of_every_weight(model):
    held = measure(model, batches(2), TrainConfig())
    steps = 4 * len(trainable(model))  # AdamW's step count, one float a tensor
    assert held.weights == held.gradients == size(model.parameters())
    assert held.optimizer == 2 * held.weights + steps


def test_lora_holds_gradients_and_moments_of_its_adapters_alone(model):
    inject(model, LORA)
    held = measure(model, batches(2), TrainConfig())
    assert held.gradients == size(trainable(model))
    assert held.optimizer == 2 * held.gradients + 4 * len(trainable(model))
    assert held.weights == size(model.parameters())


def test_gradients_of_an_earlier_full_run_would_show_and_freezing_drops_them(model):
    model(torch.zeros(1, 4, dtype=torch.long)).sum().backward()
    inject(model, LORA)
    assert measure(model, batches(2), TrainConfig()).gradients == size(trainable(model))


def test_activations_are_affine_in_the_batch_and_lora_does_not_shrink_them_much(model):
    full = [estimate(model.config, None, batch_size=b, length=LENGTH) for b in (2, 3, 4)]
    two, three, four = (held.activations for held in full)
    assert four - three == three - two > 0
    lora = estimate(model.config, LORA, batch_size=4, length=LENGTH)
    assert 0.7 < lora.activations / four < 1.1
    assert lora.gradients < 0.5 * full[2].gradients


def test_merged_layers_count_their_kept_originals(model):
    from lorakit.merging import merge

    inject(model, LORA)
    before = measure(model, batches(2), TrainConfig()).weights
    merge(model)
    layers = [m for m in model.modules() if hasattr(m, "original")]
    freeze(model)
    model.model.norm.requires_grad_(True)
    kept = sum(size([layer.original]) for layer in layers)
    assert measure(model, batches(2), TrainConfig()).weights == before + kept


def test_measuring_changes_no_weight(model):
    before = weights(model)
    measure(model, batches(2), TrainConfig(weight_decay=0.1))
    assert_same_weights(model, before)
    assert all(p.grad is None for p in model.parameters())


def test_a_breakdown_adds_up():
    held = MemoryBreakdown(weights=1, gradients=20, optimizer=300, activations=4000)
    assert held.total == 4301
    assert MemoryBreakdown(weights=1, gradients=500, activations=40).total == 501


@pytest.mark.parametrize("lora", [None, LORA])
def test_every_part_is_what_independent_bookkeeping_finds(model, lora):
    if lora:
        inject(model, lora)
    config = TrainConfig(lr=0.0)
    stream = batches(3)
    expected = measure(model, stream, config)
    optimizer = make_optimizer(model, config)
    step(model, optimizer, [stream.batch(0)], config)  # the optimizer's state is there from now on
    state = size(v for s in optimizer.state.values() for v in s.values())
    ends = {}

    with LiveBytes(model) as live:

        @contextmanager
        def phase(name):
            yield
            ends[name] = live.now - live.before

        step(model, optimizer, [stream.batch(0)], config, phase=phase)
    assert expected.weights == live.before
    assert expected.optimizer == state
    # The step's own tokens and labels are in one count and not in the other.
    assert ends["forward"] == pytest.approx(expected.activations, rel=0.01)
    assert ends["backward"] == pytest.approx(expected.gradients, rel=0.03, abs=1500)


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=1), LoRAConfig(rank=24)])
@pytest.mark.parametrize("batch_size", [2, 5, 16])
def test_the_quick_estimate_is_the_dry_run_to_the_byte(lora, batch_size):
    options = {"batch_size": batch_size, "length": 20}
    expected = estimate(PRESETS["mini"], lora, **options)
    assert quick_estimate(PRESETS["mini"], lora, **options) == expected


def test_the_quick_estimate_of_a_real_model_is_the_dry_run(model):
    options = {"batch_size": 4, "length": 80}
    config, lora = PRESETS["smollm2-135m"], LoRAConfig(rank=8)
    assert quick_estimate(config, lora, **options) == estimate(config, lora, **options)


def test_at_a_batch_of_one_the_quick_estimate_is_a_few_bytes_off():
    options = {"batch_size": 1, "length": 20}
    exact = estimate(PRESETS["mini"], None, **options).total
    assert abs(quick_estimate(PRESETS["mini"], None, **options).total - exact) <= 8 * 20
