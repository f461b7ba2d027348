"""Merged = adapted, unmerged = untouched, and nothing happens twice."""

import math

import pytest
import torch
from live_bytes import LiveBytes
from weights import assert_same_weights, weights

from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.merging import (
    disabled,
    merge,
    merge_and_unload,
    remove,
    rescaled,
    twin,
    unmerge,
)
from lorakit.model import Llama
from lorakit.presets import PRESETS

CONFIG = LoRAConfig(rank=4, alpha=12.0)


def test_a_merged_model_answers_as_the_adapted_one(model, tokens, perturb):
    base = model(tokens)
    names = inject(model, CONFIG)
    perturb(model)
    adapted = model(tokens)
    assert (adapted - base).abs().max() > 0.1
    assert merge(model) == names
    torch.testing.assert_close(model(tokens), adapted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_unmerging_restores_every_bit_after_100_cycles(model, perturb, dtype):
    model.to(dtype)
    inject(model, CONFIG)
    perturb(model)
    before = weights(model)
    for _ in range(100):
        merge(model)
        unmerge(model)
    assert_same_weights(model, before)


def test_merging_twice_is_refused_and_adds_once(model, perturb):
    inject(model, CONFIG)
    perturb(model)
    merge(model)
    before = weights(model)
    with pytest.raises(
        ValueError, match=r"cannot merge: 14 layers are merged \(first: model\.layers\.0"
    ):
        merge(model)
    with pytest.raises(ValueError, match="cannot merge"):
        merge_and_unload(model)
    assert_same_weights(model, before)


def test_unmerging_what_is_not_merged_is_refused(model):
    with pytest.raises(ValueError, match="no adapters"):
        unmerge(model)
    inject(model, CONFIG)
    with pytest.raises(ValueError, match=r"q_proj is not merged"):
        unmerge(model)


def test_merging_and_unloading_leaves_plain_layers(model, tokens, perturb):
    names_before = list(model.state_dict())
    inject(model, CONFIG)
    perturb(model)
    adapted = model(tokens)
    merge_and_unload(model)
    assert list(model.state_dict()) == names_before
    assert lora_layers(model) == []
    torch.testing.assert_close(model(tokens), adapted)


@pytest.mark.parametrize("fold", [merge, merge_and_unload])
def test_a_delta_that_is_not_finite_is_refused_and_nothing_changes(model, perturb, fold):
    inject(model, CONFIG)
    perturb(model)
    name, layer = lora_layers(model)[-1]
    layer.B.data[0, 0] = math.nan
    before = weights(model)
    with pytest.raises(ValueError, match=f"delta of {name} is not finite"):
        fold(model)
    after = weights(model)
    assert all(torch.equal(after[n].nan_to_num(), before[n].nan_to_num()) for n in before)


def test_removing_brings_the_base_back(model, tokens, perturb):
    before, answers = weights(model), model(tokens)
    inject(model, CONFIG)
    perturb(model)
    remove(model)
    assert_same_weights(model, before)
    assert torch.equal(model(tokens), answers)


def test_removing_merged_adapters_is_refused(model, perturb):
    inject(model, CONFIG)
    perturb(model)
    merge(model)
    with pytest.raises(ValueError, match=r"cannot remove: .*unmerge\(model\)"):
        remove(model)


def test_disabled_adapters_answer_as_the_base_even_after_an_error(model, tokens, perturb):
    base = model(tokens)
    inject(model, CONFIG)
    perturb(model)
    adapted = model(tokens)
    with disabled(model):
        assert torch.equal(model(tokens), base)
    with pytest.raises(RuntimeError), disabled(model):
        raise RuntimeError
    assert torch.equal(model(tokens), adapted)


def test_merged_adapters_cannot_be_disabled(model, perturb):
    inject(model, CONFIG)
    merge(model)
    with pytest.raises(ValueError, match="cannot disable"), disabled(model):
        pass


@pytest.mark.parametrize("alpha", [24.0, 0.5])
def test_rescaled_adapters_answer_as_if_every_b_were_multiplied(model, tokens, perturb, alpha):
    inject(model, CONFIG)
    perturb(model)
    with rescaled(model, alpha):
        found = model(tokens)
    for _, layer in lora_layers(model):
        layer.B.data *= alpha / CONFIG.alpha
    torch.testing.assert_close(found, model(tokens))


def test_rescaled_deltas_are_multiplied(model, perturb):
    inject(model, CONFIG)
    perturb(model)
    before = [layer.delta() for _, layer in lora_layers(model)]
    with rescaled(model, 2 * CONFIG.alpha):
        deltas = [layer.delta() for _, layer in lora_layers(model)]
    assert all(torch.equal(now, 2 * was) for now, was in zip(deltas, before, strict=True))


def test_rescaling_is_undone_to_the_bit_even_after_an_error(model, tokens, perturb):
    inject(model, CONFIG)
    perturb(model)
    before, adapted = weights(model), model(tokens)
    with rescaled(model, 64.0):
        assert not torch.equal(model(tokens), adapted)
    with pytest.raises(RuntimeError), rescaled(model, 64.0):
        raise RuntimeError
    assert_same_weights(model, before)
    assert torch.equal(model(tokens), adapted)
    assert {layer.config for _, layer in lora_layers(model)} == {CONFIG}


def test_rescalings_within_each_other_are_undone_one_by_one(model, tokens, perturb):
    inject(model, CONFIG)
    perturb(model)
    adapted = model(tokens)
    with rescaled(model, 1.0):
        once = model(tokens)
        with rescaled(model, 64.0):
            pass
        assert torch.equal(model(tokens), once)
    assert torch.equal(model(tokens), adapted)


def test_rescaling_nothing_or_merged_adapters_is_refused(model, perturb):
    with pytest.raises(ValueError, match="nothing to rescale: no adapters"), rescaled(model, 2.0):
        pass
    inject(model, CONFIG)
    perturb(model)
    merge(model)
    with pytest.raises(ValueError, match="cannot rescale: 14 layers"), rescaled(model, 2.0):
        pass


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan])
def test_an_alpha_that_is_none_is_refused_and_nothing_changes(model, tokens, perturb, alpha):
    inject(model, CONFIG)
    perturb(model)
    adapted = model(tokens)
    with pytest.raises(ValueError, match="alpha"), rescaled(model, alpha):
        pass
    assert torch.equal(model(tokens), adapted)


