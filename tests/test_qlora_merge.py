"""Places to merge: one exact, one off by what quantising took, two by quantising once more."""

import copy
import math

import pytest
import torch

from lorakit.adapters import load_adapter
from lorakit.checkpoint import MINI_FOLDER, load_base
from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.merging import merge_and_unload
from lorakit.qlora import (
    QuantizedLinear,
    dequantize_,
    quantize_,
    quantized_form,
    quantized_layers,
)
from lorakit.qlora_merge import ALL_PLACES, PLACES, merge_errors, merge_everywhere, parse_form
from lorakit.quantize import dequantize, quantize
from lorakit.tasks import load_task

CONFIG = LoRAConfig(rank=4, alpha=12.0, targets=("q_proj", "up_proj"))


@pytest.fixture
def base(model):
    return model.eval()


@pytest.fixture
def trained(base, perturb):
    net = copy.deepcopy(base)
    quantize_(net)
    inject(net, CONFIG)
    perturb(net, 0.05)
    return net


def test_the_dequantised_place_alone_is_the_model_as_trained(trained, base, tokens):
    found = merge_errors(trained, base, tokens)
    assert tuple(found) == PLACES
    assert found["dequantised"].logits < 1e-5 and found["dequantised"].delta < 1e-6
    for place in ("original", "quantised again"):
        assert found[place].logits > 0.01 and found[place].delta > 0.1


def test_the_errors_of_the_deltas_are_those_of_matrices_by_hand(trained, base, tokens):
    squares, whole = dict.fromkeys(PLACES, 0.0), 0.0
    for name, layer in lora_layers(trained):
        W, Q = base.get_submodule(name).weight, layer.base.weight
        delta = 3.0 * (layer.B @ layer.A)
        again = dequantize(quantize(Q + delta))
        squares["original"] += (W - Q).square().sum().item()
        squares["quantised again"] += (again - Q - delta).square().sum().item()
        whole += delta.square().sum().item()
    found = merge_errors(trained, base, tokens)
    for place in PLACES:
        expected = math.sqrt(squares[place] / whole)
        assert found[place].delta == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_error_of_the_logits_is_that_of_the_merged_model(trained, base, tokens):
    plain = copy.deepcopy(base)
    inject(plain, CONFIG)
    for (_, layer), (_, source) in zip(lora_layers(plain), lora_layers(trained), strict=True):
        layer.A.data, layer.B.data = source.A.data, source.B.data
    merge_and_unload(plain)
    expected, logits = trained.eval()(tokens), plain(tokens)
    off = ((logits - expected).norm() / expected.norm()).item()
    assert merge_errors(trained, base, tokens)["original"].logits == pytest.approx(off, rel=1e-4)


def test_the_merged_models_are_what_their_places_say(trained, base, tokens):
    merged = merge_everywhere(trained, base)
    assert [len(quantized_layers(net)) for net in merged.values()] == [0, 0, 14]
    assert not any(lora_layers(net) for net in merged.values())
    name = "model.layers.0.self_attn.q_proj"
    again = merged["quantised again"].get_submodule(name)
    assert isinstance(again, QuantizedLinear)
    assert again.form == trained.get_submodule(name).base.form
    untouched = "model.layers.0.mlp.down_proj.weight"  # no adapter is on it
    assert torch.equal(merged["original"].get_parameter(untouched), base.get_parameter(untouched))
    W = trained.get_submodule("model.layers.0.mlp.down_proj").weight
    assert torch.equal(merged["dequantised"].get_parameter(untouched), W)


def test_the_original_quantised_after_the_merge_is_a_place_for_who_asks(trained, base, tokens):
    place = "original, quantised"
    merged = merge_everywhere(trained, base, (place,))
    assert list(merged) == [place]
    whole = 0.0
    squares = 0.0
    for name, layer in lora_layers(trained):
        W, Q, delta = base.get_submodule(name).weight, layer.base.weight, layer.delta()
        made = merged[place].get_submodule(name)
        assert isinstance(made, QuantizedLinear) and made.form == layer.base.form
        assert torch.equal(made.weight, dequantize(quantize(W + delta)))
        squares += (made.weight - Q - delta).square().sum().item()
        whole += delta.square().sum().item()
    found = merge_errors(trained, base, tokens, ALL_PLACES)
    assert list(found) == [*PLACES, place]
    assert found[place].delta == pytest.approx(math.sqrt(squares / whole), rel=1e-4)


