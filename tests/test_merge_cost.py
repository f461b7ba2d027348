"""A merge's cost is what the merge then does, and agrees with what was measured elsewhere."""

import copy
import math
import sys
from types import SimpleNamespace

import pytest
import torch
from live_bytes import LiveBytes
from torch import nn
from weights import assert_same_weights, weights

from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.merge_cost import (
    LayerCost,
    MergeCost,
    logit_change,
    merge_cost,
    share,
    tokens_a_second,
)
from lorakit.merging import merge, merge_and_unload, rescaled
from lorakit.model import Llama
from lorakit.presets import PRESETS

CONFIG = LoRAConfig(rank=4, alpha=12.0)
HALVES = [torch.bfloat16, torch.float16]
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
each_half = pytest.mark.parametrize("dtype", HALVES)


@pytest.fixture
def adapted(model, perturb) -> Llama:
    inject(model, CONFIG)
    perturb(model, 0.01)
    return model


def one_layer(size: float, width: int = 512) -> nn.Module:
    """A random layer with a random delta of `size` times its norm."""
    draw = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(width, width, bias=False))
    net[0].weight.data = torch.randn(width, width, generator=draw) / math.sqrt(width)
    inject(net, LoRAConfig(rank=8, alpha=8.0, targets="0"))
    net[0].B.data = torch.randn(width, 8, generator=draw)
    net[0].B.data *= size * net[0].base.weight.norm() / net[0].delta().norm()
    return net


# The measure


@pytest.mark.parametrize(
    ("dtype", "size", "loss"),
    [
        (torch.bfloat16, 1e-2, 0.166),
        (torch.bfloat16, 1e-3, 0.79),
        (torch.float16, 1e-2, 0.021),
        (torch.float16, 1e-3, 0.207),
    ],
)
def test_a_random_delta_loses_what_was_measured_elsewhere(dtype, size, loss):
    """Gaussian W and delta, as large as a real layer's: known to about a twentieth."""
    (cost,) = merge_cost(one_layer(size), dtype).layers
    assert cost.size == pytest.approx(size, rel=0.01)
    assert cost.loss == pytest.approx(loss, rel=0.05)


def test_float32_loses_next_to_nothing_but_not_nothing():
    (cost,) = merge_cost(one_layer(1e-3)).layers
    assert 1e-6 < cost.loss < 1e-4


@each_dtype
def test_the_cost_is_that_of_the_merge_that_follows(adapted, dtype):
    for _, layer in lora_layers(adapted):
        layer.base.to(dtype)
    told = merge_cost(adapted)
    assert told.dtype == str(dtype).removeprefix("torch.")
    before = {name: (layer.base.weight.clone(), layer) for name, layer in lora_layers(adapted)}
    merge_and_unload(adapted)
    assert [cost.layer for cost in told.layers] == list(before)
    for cost in told.layers:
        W, layer = before[cost.layer]
        merged = adapted.get_submodule(cost.layer).weight
        delta = layer.config.scale * layer.B.double() @ layer.A.double()
        error = merged.double() - (W.double() + delta)
        assert cost.weight == pytest.approx(W.double().norm().item(), rel=1e-5)
        assert cost.delta == pytest.approx(delta.norm().item(), rel=1e-5)
        assert cost.error == pytest.approx(error.norm().item(), rel=1e-3)
        assert (cost.kept, cost.entries) == ((merged == W).sum(), W.numel())


@each_half
def test_a_given_dtype_is_that_of_a_base_rounded_before_the_merge(adapted, dtype):
    told = merge_cost(adapted, dtype)
    for _, layer in lora_layers(adapted):
        layer.base.to(dtype)
    assert told == merge_cost(adapted)
    assert told.loss > 100 * merge_cost(one_layer(1e-2)).loss


def test_measuring_changes_nothing(adapted):
    before = weights(adapted)
    merge_cost(adapted, torch.bfloat16)
    logit_change(adapted, torch.tensor([[1, 2, 3]]), torch.bfloat16)
    assert_same_weights(adapted, before)
    assert not any(layer.merged for _, layer in lora_layers(adapted))


def test_a_larger_alpha_loses_less_of_a_larger_delta(adapted):
    small = merge_cost(adapted, torch.bfloat16)
    with rescaled(adapted, 8 * CONFIG.alpha):
        large = merge_cost(adapted, torch.bfloat16)
    for one, other in zip(small.layers, large.layers, strict=True):
        assert other.delta == pytest.approx(8 * one.delta)
        assert other.loss < one.loss
        assert other.unchanged < one.unchanged


def test_an_adapter_that_learnt_nothing_loses_nothing(model):
    inject(model, CONFIG)
    told = merge_cost(model, torch.bfloat16)
    assert (told.loss, told.unchanged) == (0, 1)
    assert {cost.size for cost in told.layers} == {0}


def test_a_delta_that_is_rounded_away_whole_is_lost_whole():
    (cost,) = merge_cost(one_layer(1e-6), torch.bfloat16).layers
    assert cost.loss == pytest.approx(1, rel=1e-3)
    assert cost.unchanged > 0.99


