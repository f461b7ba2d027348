"""4 bits under adapters: the gradients of the plain model, no bit of the base moved, none kept."""

import copy

import pytest
import torch
from live_bytes import LiveBytes
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lorakit.adapters import load_adapter, save_adapter
from lorakit.checkpoint import load_base, save_folder
from lorakit.deltas import deltas
from lorakit.fingerprint import OtherPrecision
from lorakit.linear import Linear
from lorakit.lora import LoRAConfig, inject, lora_layers, trainable
from lorakit.merging import merge, merge_and_unload, remove, twin
from lorakit.model import Llama
from lorakit.presets import PRESETS
from lorakit.qlora import (
    QuantizedLinear,
    dequantize_,
    quantize_,
    quantized_bytes,
    quantized_layers,
)
from lorakit.quantize import dequantize, quantize
from lorakit.step import TrainConfig, make_optimizer, step

CONFIG = LoRAConfig(rank=4, alpha=12.0)
LINEAR = 14  # layers of the tiny model


@pytest.fixture(autouse=True)
def same_layers():
    """Layers made in a test start alike each time."""
    torch.manual_seed(0)


def pair(model: Llama, perturb) -> tuple[Llama, Llama]:
    """QLoRA, and LoRA over the plain model of the same quantised values; the same adapters."""
    quantize_(model)
    plain = copy.deepcopy(model)
    dequantize_(plain)
    for net in (model, plain):
        inject(net, CONFIG, generator=torch.Generator().manual_seed(3))
        perturb(net)
    return model, plain


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {
        f"{path}.{name}": getattr(layer, name).clone()
        for path, layer in quantized_layers(model)
        for name in layer.stored
    }


def assert_same_bits(model: nn.Module, before: dict[str, Tensor]) -> None:
    after = bits(model)
    assert after.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())


# The layer


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_computes_what_a_plain_layer_of_its_weight_does(bias, dtype):
    plain = nn.Linear(40, 24, bias=bias).to(dtype)
    layer = QuantizedLinear(plain)
    x = torch.randn(3, 5, 40, dtype=dtype)
    assert layer(x).dtype == dtype
    expected = nn.functional.linear(x, layer.weight, plain.bias)
    rtol = 1e-5 if dtype == torch.float32 else 0.02  # the bias is added to a rounded product
    torch.testing.assert_close(layer(x), expected, rtol=rtol, atol=rtol)
    assert torch.equal(layer.weight, dequantize(quantize(plain.weight), dtype))
    assert layer.weight.dtype == dtype and not layer.weight.requires_grad


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_another_dtype_changes_the_weights_dtype_and_no_stored_bit(model, dtype, double):
    quantize_(model, double=double)
    before = bits(model)
    name, layer = quantized_layers(model)[0]
    W = layer.weight
    model.to(dtype)
    assert_same_bits(model, before)
    assert model.get_submodule(name).weight.dtype == dtype
    model.float()
    assert torch.equal(model.get_submodule(name).weight, W)


def test_nothing_of_it_is_a_parameter_but_the_bias_which_is_frozen():
    layer = QuantizedLinear(nn.Linear(40, 24))
    assert [name for name, p in layer.named_parameters()] == ["bias"]
    assert not layer.bias.requires_grad


def test_a_change_to_the_weight_it_shows_changes_no_layer():
    layer = QuantizedLinear(nn.Linear(40, 24))
    before = layer.weight
    layer.weight.zero_()
    assert torch.equal(layer.weight, before) and before.any()
    with pytest.raises((AttributeError, KeyError)):
        layer.weight = nn.Parameter(torch.zeros(24, 40))


def test_the_gradient_goes_to_x_alone_and_is_that_of_the_plain_layer():
    layer = QuantizedLinear(nn.Linear(40, 24))
    x = torch.randn(3, 5, 40, requires_grad=True)
    g = torch.randn(3, 5, 24)
    layer(x).backward(g)
    torch.testing.assert_close(x.grad, g @ layer.weight)
    assert layer.bias.grad is None
    double = QuantizedLinear(nn.Linear(6, 4, dtype=torch.float64), block=8)
    assert torch.autograd.gradcheck(double, torch.randn(3, 6, dtype=torch.float64).requires_grad_())


def test_for_backward_it_keeps_its_stored_bits_and_no_weight():
    layer, kept = QuantizedLinear(nn.Linear(64, 64, bias=False)), []
    x = torch.randn(3, 64, requires_grad=True)

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    own = {getattr(layer, name).data_ptr() for name in layer.stored}
    assert {tensor.data_ptr() for tensor in kept} == own


def test_one_weight_at_a_time_is_whole_and_none_between_the_passes(model):
    plain, weight = LiveBytes(nn.Module()), 256 * 256 * 4
    layers = nn.Sequential(*(nn.Linear(256, 256, bias=False) for _ in range(4)))
    for place in range(4):
        layers[place] = QuantizedLinear(layers[place])
    x = torch.randn(1, 256, requires_grad=True)
    with plain:
        y = layers(x).sum()
        between = plain.now
        y.backward()
    assert between < weight / 2
    assert weight < plain.peak < 2 * weight