def test_switching_to_eval_merges_nothing(model, perturb):
    inject(model, CONFIG)
    perturb(model)
    before = weights(model)
    model.eval()
    assert_same_weights(model, before)
    assert not any(layer.merged for _, layer in lora_layers(model))


# Memory


@pytest.fixture
def adapted_mini(perturb):
    model = Llama(PRESETS["mini"])
    inject(model, LoRAConfig(rank=4))
    perturb(model)
    return model


def test_a_merge_keeps_a_copy_and_no_more(adapted_mini):
    with LiveBytes(adapted_mini) as live:
        merge(adapted_mini)
        merged = live.now
        unmerge(adapted_mini)
    assert 1.5 < merged / live.before <= 2
    assert live.peak <= 2.1 * live.before
    assert live.now == live.before


def test_merging_for_good_needs_one_layer_more_at_a_time(adapted_mini):
    names = []
    with LiveBytes(adapted_mini) as live:
        merge_and_unload(adapted_mini, progress=names.append)
    assert live.peak <= 1.2 * live.before
    assert live.now < live.before
    assert len(names) == 28


def test_a_twin_shares_every_tensor_and_no_module(model, tokens, perturb):
    inject(model, LoRAConfig(rank=2))
    perturb(model)
    other = twin(model)
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(one is another for one, another in pairs)
    assert not set(model.modules()) & set(other.modules())
    before = model(tokens)
    with rescaled(other, 99.0):
        assert torch.equal(model(tokens), before)
        assert not torch.equal(other(tokens), before)
    assert torch.equal(other(tokens), before)
