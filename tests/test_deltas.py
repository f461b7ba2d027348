"""Deltas: their directions are the matrix's, cuts come and go, an extracted adapter is the cut."""

import copy
import math
from dataclasses import replace

import peft
import pytest
import torch
from adapter_files import hugging_face
from weights import assert_same_weights, weights

from lorakit.adapters import load_adapter, save_adapter
from lorakit.deltas import (
    Delta,
    cut,
    delta_of_matrix,
    delta_of_product,
    deltas,
    extract,
    random_deltas,
)
from lorakit.fingerprint import fingerprint_of
from lorakit.lora import ALL_LINEAR, LoRAConfig, inject, lora_layers, target_layers
from lorakit.merging import merge_and_unload
from lorakit.model import Llama
from lorakit.spectrum import energy, singular_values, singular_values_of_product
from lorakit.subspaces import overlaps

Q = "model.layers.0.self_attn.q_proj"


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def directions(d: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(draw(d, k, seed=seed)).Q


@pytest.fixture
def tuned(model) -> Llama:
    """The model after a full fine-tune: every weight moved, norms and embedding too."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for n, p in enumerate(other.parameters()):
            p += 0.1 * p.std().clamp(min=0.1) * draw(*p.shape, seed=n)
    return other


@pytest.fixture
def adapted(model, perturb) -> Llama:
    other = copy.deepcopy(model)
    inject(other, LoRAConfig(rank=4, alpha=6.0), generator=torch.Generator().manual_seed(3))
    perturb(other)
    return other


# One layer


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (30, 30)])
def test_the_directions_of_a_matrix_make_it_up(shape):
    matrix = draw(*shape)
    delta = delta_of_matrix(Q, matrix)
    assert (delta.layer, delta.shape) == (Q, shape)
    assert delta.U.shape == (shape[0], min(shape)) and delta.V.shape == (shape[1], min(shape))
    torch.testing.assert_close(delta.matrix(), matrix, rtol=0, atol=1e-5)
    expected = singular_values(matrix).float()
    torch.testing.assert_close(delta.values, expected, rtol=1e-5, atol=1e-5)
    assert delta.norm == pytest.approx(matrix.norm().item(), rel=1e-6)
    for U in (delta.U, delta.V):
        torch.testing.assert_close(U.T @ U, torch.eye(min(shape)), rtol=0, atol=1e-5)


def test_planted_values_and_directions_are_found():
    U, V = directions(24, 3), directions(40, 3, seed=1)
    delta = delta_of_matrix(Q, (U * torch.tensor([5.0, 2.0, 0.5])) @ V.T)
    assert delta.values[:3].tolist() == pytest.approx([5, 2, 0.5], rel=1e-5)
    assert delta.values[3:].max() < 1e-5
    assert (delta.U[:, :3] * U).sum(0).abs().tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert (delta.V[:, :3] * V).sum(0).abs().tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    expected = 5 * U[:, :1] @ V[:, :1].T
    torch.testing.assert_close(delta.matrix(1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("out_features", "in_features", "rank"), [(24, 40, 1), (40, 24, 4), (24, 40, 33), (5, 40, 8)]
)
def test_the_directions_of_a_product_are_those_of_the_dense_matrix(out_features, in_features, rank):
    B, A = draw(out_features, rank), draw(rank, in_features, seed=1)
    factored, dense = delta_of_product(Q, B, A, 1.5), delta_of_matrix(Q, 1.5 * B @ A)
    kept = min(out_features, in_features, rank)
    assert factored.values.shape == (kept,)
    size = dense.values[0].item()
    torch.testing.assert_close(factored.values, dense.values[:kept], rtol=1e-5, atol=1e-5 * size)
    torch.testing.assert_close(factored.matrix(), 1.5 * B @ A, rtol=0, atol=1e-5 * size)
    torch.testing.assert_close(factored.matrix(1), dense.matrix(1), rtol=0, atol=1e-4 * size)
    assert factored.values.tolist() == pytest.approx(
        singular_values_of_product(B, A, 1.5).tolist(), rel=1e-5
    )


def test_no_direction_is_no_delta_and_too_many_are_all():
    delta = delta_of_matrix(Q, draw(5, 7))
    assert not delta.matrix(0).any() and delta.matrix(0).shape == (5, 7)
    assert torch.equal(delta.matrix(99), delta.matrix())
    with pytest.raises(ValueError, match="k must be at least 0, or None for all, got -1"):
        delta.matrix(-1)


def test_a_negative_scale_turns_the_delta_and_no_value():
    B, A = draw(24, 3), draw(3, 40)
    delta = delta_of_product(Q, B, A, -2.0)
    assert (delta.values >= 0).all()
    torch.testing.assert_close(delta.matrix(), -2 * B @ A, rtol=0, atol=1e-4)


def test_half_precision_is_worked_on_in_single_and_double_in_double():
    half = draw(6, 8).bfloat16()
    assert torch.equal(delta_of_matrix(Q, half).values, delta_of_matrix(Q, half.float()).values)
    assert delta_of_matrix(Q, half.double()).U.dtype == torch.float64
    assert delta_of_product(Q, half, draw(8, 4).double()).V.dtype == torch.float64


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_delta_that_is_not_finite_is_refused_by_its_layers_name(bad):
    matrix = draw(6, 8)
    matrix[1, 2] = bad
    for make in (delta_of_matrix, lambda layer, B: delta_of_product(layer, B, draw(8, 3))):
        with pytest.raises(ValueError, match=f"the delta of {Q} holds a number that is not finite"):
            make(Q, matrix)


# A model's


def test_a_full_fine_tune_is_held_against_its_base(model, tuned):
    before = target_layers(model, ALL_LINEAR)
    found = deltas(tuned, model)
    assert [delta.layer for delta in found] == list(before)
    for delta in found:
        change = tuned.get_submodule(delta.layer).weight - before[delta.layer].weight
        torch.testing.assert_close(delta.matrix(), change, rtol=0, atol=1e-5)


def test_adapters_say_their_delta_themselves(adapted):
    found = deltas(adapted)
    assert [delta.layer for delta in found] == [name for name, _ in lora_layers(adapted)]
    for delta, (_, layer) in zip(found, lora_layers(adapted), strict=True):
        assert len(delta.values) == 4
        torch.testing.assert_close(delta.matrix(), layer.delta(), rtol=0, atol=1e-5)


def test_only_adapted_layers_have_a_delta(model):
    inject(model, LoRAConfig(rank=2, targets=("q_proj",)))
    names = [delta.layer for delta in deltas(model)]
    assert names == ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]


def test_a_delta_in_half_precision_is_not_rounded_once_more(model):
    base, tuned = model.bfloat16(), copy.deepcopy(model).bfloat16()
    weight = tuned.get_submodule(Q).weight
    with torch.no_grad():
        weight.fill_(1.0078125)  # the next number after 1
        base.get_submodule(Q).weight.fill_(0.00048828125)
    (delta,) = [delta for delta in deltas(tuned, base) if delta.layer == Q]
    torch.testing.assert_close(delta.matrix(), torch.full((32, 32), 1.0078125 - 0.00048828125))


def test_neither_adapters_nor_a_base_or_another_base_is_refused(model, tuned, adapted):
    with pytest.raises(ValueError, match="only against its base: give both"):
        deltas(tuned)
    other = Llama(replace(model.config, intermediate_size=52))
    with pytest.raises(
        ValueError, match=r"no model\.layers\.0\.mlp\.gate_proj of shape \(48, 32\)"
    ):
        deltas(tuned, other)
    with pytest.raises(ValueError, match=rf"no {Q} of shape .*without adapters"):
        deltas(tuned, adapted)


# Cut


def test_with_every_direction_and_the_rest_as_trained_the_cut_is_the_fine_tune(model, tuned):
    plain = copy.deepcopy(model)
    cut(plain, model, deltas(tuned, model), None, rest=tuned)
    for name, p in tuned.named_parameters():
        torch.testing.assert_close(plain.get_parameter(name), p, rtol=0, atol=2e-6)


def test_a_cut_model_is_no_longer_its_file(model, tuned):
    into = copy.deepcopy(model)
    assert fingerprint_of(into) is not None
    cut(into, model, deltas(tuned, model), 1)
    assert fingerprint_of(into) is None


def test_with_no_direction_the_cut_is_the_base(model, tuned):
    plain, before = copy.deepcopy(tuned), weights(model)
    cut(plain, model, deltas(tuned, model), 0)
    assert_same_weights(plain, before)
    assert_same_weights(model, before)


@pytest.mark.parametrize("k", [1, 3])
def test_each_layer_has_the_nearest_matrix_of_that_rank_added(model, tuned, k):
    plain = copy.deepcopy(model)
    cut(plain, model, deltas(tuned, model), k)
    for name, layer in target_layers(model, ALL_LINEAR).items():
        change = tuned.get_submodule(name).weight - layer.weight
        U, values, Vh = torch.linalg.svd(change.double())
        expected = layer.weight + ((U[:, :k] * values[:k]) @ Vh[:k]).float()
        torch.testing.assert_close(plain.get_submodule(name).weight, expected, rtol=0, atol=1e-5)


def test_the_rest_is_the_bases_or_the_trained_models(model, tuned):
    plain, found = copy.deepcopy(model), deltas(tuned, model)
    linear = {f"{delta.layer}.weight" for delta in found}
    rest = [name for name, _ in model.named_parameters() if name not in linear]
    assert "model.embed_tokens.weight" in rest and "model.norm.weight" in rest
    for source, chosen in ((tuned, tuned), (model, None), (tuned, tuned)):
        cut(plain, model, found, 2, rest=chosen)
        for name in rest:
            assert torch.equal(plain.get_parameter(name), source.get_parameter(name)), name


def test_a_rank_that_is_left_and_come_back_to_gives_the_same_bits(model, tuned):
    plain, found = copy.deepcopy(model), deltas(tuned, model)
    cut(plain, model, found, 2, rest=tuned)
    at_2 = weights(plain)
    places = [p.data_ptr() for p in plain.parameters()]
    for k, rest in ((7, None), (0, tuned), (2, tuned)):
        cut(plain, model, found, k, rest=rest)
    assert_same_weights(plain, at_2)
    assert [p.data_ptr() for p in plain.parameters()] == places


def test_a_cut_adapter_leaves_the_layers_that_it_does_not_adapt(model, perturb):
    other = copy.deepcopy(model)
    inject(other, LoRAConfig(rank=3, targets=("q_proj",)))
    perturb(other)
    plain = copy.deepcopy(model)
    cut(plain, model, deltas(other), None, rest=other)
    merge_and_unload(other)
    for name, p in plain.named_parameters():
        torch.testing.assert_close(p, other.get_parameter(name), rtol=0, atol=1e-5)


def test_a_cut_that_would_change_the_base_or_the_fine_tune_is_refused(model, tuned):
    found, before, after = deltas(tuned, model), weights(model), weights(tuned)
    with pytest.raises(ValueError, match=r"shares 20 weights .*copy\.deepcopy\(base\)"):
        cut(model, model, found, 2)
    with pytest.raises(ValueError, match="shares 20 weights"):
        cut(tuned, model, found, 2, rest=tuned)
    assert_same_weights(model, before)
    assert_same_weights(tuned, after)


def test_a_model_with_adapters_is_not_cut_into(model, adapted):
    with pytest.raises(ValueError, match=rf"has no {Q}\.weight.*without adapters"):
        cut(copy.deepcopy(adapted), model, deltas(adapted), 2)


# Extraction


def with_rest(model, tuned) -> Llama:
    """The base with the fine-tune's embedding and norms: what an adapter cannot carry."""
    other = copy.deepcopy(model)
    cut(other, model, deltas(tuned, model), 0, rest=tuned)
    return other


@torch.no_grad()
def apart(got, expected) -> float:
    return ((got - expected).abs().max() / expected.abs().max()).item()


def test_an_adapter_of_full_rank_answers_as_the_full_fine_tune(model, tuned, tokens):
    found = deltas(tuned, model)
    adapter = extract(with_rest(model, tuned), found, rank=32)
    with torch.no_grad():
        assert apart(adapter(tokens), tuned(tokens)) < 1e-5
        assert apart(model(tokens), tuned(tokens)) > 0.1
        assert apart(extract(model, found, rank=32)(tokens), tuned(tokens)) > 0.01


@pytest.mark.parametrize("alpha", [None, 1.0, 6.0])
@pytest.mark.parametrize("rank", [1, 4])
def test_an_adapter_is_the_cut_whatever_its_alpha(model, tuned, tokens, rank, alpha):
    found = deltas(tuned, model)
    adapter, plain = extract(model, found, rank, alpha=alpha), copy.deepcopy(model)
    cut(plain, model, found, rank)
    config = lora_layers(adapter)[0][1].config
    assert config == LoRAConfig(rank=rank, alpha=rank if alpha is None else alpha)
    with torch.no_grad():
        assert apart(adapter(tokens), plain(tokens)) < 1e-5


def test_both_factors_have_half_of_the_delta(model, tuned):
    """sqrt(values) in each: neither is far larger than the other, should they train on."""
    layer = dict(lora_layers(extract(model, deltas(tuned, model), rank=4)))[Q]
    torch.testing.assert_close(layer.A.norm(dim=1), layer.B.norm(dim=0))


def test_a_layer_with_fewer_directions_has_zeros_beyond_them(model, tuned):
    adapter = dict(lora_layers(extract(model, deltas(tuned, model), rank=32)))
    k_proj = adapter["model.layers.0.self_attn.k_proj"]  # (16, 32): 16 directions
    assert k_proj.A.shape == (32, 32)
    assert k_proj.A[:16].any(1).all() and not k_proj.A[16:].any() and not k_proj.B[:, 16:].any()


def test_extraction_leaves_base_and_fine_tune_and_the_global_generator_alone(model, tuned):
    before, after, state = weights(model), weights(tuned), torch.get_rng_state()
    adapter = extract(model, deltas(tuned, model), rank=2)
    merge_and_unload(adapter)
    assert_same_weights(model, before)
    assert_same_weights(tuned, after)
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_an_adapter_can_be_made_thinner(model, adapted, tokens):
    found = deltas(adapted)
    same, thin = extract(model, found, rank=4), extract(model, found, rank=2)
    with torch.no_grad():
        assert apart(same(tokens), adapted(tokens)) < 1e-5
        assert apart(thin(tokens), adapted(tokens)) > 1e-3
    for delta, half in zip(found, deltas(thin), strict=True):
        assert half.values.tolist() == pytest.approx(delta.values[:2].tolist(), rel=1e-4)


def test_what_targets_some_layers_is_extracted_to_those(model, perturb):
    other = copy.deepcopy(model)
    inject(other, LoRAConfig(rank=2, targets=("q_proj",)))
    perturb(other)
    adapter = extract(model, deltas(other), rank=2)
    assert [name for name, _ in lora_layers(adapter)] == [name for name, _ in lora_layers(other)]


@pytest.mark.parametrize(("rank", "alpha"), [(4, None), (3, 6.0)])
def test_peft_reads_an_extracted_adapter_and_so_do_we(model, tuned, tokens, tmp_path, rank, alpha):
    adapter = extract(model, deltas(tuned, model), rank, alpha=alpha)
    folder = save_adapter(adapter, tmp_path / "adapter", base="base")
    peer = peft.PeftModel.from_pretrained(hugging_face(model), folder)
    ours = copy.deepcopy(model)
    load_adapter(ours, folder)
    with torch.no_grad():
        expected = adapter(tokens)
        assert apart(model(tokens), expected) > 0.01
        assert apart(peer(tokens).logits, expected) < 1e-5
        assert apart(ours(tokens), expected) < 1e-5


def test_no_deltas_or_no_rank_are_refused(model, tuned):
    with pytest.raises(ValueError, match="no deltas to make an adapter of"):
        extract(model, [], rank=2)
    with pytest.raises(ValueError, match="rank must be a whole number of at least 1, got 0"):
        extract(model, deltas(tuned, model), rank=0)


def test_two_deltas_are_the_same_only_if_they_are_one():
    """Tensors have no single truth of equality; comparing must not fail."""
    delta = delta_of_matrix(Q, draw(3, 3))
    assert delta == delta and delta != replace(delta) and isinstance(delta, Delta)


# The control group


def test_random_deltas_have_shape_norm_and_number_of_directions_and_nothing_else(
    model, tuned, adapted
):
    for found in (deltas(tuned, model), deltas(adapted)):
        for delta, chance in zip(found, random_deltas(found), strict=True):
            assert (chance.layer, chance.shape) == (delta.layer, delta.shape)
            assert len(chance.values) == len(delta.values)
            assert chance.norm == pytest.approx(delta.norm, rel=1e-5)
            phi = overlaps(chance.V, delta.V)[0, 0].item()
            assert phi < 0.6


def test_the_values_of_random_deltas_are_those_of_chance(model, tuned, adapted):
    for found in (deltas(tuned, model), deltas(adapted)):
        for delta, chance in zip(found, random_deltas(found), strict=True):
            expected = energy(delta.spectrum.random, 2)
            assert energy(chance.values, 2) == pytest.approx(expected, abs=0.15)


def test_random_deltas_are_the_same_for_a_seed_and_differ_from_layer_to_layer(model, tuned):
    found = deltas(tuned, model)
    first, again, other = random_deltas(found), random_deltas(found), random_deltas(found, seed=1)
    assert all(torch.equal(a.U, b.U) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a.U, b.U) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0].U, first[3].U)  # q_proj and o_proj, of one shape


def test_a_delta_that_is_zero_has_a_random_one_that_is_zero():
    (chance,) = random_deltas([delta_of_matrix(Q, torch.zeros(6, 8))])
    assert not chance.matrix().any()


def test_a_delta_knows_its_spectrum():
    delta = delta_of_matrix(Q, draw(24, 40))
    assert (delta.spectrum.layer, delta.spectrum.shape) == (Q, (24, 40))
    assert delta.spectrum.values == tuple(delta.values.tolist())