@pytest.mark.parametrize("enabled", [True, False])
def test_under_autocast_products_are_in_16_bits_and_gradients_in_those_of_x(enabled):
    layer = QuantizedLinear(nn.Linear(40, 24, bias=False))
    x = torch.randn(3, 40, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        y = layer(x)
    assert y.dtype == (torch.bfloat16 if enabled else torch.float32)
    y.float().sum().backward()
    assert x.grad.dtype == torch.float32
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, -1), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("double", [False, True])
def test_copies_twins_and_states_hold_the_same_bits(model, tokens, double):
    quantize_(model, double=double)
    expected = model(tokens)
    for other in (copy.deepcopy(model), twin(model)):
        assert torch.equal(other(tokens), expected)
    fresh = Llama(model.config)
    quantize_(fresh, double=double)
    assert not torch.equal(fresh(tokens), expected)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(tokens), expected)


def test_it_can_be_checkpointed(model):
    layer = QuantizedLinear(nn.Linear(40, 24))
    grads = []
    for run in (layer, lambda x: checkpoint(layer, x, use_reentrant=False)):
        x = torch.ones(3, 40, requires_grad=True)
        run(x).square().sum().backward()
        grads.append(x.grad)
    assert torch.equal(*grads)


# A model of them


def test_every_linear_layer_but_the_head_is_quantised_and_nothing_else_changed(model):
    before = {name: p.clone() for name, p in model.named_parameters()}
    names = quantize_(model)
    assert len(names) == LINEAR == len(quantized_layers(model))
    assert names == [name for name, _ in quantized_layers(model)]
    assert model.lm_head.weight is model.model.embed_tokens.weight
    rest = {name: p for name, p in model.named_parameters()}
    assert rest.keys() == before.keys() - {f"{name}.weight" for name in names}
    assert all(torch.equal(p, before[name]) for name, p in rest.items())


def test_the_model_still_speaks_much_as_it_did(model, tokens):
    before = model(tokens)
    quantize_(model)
    off = (model(tokens) - before).norm() / before.norm()
    assert 0.01 < off < 0.5


def test_the_mode_and_the_fingerprint_stay(model, tiny_base):
    loaded, _ = load_base(tiny_base)
    fingerprint = loaded.fingerprint
    loaded.eval()
    quantize_(loaded)
    assert loaded.fingerprint == fingerprint
    assert not any(layer.training for _, layer in quantized_layers(loaded))
    dequantize_(loaded)
    assert not any(module.training for module in loaded.modules())


def test_the_way_back_is_plain_layers_of_the_same_values(model, tokens):
    quantize_(model)
    expected, weights = model(tokens), [layer.weight for _, layer in quantized_layers(model)]
    names = dequantize_(model)
    assert len(names) == LINEAR and quantized_layers(model) == []
    for name, W in zip(names, weights, strict=True):
        layer = model.get_submodule(name)
        assert type(layer) is Linear and torch.equal(layer.weight, W)
        assert not layer.weight.requires_grad
    torch.testing.assert_close(model(tokens), expected)


def test_quantising_what_was_dequantised_changes_nothing_more(model, tokens):
    quantize_(model, double=False)
    expected = model(tokens)
    dequantize_(model)
    quantize_(model, double=False)
    torch.testing.assert_close(model(tokens), expected, rtol=1e-4, atol=1e-4)


def test_twice_is_refused_and_so_are_adapters_first_and_nothing_to_undo(model):
    with pytest.raises(ValueError, match="nothing to dequantise"):
        dequantize_(model)
    adapted = copy.deepcopy(model)
    inject(adapted, CONFIG)
    with pytest.raises(ValueError, match=r"model has 14 adapters \(first: model\.layers\.0"):
        quantize_(adapted)
    assert quantized_layers(adapted) == []
    quantize_(model)
    before = bits(model)
    with pytest.raises(ValueError, match=r"quantised already, 14 layers \(first: model\.layers"):
        quantize_(model)
    assert_same_bits(model, before)


def test_a_weight_that_is_not_finite_is_named_and_nothing_is_changed(model):
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"model\.layers\.1\.mlp\.down_proj holds a number that"):
        quantize_(model)
    assert quantized_layers(model) == []


@pytest.mark.parametrize("options", [{"block": 5}, {"codebook": "nf3"}])
def test_a_bad_option_is_refused_before_anything_is_changed(model, options):
    with pytest.raises(ValueError, match="must be"):
        quantize_(model, **options)
    assert quantized_layers(model) == []


# Bytes


def test_the_bytes_are_those_that_the_tensors_hold():
    model = Llama(PRESETS["mini"])
    whole = sum(p.nbytes for p in model.parameters())
    quantize_(model)
    found = quantized_bytes(model)
    assert found.weights == 802_816
    assert found.plain == 4 * found.weights == whole - found.rest
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in model.buffers()}
    assert found.quantized == sum(storage.nbytes() for storage in storages.values())
    assert found.rest == sum(p.nbytes for p in model.parameters())
    assert found.per_weight == pytest.approx(0.516, rel=0.005)
    assert found.ratio == pytest.approx(0.1636, rel=1e-3)  # embedding and norms are as they were


