"""The recipe of the mini base, and the base that it made."""

import pytest
import torch

from lorakit import pretrain as recipe
from lorakit.checkpoint import MINI, load_base, model_config
from lorakit.presets import PRESETS
from lorakit.pretrain import (
    BEGIN,
    END,
    QUESTIONS,
    Corpus,
    binding,
    documents,
    encode_documents,
    mini_tokenizer,
    pretrain,
)
from lorakit.step import TrainConfig
from lorakit.text import IGNORE


def test_the_shipped_base_has_the_shape_and_the_words_that_the_code_says():
    model, tokenizer = load_base(MINI)
    assert model.config == model_config(MINI) == PRESETS["mini"]
    made = mini_tokenizer()
    assert tokenizer.tokenizer.get_vocab() == made.tokenizer.get_vocab()
    assert tokenizer.special == made.special
    assert tokenizer.vocab_size == model.config.vocab_size


def test_the_shipped_base_binds_facts_to_names():
    model, tokenizer = load_base(MINI)
    assert binding(model, tokenizer) >= 0.99


def test_a_base_that_has_learnt_nothing_does_not_bind(small_base):
    assert binding(*load_base(small_base)) < 0.1


def test_text_comes_back_as_it_was():
    tokenizer = mini_tokenizer()
    for text in documents(0, 50):
        inner = text.replace(f"{BEGIN} ", "").replace(f" {END}", "")
        assert tokenizer.decode(tokenizer.encode(text)) == inner


def test_a_word_of_no_story_is_refused_by_name():
    with pytest.raises(ValueError, match="'lemon' is no word of this base: data/tasks has prompts"):
        mini_tokenizer().encode("Ada likes lemon cakes .")


def test_documents_are_the_same_each_time_and_differ_by_shard():
    assert documents(3, 20) == documents(3, 20) != documents(4, 20)
    assert all(text.count(END) == QUESTIONS for text in documents(3, 20))


def test_a_corpus_gives_every_document_once_an_epoch_and_labels_all_but_padding():
    tokenizer = mini_tokenizer()
    tokens = encode_documents(tokenizer, documents(0, 24))
    corpus = Corpus(tokens, 6, tokenizer.pad_id)
    epochs = [[corpus.batch(e * 4 + place)[0] for place in range(4)] for e in range(2)]
    as_sets = [{tuple(row.tolist()) for batch in epoch for row in batch} for epoch in epochs]
    assert as_sets[0] == as_sets[1] == {tuple(row.tolist()) for row in tokens.long()}
    assert not torch.equal(epochs[0][0], epochs[1][0])
    batch, labels = corpus.batch(2)
    assert torch.equal(labels == IGNORE, batch == tokenizer.pad_id)
    assert torch.equal(labels[labels != IGNORE], batch[labels != IGNORE])


def test_the_recipe_goes_on_until_the_base_binds_and_then_to_its_end(monkeypatch):
    monkeypatch.setattr(recipe, "EVERY", 2)
    looks = iter([0.2, 0.99, 0.99, 0.99])
    monkeypatch.setattr(recipe, "binding", lambda model, tokenizer: next(looks))
    config = TrainConfig(steps=100, lr=1e-3)
    then = TrainConfig(steps=3, lr=1e-3)
    told = []
    model, _, histories = pretrain(
        config, then, shards=1, shard=64, batch_size=4, report=told.append
    )
    assert [len(history.steps) for history in histories] == [4, 3]
    assert model.config == PRESETS["mini"]
    assert "binding 0.99" in told[-1]


def test_a_base_that_never_binds_is_not_passed_off_as_one(monkeypatch):
    monkeypatch.setattr(recipe, "EVERY", 1)
    config = TrainConfig(steps=2, lr=1e-3)
    with pytest.raises(ArithmeticError, match=r"after 2 steps binding is 0\.\d\d still"):
        pretrain(config, config, shards=1, shard=64, batch_size=4)
