"""What holds a LoRA implementation: fresh = identity, merged = adapted, only A and B train."""

import copy
import math

import pytest
import torch
from torch import nn

from lorakit.lora import (
    LoRAConfig,
    LoRALinear,
    disabled,
    freeze,
    inject,
    lora_layers,
    merge,
    merge_and_unload,
    remove,
    target_layers,
    trainable,
    unfreeze,
    unmerge,
)
from lorakit.model import Llama

CONFIG = LoRAConfig(rank=4, alpha=12.0)


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same_weights(model, before):
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


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


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("targets", [("q_proj",), ("q_proj", "v_proj"), "all-linear"])
def test_only_adapters_are_trainable(model, rank, targets):
    names = inject(model, LoRAConfig(rank=rank, targets=targets))
    expected = {f"{name}.{key}" for name in names for key in "AB"}
    assert {name for name, p in model.named_parameters() if p.requires_grad} == expected


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 8])
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


def test_a_generator_makes_the_adapter_repeatable(model):
    twin = copy.deepcopy(model)
    inject(model, CONFIG, generator=torch.Generator().manual_seed(3))
    inject(twin, CONFIG, generator=torch.Generator().manual_seed(3))
    assert_same_weights(twin, weights(model))


# Merging


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


def test_switching_to_eval_merges_nothing(model, perturb):
    inject(model, CONFIG)
    perturb(model)
    before = weights(model)
    model.eval()
    assert_same_weights(model, before)
    assert not any(layer.merged for _, layer in lora_layers(model))


def test_any_module_can_be_adapted():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    assert inject(net, LoRAConfig(targets="all-linear")) == ["0", "2"]
