"""What holds a LoRA implementation: fresh = identity, merged = adapted, only A and B train."""

import copy
import math

import pytest
import torch
from torch import nn
from weights import assert_same_weights, weights

from lorakit.lora import (
    LoRAConfig,
    LoRALinear,
    freeze,
    inject,
    lora_layers,
    target_layers,
    trainable,
    unfreeze,
)
from lorakit.model import Llama

CONFIG = LoRAConfig(rank=4, alpha=12.0)


def test_a_fresh_adapter_changes_nothing(model, tokens):
    before = model(tokens)
    inject(model, CONFIG)
    assert torch.equal(model(tokens), before)


def test_a_starts_random_and_b_starts_zero(model):
    inject(model, CONFIG)
    for _, layer in lora_layers(model):
        assert layer.A.abs().max() > 0
        assert not layer.B.any()


@pytest.mark.parametrize("rank", [1, 4, 16])
def test_the_scale_of_a_follows_fan_in_whatever_the_rank(rank):
    layer = LoRALinear(nn.Linear(400, 10), LoRAConfig(rank=rank))
    assert 0.9 / math.sqrt(400) < layer.A.abs().max() <= 1 / math.sqrt(400)


def test_a_layer_freezes_the_base_that_it_wraps():
    base = nn.Linear(6, 5)
    base(torch.ones(6)).sum().backward()
    layer = LoRALinear(base, CONFIG)
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"A", "B"}
    assert base.weight.grad is None


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("targets", [("q_proj",), ("q_proj", "v_proj"), "all-linear"])
def test_only_adapters_are_trainable(model, rank, targets):
    names = inject(model, LoRAConfig(rank=rank, targets=targets))
    expected = {f"{name}.{key}" for name in names for key in "AB"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == expected


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("rank", [1, 5, 20])
def test_the_output_is_the_equation(rank, use_rslora):
    base = nn.Linear(6, 5)
    layer = LoRALinear(base, LoRAConfig(rank=rank, alpha=3.0, use_rslora=use_rslora))
    nn.init.normal_(layer.B)
    x = torch.randn(7, 6)
    scale = 3.0 / (math.sqrt(rank) if use_rslora else rank)
    torch.testing.assert_close(layer(x), base(x) + scale * (x @ layer.A.T @ layer.B.T))


def test_the_delta_is_what_the_layer_adds(model, perturb):
    inject(model, CONFIG)
    perturb(model)
    for _, layer in lora_layers(model):
        x = torch.randn(3, layer.base.in_features)
        torch.testing.assert_close(x @ layer.delta().T, layer(x) - layer.base(x))


def test_dropout_acts_on_the_adapter_alone_and_only_in_training():
    base = nn.Linear(50, 3)
    layer = LoRALinear(base, LoRAConfig(rank=2, dropout=0.5))
    x = torch.randn(4, 50)
    assert torch.equal(layer(x), base(x))
    nn.init.normal_(layer.B)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_over_a_half_precision_base_the_adapter_keeps_full_precision(dtype):
    base = nn.Linear(8, 8).to(dtype)
    layer = LoRALinear(base, CONFIG)
    assert layer.A.dtype == layer.B.dtype == torch.float32
    assert layer(torch.randn(2, 8, dtype=dtype)).dtype == dtype


def test_the_first_gradient_of_a_is_zero_and_that_of_b_is_not(model, tokens):
    inject(model, CONFIG)
    model(tokens).pow(2).mean().backward()
    for _, layer in lora_layers(model):
        assert not layer.A.grad.any()
        assert layer.B.grad.any()
        assert layer.base.weight.grad is None


def test_freezing_drops_old_gradients(model, tokens):
    model(tokens).mean().backward()
    freeze(model)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert trainable(model) == []
    unfreeze(model)
    assert len(trainable(model)) == len(list(model.parameters()))


# Targets


def test_all_linear_is_every_linear_layer_but_the_head(model):
    names = list(target_layers(model, "all-linear"))
    assert len(names) == 7 * model.config.num_hidden_layers
    assert "lm_head" not in names


def test_an_untied_head_is_left_alone_too(model):
    config = type(model.config)(**{**vars(model.config), "tie_word_embeddings": False})
    assert "lm_head" not in target_layers(Llama(config), "all-linear")


def test_a_target_is_a_last_name_or_a_path(model):
    assert len(target_layers(model, ("q_proj",))) == 2
    path = "model.layers.1.mlp.up_proj"
    assert list(target_layers(model, (path,))) == [path]


def test_a_target_matches_whole_names_only(model):
    with pytest.raises(ValueError, match="'proj' matches no linear layer"):
        target_layers(model, ("proj",))


def test_a_wrong_target_is_refused_with_the_nearest_names_and_nothing_changes(model):
    before = weights(model)
    with pytest.raises(ValueError, match=r"'q_porj' matches no linear layer.*q_proj"):
        inject(model, LoRAConfig(targets=("v_proj", "q_porj")))
    assert_same_weights(model, before)
    assert all(p.requires_grad for p in model.parameters())


def test_a_tied_head_is_refused_with_the_reason(model):
    with pytest.raises(ValueError, match=r"lm_head shares its weight with model\.embed_tokens"):
        inject(model, LoRAConfig(targets=("lm_head",)))
    assert lora_layers(model) == []


def test_a_target_that_is_not_linear_is_refused_by_its_type(model):
    with pytest.raises(ValueError, match="'embed_tokens' is a Embedding"):
        inject(model, LoRAConfig(targets=("embed_tokens",)))


@pytest.mark.parametrize(
    ("field", "value"),
    [("rank", 0), ("rank", 2.5), ("rank", True), ("alpha", 0), ("alpha", math.inf), ("dropout", 1)],
)
def test_a_config_refuses_nonsense_and_names_it(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .* got {value}"):
        LoRAConfig(**{field: value})


def test_injecting_the_same_again_is_quiet_and_another_config_is_refused(model, perturb):
    names = inject(model, CONFIG)
    perturb(model)
    before = weights(model)
    assert inject(model, CONFIG) == names
    assert_same_weights(model, before)
    with pytest.raises(ValueError, match=r"14 adapters of .*rank=4.*asked for .*rank=2"):
        inject(model, LoRAConfig(rank=2))
    assert_same_weights(model, before)


def test_injecting_again_freezes_a_base_that_was_let_loose(model):
    names = inject(model, CONFIG)
    unfreeze(model)
    inject(model, CONFIG)
    expected = {f"{name}.{key}" for name in names for key in "AB"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == expected


# Ranks and alphas of their own


def ranks(model) -> dict[str, int]:
    return {name: layer.config.rank for name, layer in lora_layers(model)}


def test_a_pattern_gives_the_layers_that_it_names_their_own_rank(model):
    inject(model, LoRAConfig(rank=4, alpha=12.0, rank_pattern={"v_proj": 2}))
    for name, layer in lora_layers(model):
        rank = 2 if name.endswith("v_proj") else 4
        assert (layer.A.shape[0], layer.B.shape[1]) == (rank, rank)
        assert layer.config.scale == 12.0 / rank


@pytest.mark.parametrize("use_rslora", [False, True])
def test_a_pattern_gives_the_layers_that_it_names_their_own_alpha(model, use_rslora):
    inject(model, LoRAConfig(rank=4, use_rslora=use_rslora, alpha_pattern={r"layers\.1\..*": 2.0}))
    for name, layer in lora_layers(model):
        alpha = 2.0 if ".1." in name else 16.0
        assert layer.config.scale == alpha / (2 if use_rslora else 4)


@pytest.mark.parametrize(
    ("pattern", "named"),
    [
        ("q_proj", ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]),
        (r"1\.self_attn\.q_proj", ["model.layers.1.self_attn.q_proj"]),
        (r"^model\.layers\.0\.mlp\.up_proj", ["model.layers.0.mlp.up_proj"]),
        (r"0\.mlp\.(up|down)_proj", ["model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"]),
    ],
)
def test_a_pattern_is_the_end_of_a_path_in_whole_names(model, pattern, named):
    inject(model, LoRAConfig(rank=4, rank_pattern={pattern: 1}))
    assert [name for name, rank in ranks(model).items() if rank == 1] == named


@pytest.mark.parametrize("pattern", ["proj", "q_pro", "_proj", "self_attn", "embed_tokens"])
def test_a_pattern_that_names_no_targeted_layer_is_refused(model, pattern):
    before = weights(model)
    with pytest.raises(ValueError, match=f"{pattern!r} of rank or alpha matches none of the 14"):
        inject(model, LoRAConfig(alpha_pattern={pattern: 1.0}))
    assert lora_layers(model) == []
    assert_same_weights(model, before)


def test_the_first_pattern_that_matches_counts(model):
    inject(model, LoRAConfig(rank=4, rank_pattern={"1.*q_proj": 1, "q_proj": 2, ".*": 3}))
    found = ranks(model)
    assert found["model.layers.1.self_attn.q_proj"] == 1
    assert found["model.layers.0.self_attn.q_proj"] == 2
    assert found["model.layers.0.self_attn.k_proj"] == 3


def test_the_same_ranks_in_other_words_are_the_same_config(model, perturb):
    names = inject(model, LoRAConfig(rank=4, rank_pattern={"q_proj": 2}))
    perturb(model)
    before = weights(model)
    assert inject(model, LoRAConfig(rank=4, rank_pattern={r"self_attn\.q_proj": 2})) == names
    assert_same_weights(model, before)
    with pytest.raises(ValueError, match=r"rank=2.*asked for .*'q_proj', 3"):
        inject(model, LoRAConfig(rank=4, rank_pattern={"q_proj": 3}))


def test_a_layer_of_its_own_rank_computes_its_own_scale(model):
    inject(model, LoRAConfig(rank=4, use_rslora=True, rank_pattern={"up_proj": 9}))
    layer = model.model.layers[0].mlp.up_proj
    nn.init.normal_(layer.B)
    x = torch.randn(3, 32)
    expected = layer.base(x) + 16 / 3 * (x @ layer.A.T @ layer.B.T)
    torch.testing.assert_close(layer(x), expected)


def test_a_config_with_patterns_can_be_hashed_and_compared():
    first, second = (LoRAConfig(rank_pattern={"q_proj": 2}, alpha_pattern={"v": 1}) for _ in "ab")
    assert first == second
    assert len({first, second, LoRAConfig()}) == 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("rank_pattern", {"q_proj": 0}, r"rank_pattern\['q_proj'\] must be a whole .* got 0"),
        ("rank_pattern", {"q_proj": True}, "must be a whole number of at least 1, got True"),
        ("alpha_pattern", {"q_proj": math.nan}, r"alpha_pattern\['q_proj'\] must be .* got nan"),
        ("rank_pattern", {"(": 1}, r"rank_pattern: '\(' is no pattern"),
    ],
)
def test_a_pattern_refuses_nonsense_and_names_it(field, value, message):
    with pytest.raises(ValueError, match=message):
        LoRAConfig(**{field: value})


