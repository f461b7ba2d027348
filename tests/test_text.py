"""Prompts are masked, padding is silent, and a stream of batches is a value."""

import dataclasses
import json

import pytest
import torch
import transformers

from lorakit.text import (
    IGNORE,
    Batches,
    Encoded,
    Example,
    Tokenizer,
    collate,
    encode_batches,
    encode_example,
)

EXAMPLES = tuple(
    Encoded(tokens=tuple(range(10 * n, 10 * n + 4 + n)), prompt=2) for n in range(1, 6)
)


def batches(**changes) -> Batches:
    return dataclasses.replace(
        Batches(examples=EXAMPLES, batch_size=2, pad_id=0, seed=3), **changes
    )


def test_a_prompt_ends_where_the_answer_begins(tokenizer):
    assert tokenizer.prompt("hi") == "<|start|>user\nhi<|end|><|start|>assistant\n"


def test_without_a_template_the_prompt_stands_bare(tokenizer):
    plain = Tokenizer(tokenizer.tokenizer, eos_token="<|end|>")
    assert plain.prompt("hi") == "hi\n"
    assert plain.pad_id == plain.eos_id


def test_an_example_is_prompt_response_and_end(tokenizer):
    encoded = encode_example(tokenizer, Example("hi", "yo"))
    assert encoded.tokens[: encoded.prompt] == tuple(tokenizer.encode(tokenizer.prompt("hi")))
    assert encoded.tokens[encoded.prompt :] == (*tokenizer.encode("yo"), tokenizer.eos_id)


def test_labels_stand_on_the_response_alone():
    tokens, labels = collate(EXAMPLES[:2], pad_id=99)
    assert tokens.tolist() == [[10, 11, 12, 13, 14, 99], [20, 21, 22, 23, 24, 25]]
    assert labels.tolist() == [
        [IGNORE, IGNORE, 12, 13, 14, IGNORE],
        [IGNORE, IGNORE, 22, 23, 24, 25],
    ]


def test_each_epoch_has_every_example_once_in_an_order_of_its_own():
    stream = [int(tokens[0, 0]) for tokens, _ in map(batches(batch_size=1).batch, range(20))]
    epochs = [stream[i : i + 5] for i in range(0, 20, 5)]
    assert all(sorted(epoch) == [10, 20, 30, 40, 50] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_a_batch_depends_on_its_position_alone():
    forwards = [batches().batch(i) for i in range(7)]
    again = batches()
    for i in reversed(range(7)):
        assert all(map(torch.equal, again.batch(i), forwards[i]))


@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"batch_size": 3}, {"pad_id": 1}, {"examples": EXAMPLES[::-1]}]
)
def test_the_fingerprint_knows_every_part_of_the_stream(change):
    assert batches().fingerprint == batches().fingerprint
    assert batches(**change).fingerprint != batches().fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [({"examples": ()}, "no examples"), ({"batch_size": 0}, "batch_size must be .* got 0")],
)
def test_an_empty_stream_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        batches(**change)


def test_no_batch_is_longer_than_the_longest_example():
    assert batches().longest == 9
    assert max(tokens.shape[1] for tokens, _ in map(batches().batch, range(3))) == 9


def test_encoded_batches_end_with_the_end_token(tokenizer):
    stream = encode_batches(tokenizer, [Example("a", "b")], batch_size=1)
    tokens, labels = stream.batch(0)
    assert int(tokens[0, -1]) == int(labels[0, -1]) == tokenizer.eos_id
    assert (labels != IGNORE).sum() == 2


def test_a_tokenizer_goes_to_hugging_faces_files_and_back(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.encode("to and <|end|> fro") == tokenizer.encode("to and <|end|> fro")
    assert again.prompt("x") == tokenizer.prompt("x")
    assert (again.eos_id, again.pad_id) == (tokenizer.eos_id, tokenizer.pad_id)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token_id == tokenizer.eos_id
    messages = [{"role": "user", "content": "x"}]
    rendered = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == tokenizer.prompt("x")


def test_a_template_in_a_file_of_its_own_is_read(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    assert Tokenizer.load(tmp_path).prompt("x") == "x!"


def test_a_template_cannot_run_code(tokenizer):
    tokenizer.chat_template = "{{ messages.__class__.__mro__ }}"
    with pytest.raises(Exception, match="unsafe"):
        tokenizer.prompt("x")


def test_missing_tokenizer_files_are_named(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    tokenizer.save(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="names no eos_token"):
        Tokenizer.load(tmp_path)


def test_a_damaged_tokenizer_file_is_named(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(ValueError, match=r"tokenizer\.json is not readable"):
        Tokenizer.load(tmp_path)


def test_a_special_token_outside_the_vocabulary_is_refused(tokenizer):
    with pytest.raises(ValueError, match="eos_token '<eos>' is not in"):
        Tokenizer(tokenizer.tokenizer, eos_token="<eos>")
