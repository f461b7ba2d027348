"""Merged = adapted, unmerged = untouched, and nothing happens twice."""

import copy
import dataclasses
import math
import sys

import pytest
import torch
import transformers
from live_bytes import LiveBytes
from weights import assert_same_weights, weights

from lorakit.fingerprint import fingerprint_of
from lorakit.hf_folder import save_folder
from lorakit.lora import LoRAConfig, LoRALinear, inject, lora_layers
from lorakit.merging import (
    disabled,
    merge,
    merge_and_unload,
    mergeable,
    remove,
    rescaled,
    twin,
    unmerge,
)
from lorakit.model import Llama
from lorakit.presets import PRESETS
from lorakit.qlora import dequantize_, quantize_

CONFIG = LoRAConfig(rank=4, alpha=12.0)

each_fold = pytest.mark.parametrize("fold", [merge, merge_and_unload])


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


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_merge_that_breaks_off_has_merged_nothing(model, tokens, perturb, monkeypatch, error):
    inject(model, CONFIG)
    perturb(model)
    before, adapted = weights(model), model(tokens)
    third, whole = lora_layers(model)[2][1], LoRALinear.merged_weight

    def broken(layer, dtype=None):
        if layer is third:
            raise error
        return whole(layer, dtype)

    monkeypatch.setattr(LoRALinear, "merged_weight", broken)
    with pytest.raises(error):
        merge(model)
    assert not any(layer.merged for _, layer in lora_layers(model))
    assert_same_weights(model, before)
    assert torch.equal(model(tokens), adapted)
    monkeypatch.undo()
    merge(model)
    unmerge(model)
    assert_same_weights(model, before)


def interrupted_at(call, line: int) -> bool:
    """Whether Ctrl-C fell into `call`, at this line of all that it runs in what changes a model."""
    seen = 0

    def watch(frame, event, arg):
        nonlocal seen
        place = frame.f_code
        if not place.co_filename.endswith("lorakit/merging.py") and (
            place.co_name not in ("set_submodule", "__setattr__")
        ):
            return None
        seen += event == "line"
        if event == "line" and seen == line:
            raise KeyboardInterrupt
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@each_fold
def test_ctrl_c_at_any_line_leaves_each_layer_merged_or_as_it_was(model, tokens, perturb, fold):
    names = inject(model, LoRAConfig(rank=2, targets=("v_proj",)))
    perturb(model)
    whole, adapted = copy.deepcopy(model), model(tokens)
    fold(whole)
    states, line, broken = set(), 0, True
    while broken:
        line += 1
        other = copy.deepcopy(model)
        broken = interrupted_at(lambda other=other: fold(other), line)
        here = dict(lora_layers(other))
        states.add(tuple(name in here for name in names))
        assert not broken or not any(layer.merged for layer in here.values())
        for name in names:
            expected = model if name in here and broken else whole
            W, wanted = (net.get_submodule(name) for net in (other, expected))
            assert_same_weights(W, weights(wanted))
        torch.testing.assert_close(other(tokens), adapted)
        if broken and here:
            fold(other)
        assert_same_weights(other, weights(whole))
    assert line > 50
    some = {(False, True), (False, False)} if fold is merge_and_unload else set()
    assert states == {(True, True), *some}


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


@each_fold
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


@each_fold
@pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf])
def test_a_base_that_is_not_finite_is_refused_by_name_and_nothing_changes(
    model, perturb, fold, entry
):
    inject(model, CONFIG)
    perturb(model)
    name, layer = lora_layers(model)[-1]
    layer.base.weight.data[0, 0] = entry
    before = weights(model)
    with pytest.raises(ValueError, match=f"base weight of {name} is not finite in float32"):
        fold(model)
    after = weights(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n].nan_to_num(), before[n].nan_to_num()) for n in before)


@each_fold
def test_large_numbers_that_sum_to_infinity_are_finite(model, perturb, fold):
    inject(model, CONFIG)
    perturb(model)
    _, layer = lora_layers(model)[-1]
    layer.base.weight.data.fill_(1e38)
    assert not layer.base.weight.sum().isfinite()
    fold(model)
    assert (layer.base.weight == 1e38).all()


def test_a_base_that_the_wanted_dtype_does_not_reach_is_told_from_the_sum(model, perturb):
    inject(model, CONFIG)
    perturb(model)
    name, layer = lora_layers(model)[-1]
    layer.base.weight.data[0, 0] = -1e5
    with pytest.raises(ValueError, match=f"base weight of {name} is not finite in float16"):
        mergeable(model, torch.float16)
    assert mergeable(model, torch.bfloat16) == mergeable(model) == lora_layers(model)


def overflowing(model, perturb, size: float):
    """In float16, one entry of the last layer's W + delta is of this size; all others are small."""
    model.half()
    inject(model, CONFIG)
    perturb(model)
    name, layer = lora_layers(model)[-1]
    with torch.no_grad():
        layer.B[0] *= (size - layer.base.weight[0, 0].item()) / layer.delta()[0, 0]
        layer.A[:, 1:] = 0
    return name, layer