@pytest.mark.parametrize("size", [1, 0.02], ids=["a quarter of W", "half a hundredth"])
@torch.no_grad()
def test_quantising_the_merged_original_helps_where_deltas_are_small(size):
    """An adapter of the mini base, as trained and faint: errors in deltas."""
    base, tokenizer = load_base("mini")
    net = copy.deepcopy(base)
    quantize_(net)
    load_adapter(net, MINI_FOLDER.parent / "adapters" / "record-0", allow_other_base=True)
    for _, layer in lora_layers(net):
        layer.B *= size
    question = tokenizer.encode(load_task("json").heldout[0].prompt)
    found = merge_errors(net, base, torch.tensor([question]), ALL_PLACES)
    errors = {place: error.delta for place, error in found.items()}
    if size == 1:  # W to Q(W), and rounding once more: two errors of a third each
        assert 0.3 < errors["quantised again"] < errors["original"] < 0.4
        assert 0.45 < errors["original, quantised"] < 0.55
    else:  # most numbers fall to the level where Q(W) has them, but the delta moves some too far
        assert errors["original"] > 15
        assert 5 < errors["original, quantised"] < 8
        assert 1 < errors["quantised again"] < 1.1  # nothing of the delta is left


def test_a_place_that_there_is_not_is_refused(trained, base):
    with pytest.raises(ValueError, match=r"no place 'nowhere': give some of \('original', 'deq"):
        merge_everywhere(trained, base, ("original", "nowhere"))


@pytest.mark.parametrize("form", [{}, {"block": 32, "codebook": "int4", "double": False}], ids=str)
def test_a_form_in_words_is_read_back(base, form):
    quantize_(base, **form)
    [(_, layer), *_] = quantized_layers(base)
    assert parse_form(quantized_form(base)) == layer.form


@pytest.mark.parametrize("form", ["nf4", "nf5/64/double", "nf4/64/half", "nf4/64/double, fp4/64/"])
def test_what_is_no_form_is_refused(form):
    with pytest.raises(ValueError, match="is no form of 4 bits: one is as 'nf4/64/double'"):
        parse_form(form)


def test_a_model_in_other_blocks_is_quantised_again_in_those(base, perturb):
    quantize_(base, block=32, codebook="int4", double=False)
    plain = copy.deepcopy(base)
    dequantize_(plain)
    inject(base, CONFIG)
    perturb(base)
    for _, layer in quantized_layers(merge_everywhere(base, plain)["quantised again"]):
        assert layer.form == {"block": 32, "codebook": "int4", "double": False}


def test_neither_model_is_changed(trained, base, tokens):
    trained.train()
    before = trained(tokens), base(tokens)
    merge_errors(trained, base, tokens)
    assert trained.training and not base.training
    assert torch.equal(trained(tokens), before[0]) and torch.equal(base(tokens), before[1])


def test_what_cannot_be_merged_so_is_refused(trained, base, tokens):
    with pytest.raises(ValueError, match="no adapters"):
        merge_errors(copy.deepcopy(base), base, tokens)
    plain = copy.deepcopy(base)
    inject(plain, CONFIG)
    with pytest.raises(ValueError, match=r"the base of model\.layers\.0.*q_proj is not quantised"):
        merge_errors(plain, base, tokens)
    with pytest.raises(ValueError, match=r"base has no plain model\.layers\.0.*q_proj"):
        merge_errors(trained, trained, tokens)
    for _, layer in lora_layers(trained):
        torch.nn.init.zeros_(layer.B)
    with pytest.raises(ValueError, match="every B is zero"):
        merge_errors(trained, base, tokens)
