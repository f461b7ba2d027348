"""Three places to merge: one exact, one off by what quantising took, one by quantising again."""

import copy
import math

import pytest
import torch

from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.merging import merge_and_unload
from lorakit.qlora import QuantizedLinear, dequantize_, quantize_, quantized_layers
from lorakit.qlora_merge import merge_errors, merge_everywhere
from lorakit.quantize import dequantize, quantize

CONFIG = LoRAConfig(rank=4, alpha=12.0, targets=("q_proj", "up_proj"))
PLACES = ["original", "dequantised", "quantised again"]


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
    assert list(found) == PLACES
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