@each_fold
@pytest.mark.parametrize("size", [66_000, -70_000])
def test_a_sum_beyond_float16_is_refused_by_name_and_nothing_changes(model, perturb, fold, size):
    name, _ = overflowing(model, perturb, size)
    before = weights(model)
    message = f"{name} would hold a number beyond 65504, where float16 ends; merge in a dtype of"
    with pytest.raises(ValueError, match=message):
        fold(model)
    assert_same_weights(model, before)
    assert len(lora_layers(model)) == 14


@each_fold
@pytest.mark.parametrize("size", [60_000, -65_000])
def test_a_sum_just_within_float16_is_merged(model, perturb, fold, size):
    _, layer = overflowing(model, perturb, size)
    fold(model)
    assert layer.base.weight[0, 0].item() == pytest.approx(size, rel=1e-3)


@each_fold
def test_a_small_delta_on_a_weight_at_the_end_of_float16_is_refused(model, perturb, fold):
    name, layer = overflowing(model, perturb, 30.0)
    layer.base.weight.data[0, 0] = 65_500
    with pytest.raises(ValueError, match=f"{name} would hold a number beyond 65504"):
        fold(model)
    layer.base.weight.data[0, 0] = -65_500
    fold(model)
    assert layer.base.weight[0, 0].item() == pytest.approx(30 - 65_500, abs=32)


@each_fold
def test_deltas_far_below_zero_are_refused_as_those_above(model, perturb, fold):
    name, layer = overflowing(model, perturb, 1.0)
    layer.A.data.fill_(100.0)
    layer.B.data.fill_(-100.0)
    with pytest.raises(ValueError, match=f"{name} would hold a number beyond 65504"):
        fold(model)


def test_a_merge_for_good_forgets_the_file_and_a_refused_one_does_not(model, perturb):
    inject(model, CONFIG)
    perturb(model)
    before = fingerprint_of(model)
    merge(model)
    with pytest.raises(ValueError, match="cannot merge"):
        merge_and_unload(model)
    unmerge(model)
    assert fingerprint_of(model) == before is not None
    merge_and_unload(model)
    assert fingerprint_of(model) is None


@each_fold
def test_a_quantised_base_is_refused_with_the_way_out_and_nothing_changes(
    model, tokens, perturb, fold
):
    [name, *_] = quantize_(model)
    inject(model, CONFIG)
    perturb(model)
    before, adapted = weights(model), model(tokens)
    message = f"base of {name} is quantised.* onto the original base .* or dequantize_"
    with pytest.raises(ValueError, match=message):
        fold(model)
    assert_same_weights(model, before)
    assert torch.equal(model(tokens), adapted)
    dequantize_(model)
    fold(model)
    torch.testing.assert_close(model(tokens), adapted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_merged_weight_is_the_sum_rounded_once(model, perturb, dtype):
    model.to(dtype)
    inject(model, CONFIG)
    perturb(model)
    for _, layer in lora_layers(model):
        B, A = layer.B.double(), layer.A.double()
        exact = layer.base.weight.double() + layer.config.scale * B @ A
        found = layer.merged_weight()
        assert found.dtype == dtype
        # Half a step of the dtype, and the tiny part that float32 products may be off.
        bound = exact.abs() * torch.finfo(dtype).eps / 2 + 1e-6
        assert ((found.double() - exact).abs() <= bound).all()


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


# As a folder


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@torch.no_grad()
def test_a_merged_model_is_a_folder_that_transformers_answers_alike_from(
    model, tokens, tokenizer, perturb, tmp_path, tied
):
    net = Llama(dataclasses.replace(model.config, tie_word_embeddings=tied))
    net.load_state_dict(model.state_dict())
    if not tied:
        net.lm_head.weight.mul_(-2)
    base = net(tokens)
    inject(net, CONFIG)
    perturb(net)
    adapted = net(tokens)
    merge_and_unload(net)
    folder = save_folder(net, tokenizer, tmp_path / "merged")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    found = theirs(tokens).logits
    assert (found - adapted).abs().max() < 1e-5 * adapted.abs().max()
    assert (adapted - base).abs().max() > 0.01 * base.abs().max()
    assert theirs.config.tie_word_embeddings == tied


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_folder_holds_the_bits_of_the_merge_here(
    model, tokenizer, perturb, tmp_path, dtype
):
    model.to(dtype)
    inject(model, CONFIG)
    perturb(model)
    merge(model)
    here = {name: layer.base.weight.clone() for name, layer in lora_layers(model)}
    unmerge(model)
    merge_and_unload(model)
    folder = save_folder(model, tokenizer, tmp_path / "merged")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    for name, W in here.items():
        found = theirs.get_submodule(name).weight
        assert found.dtype == dtype
        assert torch.equal(found, W)
    assert theirs.state_dict().keys() == model.state_dict().keys()
    assert_same_weights(model, theirs.state_dict())