def test_a_base_in_half_precision_gains_half_as_much(model):
    quantize_(model.bfloat16())
    assert (found := quantized_bytes(model)).plain == 2 * found.weights
    dequantize_(model)
    with pytest.raises(ValueError, match="no layer is in 4 bits"):
        quantized_bytes(model)


# Adapters over them


def test_only_a_and_b_train_and_a_fresh_adapter_changes_nothing(model, tokens):
    names = quantize_(model)
    before = model(tokens)
    assert inject(model, CONFIG) == names
    assert torch.equal(model(tokens), before)
    train = {name for name, p in model.named_parameters() if p.requires_grad}
    assert train == {f"{name}.{part}" for name in names for part in "AB"}


def test_the_gradients_are_those_of_lora_over_the_plain_model_of_the_same_values(
    model, tokens, perturb
):
    losses, grads = [], []
    for net in pair(model, perturb):
        loss = net(tokens).square().mean()
        loss.backward()
        losses.append(loss)
        grads.append([p.grad for p in trainable(net)])
    torch.testing.assert_close(*losses)
    assert len(grads[0]) == 2 * LINEAR
    for found, expected in zip(*grads, strict=True):
        assert expected.any()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_training_moves_no_bit_of_the_base(model, tokens, perturb):
    qlora, lora = pair(model, perturb)
    before, config = bits(qlora), TrainConfig(lr=0.01)
    for net in (qlora, lora):
        optimizer = make_optimizer(net, config)
        for _ in range(5):
            step(net, optimizer, [(tokens, tokens)], config)
    assert_same_bits(qlora, before)
    torch.testing.assert_close(qlora(tokens), lora(tokens), rtol=1e-4, atol=1e-4)
    assert not torch.equal(trainable(qlora)[1], trainable(pair_start(qlora, perturb))[1])


def pair_start(model: Llama, perturb) -> Llama:
    fresh = copy.deepcopy(model)
    remove(fresh)
    inject(fresh, CONFIG, generator=torch.Generator().manual_seed(3))
    perturb(fresh)
    return fresh


def test_nothing_that_a_step_keeps_is_as_large_as_a_weight_made_whole(perturb):
    """With one token every activation is small, and a kept weight would show."""
    model, kept = Llama(PRESETS["mini"]), []
    quantize_(model)
    inject(model, CONFIG)
    stored = {t.data_ptr() for t in [*model.parameters(), *model.buffers()]}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in stored:
            kept.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.zeros(1, 1, dtype=torch.long))
    assert kept and max(kept) < 128 * 128 * 4 / 8


def test_the_delta_is_read_off_the_adapters_and_taking_them_off_leaves_the_4_bits(
    model, tokens, perturb
):
    qlora, lora = pair(model, perturb)
    for found, expected in zip(deltas(qlora), deltas(lora), strict=True):
        assert torch.equal(found.values, expected.values)
    for (_, found), (_, expected) in zip(lora_layers(qlora), lora_layers(lora), strict=True):
        torch.testing.assert_close(found.merged_weight(), expected.merged_weight())
    remove(qlora)
    assert len(quantized_layers(qlora)) == LINEAR


def test_a_merge_is_refused_until_the_base_is_dequantised(model, tokens, perturb):
    model, _ = pair(model, perturb)
    expected = model(tokens)
    for act in (merge, merge_and_unload):
        with pytest.raises(ValueError, match=r"is quantised.*dequantize_\(model\)"):
            act(model)
    torch.testing.assert_close(model(tokens), expected, rtol=0, atol=0)
    dequantize_(model)
    merge_and_unload(model)
    torch.testing.assert_close(model(tokens), expected, rtol=1e-4, atol=1e-4)


# Files


@pytest.mark.parametrize("adapted", [False, True])
def test_a_folder_refuses_4_bits_and_says_the_way_out(model, tokenizer, tmp_path, adapted):
    quantize_(model)
    if adapted:
        inject(model, CONFIG)
    with pytest.raises(ValueError, match=r"14 layers in 4 bits .* dequantize_ makes them plain"):
        save_folder(model, tokenizer, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_an_adapter_goes_from_one_quantised_base_to_another_and_to_the_plain_one(
    tiny_base, tmp_path, tokens, perturb
):
    model, other, plain = (load_base(tiny_base)[0] for _ in range(3))
    quantize_(model)
    inject(model, CONFIG)
    perturb(model)
    save_adapter(model, tmp_path / "adapter")
    quantize_(other)
    load_adapter(other, tmp_path / "adapter")
    assert torch.equal(other(tokens), model(tokens))
    with pytest.warns(OtherPrecision, match="nf4/64/double.*: over the plain weights"):
        load_adapter(plain, tmp_path / "adapter")
    assert torch.equal(lora_layers(plain)[0][1].B, lora_layers(model)[0][1].B)
