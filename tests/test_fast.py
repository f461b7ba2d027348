"""The fast layer and the packed one compute what lora.py computes."""

import copy
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn

from lorakit import fast, linear
from lorakit.fast import FastLoRALinear, as_for, forget, obstacle, set_fast
from lorakit.linear import MANY
from lorakit.lora import LoRAConfig, LoRALinear, inject, lora_layers
from lorakit.merging import merge
from lorakit.model import Llama, ModelConfig
from lorakit.packed import packed
from lorakit.presets import PRESETS
from lorakit.qlora import quantize_
from lorakit.step import response_loss

CONFIG = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=112,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
TOKENS = torch.randint(0, 64, (3, 20), generator=torch.Generator().manual_seed(3))
# Ranks and scales that differ among siblings, and a rank that fills no multiple of eight.
UNLIKE = {"rank_pattern": {"k_proj": 2}, "alpha_pattern": {"up_proj": 3.0}}


def adapted(dtype: torch.dtype = torch.float64, rank: int = 3, **options) -> Llama:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Llama(CONFIG).to(dtype)
    draw = torch.Generator().manual_seed(1)
    inject(model, LoRAConfig(rank=rank, alpha=5.0, **options), generator=draw)
    for _, layer in lora_layers(model):
        layer.B.data.normal_(std=0.1, generator=draw)
    return model


def gradients(model: nn.Module, tokens: torch.Tensor = TOKENS) -> dict[str, torch.Tensor]:
    """The loss, and the gradient of whatever trains."""
    for p in model.parameters():
        p.grad = None
    loss = response_loss(model(tokens), tokens)
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **found}


def difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest relative one, over the loss and all gradients."""
    assert found.keys() == expected.keys()
    pairs = ((found[name], expected[name]) for name in expected)
    return max(((a - b).norm() / b.norm()).item() for a, b in pairs)


@pytest.mark.parametrize("tokens", [1, MANY], ids=["few tokens", "many tokens"])
@pytest.mark.parametrize("options", [{}, UNLIKE, {"targets": ("k_proj", "up_proj")}, {"rank": 16}])
def test_the_fast_layer_is_the_taught_one_in_float64(options, tokens):
    model = adapted(**options)
    expected = gradients(model)
    set_fast(model, True)
    assert {type(layer) for _, layer in lora_layers(model)} == {FastLoRALinear}
    as_for(model, tokens, "cpu")
    assert difference(gradients(model), expected) < 1e-12


@pytest.mark.skipif(not linear.CARRIED, reason="this PyTorch carries no oneDNN")
@pytest.mark.parametrize("formed", [False, True])
@pytest.mark.parametrize("options", [{}, UNLIKE, {"targets": ("k_proj", "up_proj")}, {"rank": 16}])
def test_by_onednn_it_is_the_taught_layer_up_to_rounding(options, formed, monkeypatch):
    model = adapted(torch.float32, **options)
    expected = gradients(model)
    monkeypatch.setattr(linear, "ONEDNN", True)
    monkeypatch.setattr(linear, "MANY", 1)
    set_fast(model, True)
    as_for(model, MANY if formed else 1, "cpu")
    made = []
    matmul = fast.matmul
    monkeypatch.setattr(fast, "matmul", lambda *pair: made.append(pair[2]) or matmul(*pair))
    assert difference(gradients(model), expected) < 1e-5
    assert made and all(made)


@pytest.mark.parametrize("how", ["fast", "packed"])
def test_layers_that_are_compiled_are_one_graph_and_compute_the_same(how):
    model = adapted(torch.float32)
    expected = gradients(model)
    set_fast(model, True)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with packed(model) if how == "packed" else nullcontext():
        for layer in model.model.layers:
            layer.compile(dynamic=False, fullgraph=True, backend="aot_eager")
        assert difference(gradients(model), expected) < 1e-5
    assert torch._dynamo.utils.counters["frames"]["ok"] <= len(model.model.layers)


def test_for_many_tokens_less_is_kept_for_backward():
    x = torch.randn(MANY, 64, requires_grad=True)
    kept = []
    for rows in (x, x[:-1]):
        layer = inject_one()
        set_fast(nn.Sequential(layer), True)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=sizes: s.append(t.numel()), len):
            layer(rows)
        kept.append(sum(sizes) - rows.numel())
    assert kept[1] - kept[0] == 2 * (MANY - 1)  # h: a rank of numbers for each token


@pytest.mark.parametrize("options", [{}, UNLIKE, {"targets": ("k_proj", "up_proj")}, {"rank": 16}])
def test_the_packed_layers_are_the_taught_ones_in_float64(options):
    model = adapted(**options)
    expected = gradients(model)
    set_fast(model, True)
    with packed(model) as count:
        assert count > 0
        assert difference(gradients(model), expected) < 1e-12


def test_a_step_of_the_optimizer_reaches_what_is_packed():
    model = adapted()
    set_fast(model, True)
    with packed(model):
        gradients(model)
        for _, layer in lora_layers(model):
            layer.A.data.add_(0.1)
            layer.B.data.sub_(0.1)
        found = gradients(model)
    set_fast(model, False)
    assert difference(found, gradients(model)) < 1e-12


def test_after_packing_everything_is_in_memory_of_its_own_and_unchanged():
    model = adapted()
    set_fast(model, True)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    siblings = [layer.siblings for _, layer in lora_layers(model)]
    with packed(model):
        layer = model.get_submodule("model.layers.0.self_attn.q_proj")
        assert not layer.base.weight.is_contiguous()  # a view of the matrix
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])
        assert p.untyped_storage().nbytes() == p.nbytes
    assert [layer.siblings for _, layer in lora_layers(model)] == siblings
    assert not model._forward_pre_hooks


def test_after_an_error_nothing_stays_packed():
    model = adapted()
    set_fast(model, True)
    with pytest.raises(KeyError), packed(model):
        raise KeyError
    assert all(p.is_contiguous() for p in model.parameters())


@pytest.mark.parametrize("which", ["fast", "packed"])
def test_a_bias_is_added_and_trains_if_it_may(which):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    inject(model, LoRAConfig(rank=2, targets=("0", "2")))
    for _, layer in lora_layers(model):
        layer.B.data.normal_(generator=torch.Generator().manual_seed(1))
        layer.base.bias.requires_grad_(True)
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def found() -> dict[str, torch.Tensor]:
        for p in model.parameters():
            p.grad = None
        (model(x) ** 2).sum().backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    expected = found()
    set_fast(model, True)
    if which == "packed":
        with packed(model):
            assert difference(found(), expected) < 1e-12
    else:
        assert difference(found(), expected) < 1e-12


def test_the_delta_reaches_the_output_where_the_weight_would_round_it_away():
    """|delta| / |W| = 1e-3 in bfloat16; the share of it that arrives, beside that of a merge."""
    draw = torch.Generator().manual_seed(0)
    base = nn.Linear(256, 256, bias=False)
    base.weight.data.normal_(generator=draw)
    model = nn.Sequential(base.bfloat16())
    inject(model, LoRAConfig(rank=8, alpha=8.0, targets=("0",)), generator=draw)
    [(_, layer)] = lora_layers(model)
    layer.B.data.normal_(generator=draw)
    layer.B.data *= 1e-3 * base.weight.float().norm() / layer.delta().norm()
    x = torch.randn(4096, 256, generator=draw).bfloat16()
    expected = x.float() @ layer.delta().T

    def arrives(y: torch.Tensor) -> float:
        """Of the delta, as its rounding errors average out."""
        without = x.float() @ base.weight.float().T
        return (((y.float() - without) * expected).sum() / (expected**2).sum()).item()

    rounded = (base.weight.float() + layer.delta()).bfloat16()
    assert arrives(x.float() @ rounded.float().T) < 0.7  # of what is merged, much is lost
    set_fast(model, True)
    assert arrives(model(x)) == pytest.approx(1, abs=0.02)
    with packed(model):
        assert arrives(model(x)) == pytest.approx(1, abs=0.02)


def inject_one(dropout: float = 0.0) -> LoRALinear:
    model = nn.Sequential(nn.Linear(64, 64))
    inject(model, LoRAConfig(rank=2, targets=("0",), dropout=dropout))
    [(_, layer)] = lora_layers(model)
    return layer


def test_what_takes_the_taught_path_says_so():
    x = torch.randn(2, 64)
    assert obstacle(inject_one(), x) is None
    assert "dropout" in obstacle(inject_one(dropout=0.1))
    assert obstacle(inject_one(dropout=0.1).eval()) is None
    assert "another precision" in obstacle(inject_one(), x.double())
    trains = inject_one()
    trains.base.weight.requires_grad_(True)
    assert "trains" in obstacle(trains)
    heard = inject_one()
    heard.base.register_forward_hook(lambda *_: None)
    assert "more than a linear layer" in obstacle(heard)
    silenced = inject_one()
    silenced.enabled = False
    assert "switched off" in obstacle(silenced)
    model = nn.Sequential(inject_one())
    merge(model)
    assert "merged" in obstacle(model[0])
    with torch.autocast("cpu", torch.bfloat16):
        assert "autocast" in obstacle(inject_one(), x)


def test_a_quantised_base_takes_the_taught_path_and_trains_alike():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Llama(CONFIG)
    quantize_(model)
    inject(model, LoRAConfig(rank=2), generator=torch.Generator().manual_seed(1))
    expected = gradients(model)
    set_fast(model, True)
    assert all("quantised" in obstacle(layer) for _, layer in lora_layers(model))
    assert difference(gradients(model), expected) == 0
    with packed(model) as count:
        assert count == 0


def test_dropout_draws_as_in_the_taught_layer():
    model = adapted(dropout=0.5)
    torch.manual_seed(4)
    expected = gradients(model)
    set_fast(model, True)
    torch.manual_seed(4)
    assert difference(gradients(model), expected) == 0


def test_one_sibling_switched_off_takes_all_to_the_taught_path():
    model = adapted()
    model.get_submodule("model.layers.0.self_attn.k_proj").enabled = False
    expected = gradients(model)
    set_fast(model, True)
    assert difference(gradients(model), expected) < 1e-12


def test_siblings_given_inputs_of_their_own_compute_them():
    model = adapted()
    set_fast(model, True)
    attention = model.get_submodule("model.layers.0.self_attn")
    x, z = (torch.randn(2, 4, 32, dtype=torch.float64) for _ in range(2))
    found = attention.q_proj(x), attention.k_proj(z), attention.v_proj(x)
    set_fast(model, False)
    expected = attention.q_proj(x), attention.k_proj(z), attention.v_proj(x)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_copy_of_a_fast_model_is_a_model_of_its_own():
    model = adapted()
    set_fast(model, True)
    other = copy.deepcopy(model)
    for _, layer in lora_layers(other):
        layer.B.data.zero_()
    expected = gradients(model)
    assert difference(gradients(model), expected) == 0
    assert gradients(other)["loss"] != expected["loss"]


def test_a_layer_asked_twice_answers_as_it_is_by_then():
    model = adapted()
    set_fast(model, True)
    layer = model.get_submodule("model.layers.0.self_attn.q_proj")
    x = torch.randn(2, 4, 32, dtype=torch.float64)
    before = layer(x)
    layer.B.data.zero_()
    torch.testing.assert_close(layer(x), layer.base(x))
    layer.enabled = False
    assert torch.equal(layer(x), layer.base(x)) and not torch.equal(layer(x), before)


def test_what_a_broken_forward_left_can_be_let_go():
    model = adapted()
    set_fast(model, True)
    mlp = model.get_submodule("model.layers.0.mlp")
    mlp.gate_proj(torch.randn(2, 4, 32, dtype=torch.float64))
    assert mlp.up_proj.siblings.x is not None
    forget(model)
    assert mlp.up_proj.siblings.x is None and not mlp.up_proj.siblings.results


def test_a_base_that_trains_beside_its_adapter_has_its_gradient():
    model = adapted()
    for p in model.parameters():
        p.requires_grad_(True)
    expected = gradients(model)
    set_fast(model, True)
    assert difference(gradients(model), expected) == 0


def test_a_copy_made_while_packed_is_a_model_of_its_own():
    model = adapted()
    set_fast(model, True)
    with packed(model):
        other = copy.deepcopy(model)
        for _, layer in lora_layers(other):
            layer.B.data.zero_()
        found = gradients(other)["loss"]
    set_fast(other, False)
    torch.testing.assert_close(found, gradients(other)["loss"])
    assert found != gradients(model)["loss"]


def test_between_forwards_nothing_is_held():
    model = adapted()
    set_fast(model, True)
    gradients(model)
    assert all(
        layer.siblings.x is None and not layer.siblings.results for _, layer in lora_layers(model)
    )


def test_without_gradients_the_taught_layer_answers():
    model = adapted()
    with torch.no_grad():
        expected = model(TOKENS)
        set_fast(model, True)
        assert torch.equal(model(TOKENS), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("dtype", "off"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05), (torch.float16, 0.05)]
)
@pytest.mark.parametrize("compiled", [False, True], ids=["as it is", "compiled"])
def test_gradients_of_packed_adapters_are_the_taught_ones(dtype, off, compiled, perturb):
    config = replace(PRESETS["smollm2-135m"], vocab_size=128, num_hidden_layers=2)
    torch.manual_seed(0)
    model = Llama(config).to("cuda", dtype)
    inject(model, LoRAConfig(rank=8))
    perturb(model, 0.02)
    tokens = torch.randint(0, 128, (4, 85), device="cuda")

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(tokens).float().square().mean().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}

    expected = gradients()
    set_fast(model, True)
    with packed(model) as count:
        if compiled:
            torch._dynamo.reset()
            for layer in model.model.layers:
                layer.compile(dynamic=False)
        found = gradients()
    assert count == 14
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() < off * gradient.norm(), name