def test_a_generator_makes_the_adapter_repeatable(model):
    twin = copy.deepcopy(model)
    inject(model, CONFIG, generator=torch.Generator().manual_seed(3))
    inject(twin, CONFIG, generator=torch.Generator().manual_seed(3))
    assert_same_weights(twin, weights(model))


def test_an_adapter_can_start_from_copies_of_factors_and_trains(model, perturb):
    inject(model, CONFIG)
    perturb(model)
    factors = {name: (layer.A.detach(), layer.B.detach()) for name, layer in lora_layers(model)}
    other = Llama(model.config)
    state = torch.get_rng_state()
    names = inject(other, CONFIG, factors=factors)
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn only to be written over
    assert len(trainable(other)) == 2 * len(names)
    for name, layer in lora_layers(other):
        A, B = factors[name]
        assert torch.equal(layer.A, A) and torch.equal(layer.B, B)
        layer.A.data.add_(1)
        assert not torch.equal(layer.A, A)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_factors_take_the_dtype_that_an_adapter_has_over_its_base(model, dtype):
    A, B = torch.randn(4, 32, dtype=torch.float16), torch.randn(32, 4, dtype=torch.float16)
    path = "model.layers.0.self_attn.q_proj"
    config = LoRAConfig(rank=4, targets=(path,))
    inject(model.to(dtype), config, factors={path: (A, B)})
    [(_, layer)] = lora_layers(model)
    assert layer.A.dtype == layer.B.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(layer.B, B.to(layer.B.dtype))


def test_any_module_can_be_adapted():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    assert inject(net, LoRAConfig(targets="all-linear")) == ["0", "2"]