def test_one_layer_is_measured_at_a_time(perturb):
    mini = Llama(PRESETS["mini"])
    inject(mini, LoRAConfig(rank=4))
    perturb(mini)
    largest = max(layer.base.weight.numel() for _, layer in lora_layers(mini))
    with LiveBytes(mini) as live:
        merge_cost(mini)
    assert live.now == live.before
    assert live.peak - live.before <= 6 * 8 * largest  # a few float64 matrices of one layer


# Refusals


def test_merged_already_is_refused(adapted):
    merge(adapted)
    with pytest.raises(ValueError, match="cannot merge: 14 layers are merged"):
        merge_cost(adapted)
    with pytest.raises(ValueError, match="cannot merge: 14 layers are merged"):
        logit_change(adapted, torch.tensor([[1]]))


def test_a_sum_beyond_the_dtype_is_refused_by_name_and_fits_a_wider_one(adapted):
    name, layer = lora_layers(adapted)[3]
    layer.B.data *= 1e5 / layer.delta().abs().max()
    message = f"cannot merge: {name} would hold a number beyond 65504, where float16 ends"
    with pytest.raises(ValueError, match=message):
        merge_cost(adapted, torch.float16)
    assert merge_cost(adapted, torch.bfloat16).layers[3].delta > 1e5


@pytest.mark.parametrize(
    ("entry", "dtype"), [(1e5, torch.float16), (math.nan, torch.float32)], ids=str
)
def test_a_base_that_the_dtype_does_not_hold_is_told_from_a_delta(adapted, entry, dtype):
    name, layer = lora_layers(adapted)[3]
    layer.base.weight.data[2, 1] = entry
    message = f"base weight of {name} is not finite in {str(dtype)[6:]}: take a wider dtype"
    with pytest.raises(ValueError, match=message):
        merge_cost(adapted, dtype)


# In words


COSTS = MergeCost(
    dtype="bfloat16",
    layers=(
        LayerCost(layer="a", weight=2.0, delta=0.5, error=0.05, entries=10, kept=1),
        LayerCost(layer="long.name", weight=4.0, delta=0.5, error=0.2, entries=30, kept=3),
        LayerCost(layer="b", weight=2.0, delta=1.0, error=0.2, entries=10, kept=6),
    ),
)


def test_the_summary_tells_median_worst_and_what_stays():
    assert COSTS.loss == pytest.approx(0.2)
    assert COSTS.worst.layer == "long.name"
    assert COSTS.unchanged == pytest.approx(0.2)
    assert COSTS.summary == (
        "merged in bfloat16, 20% of the delta is lost (median of 3 layers; worst 40%, long.name), "
        "20% of the entries do not change"
    )


def test_the_table_has_a_row_a_layer_and_the_summary_last():
    head, *rows, summary = str(COSTS).splitlines()
    assert head.split() == ["layer", "|delta|/|W|", "lost", "unchanged"]
    assert [row.split() for row in rows] == [
        ["a", "0.25", "10%", "10%"],
        ["long.name", "0.12", "40%", "10%"],
        ["b", "0.5", "20%", "60%"],
    ]
    assert len({len(line) for line in (head, *rows)}) == 1
    assert summary == COSTS.summary


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0%"), (3.4e-4, "0.034%"), (0.166, "17%"), (0.993, "99%"), (1, "100%"), (1.66, "166%")],
)
def test_shares_have_two_digits_or_three_from_100_on(value, text):
    assert share(value) == text


# What the model answers


@each_dtype
def test_the_change_of_a_logit_is_that_of_two_models_made_by_hand(adapted, tokens, dtype):
    kept, merged = copy.deepcopy(adapted), copy.deepcopy(adapted)
    for _, layer in lora_layers(kept):
        layer.base.weight.data = layer.base.weight.to(dtype).float()
    for _, layer in lora_layers(merged):
        layer.base.weight.data = (layer.base.weight.to(dtype) + layer.delta()).to(dtype).float()
        layer.enabled = False
    expected = kept(tokens)
    change = ((merged(tokens) - expected).abs().max() / expected.abs().max()).item()
    assert logit_change(adapted, tokens, dtype) == pytest.approx(change, rel=0.05, abs=1e-6)
    if dtype in HALVES:
        assert change > 1e-4


def test_a_coarser_dtype_moves_a_logit_further(adapted, tokens):
    found = [logit_change(adapted, tokens, dtype) for dtype in (None, *reversed(HALVES))]
    assert found[0] < 1e-5 < found[1] < found[2]


def test_a_model_in_half_precision_answers_in_it(adapted, tokens):
    adapted.bfloat16()
    assert 0 < logit_change(adapted, tokens) < 0.2


# Speed


def test_both_ways_of_writing_are_timed_and_the_model_keeps_its_adapters(adapted):
    before = weights(adapted)
    found = tokens_a_second(adapted, (1, 2, 3), max_new_tokens=4, rounds=2)
    assert list(found) == ["adapter kept", "merged"]
    assert all(rate > 0 for rate in found.values())
    assert_same_weights(adapted, before)


def test_a_round_more_the_first_is_not_counted(adapted, monkeypatch):
    clock = iter([0, 8, 0, 8, 0, 2, 0, 1.0])
    time = SimpleNamespace(perf_counter=lambda: next(clock))
    monkeypatch.setattr(sys.modules[MergeCost.__module__], "time", time)
    found = tokens_a_second(adapted, (1, 2, 3), max_new_tokens=4, rounds=1)
    assert found == {"adapter kept": 2, "merged": 4}
