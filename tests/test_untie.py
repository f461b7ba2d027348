"""A head of its own answers as before, can be adapted alone, and leaves the embedding in peace."""

import copy
import dataclasses

import pytest
import torch
import transformers
from weights import assert_same_weights, weights

from lorakit.adapters import load_adapter, save_adapter
from lorakit.hf_folder import load_folder, save_folder
from lorakit.lora import LoRAConfig, inject, lora_layers, trainable, unfreeze
from lorakit.merging import merge, merge_and_unload, unmerge
from lorakit.untie import untie

HEAD = LoRAConfig(rank=4, alpha=12.0, targets=("lm_head", "v_proj"))


def test_the_head_is_a_copy_and_the_answers_are_the_same_to_the_bit(model, tokens):
    before, answers = weights(model), model(tokens)
    untie(model)
    assert_same_weights(model, before)
    assert torch.equal(model(tokens), answers)
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    assert head is not embedding
    assert head.untyped_storage().data_ptr() != embedding.untyped_storage().data_ptr()


def test_the_config_says_so_and_nothing_else_changes_in_it(model):
    before = model.config
    untie(model)
    assert model.config == dataclasses.replace(before, tie_word_embeddings=False)
    model.tie()  # as a loader does: it asks the config
    assert model.lm_head.weight is not model.model.embed_tokens.weight


@pytest.mark.parametrize("train", [True, False])
def test_the_head_trains_if_the_embedding_did(model, train):
    model.requires_grad_(train)
    untie(model)
    assert model.lm_head.weight.requires_grad == train


def test_a_head_of_its_own_is_left_as_it_is(model, perturb):
    untie(model)
    head = model.lm_head.weight
    untie(model)
    assert model.lm_head.weight is head
    inject(model, HEAD)
    perturb(model)
    before = weights(model)
    untie(model)
    assert_same_weights(model, before)


def test_in_full_fine_tuning_the_two_learn_apart(model, tokens):
    untie(model)
    unfreeze(model)
    model(tokens).logsumexp(-1).sum().backward()
    embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
    assert not torch.equal(embedding.grad, head.grad)
    assert len(trainable(model)) == len(list(model.parameters()))


def test_a_tied_head_is_refused_and_untying_is_the_way_out(model):
    message = r"lm_head shares its weight with model\.embed_tokens \(tied\).*untie\(model\) first"
    with pytest.raises(ValueError, match=message):
        inject(model, HEAD)
    untie(model)
    assert inject(model, HEAD)[-1] == "lm_head"


def test_every_linear_layer_is_still_every_one_but_the_head(model):
    untie(model)
    assert "lm_head" not in inject(model, LoRAConfig())


def test_an_adapter_of_the_head_merges_and_unmerges_and_the_embedding_stays(model, tokens, perturb):
    embedding = model.model.embed_tokens.weight.clone()
    untie(model)
    base = model(tokens)
    inject(model, HEAD)
    perturb(model)
    before, adapted = weights(model), model(tokens)
    merge(model)
    torch.testing.assert_close(model(tokens), adapted)
    unmerge(model)
    assert_same_weights(model, before)
    merge_and_unload(model)
    torch.testing.assert_close(model(tokens), adapted)
    assert (adapted - base).abs().max() > 0.01 * base.abs().max()
    assert torch.equal(model.model.embed_tokens.weight, embedding)
    assert not torch.equal(model.lm_head.weight, embedding)


def test_a_file_that_names_a_tied_head_is_refused_until_it_is_untied(model, perturb, tmp_path):
    tied = copy.deepcopy(model)
    untie(model)
    inject(model, HEAD)
    perturb(model)
    folder = save_adapter(model, tmp_path / "adapter")
    before = weights(tied)
    with pytest.raises(ValueError, match=r"lm_head shares its weight.*untie\(model\) first"):
        load_adapter(tied, folder)
    assert_same_weights(tied, before)
    assert lora_layers(tied) == []
    untie(tied)
    load_adapter(tied, folder)
    assert_same_weights(tied, weights(model))


@torch.no_grad()
def test_merged_and_exported_transformers_answers_alike(
    model, tokens, tokenizer, perturb, tmp_path
):
    untie(model)
    base = model(tokens)
    inject(model, HEAD)
    perturb(model)
    adapted = model(tokens)
    merge_and_unload(model)
    folder = save_folder(model, tokenizer, tmp_path / "merged")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    assert theirs.config.tie_word_embeddings is False
    found = theirs(tokens).logits
    assert (found - adapted).abs().max() < 1e-5 * adapted.abs().max()
    assert (adapted - base).abs().max() > 0.01 * base.abs().max()
    assert_same_weights(load_folder(folder)[0], weights(model))
