"""GGUF in: the weights transformers reads from the same file, and nothing read by guessing."""

import dataclasses

import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType as Kind
from gguf_files import SHAPE, TOKENS, speaking, write_gguf

from lorakit.gguf_llama import read_gguf
from lorakit.model import Llama

PROMPT = torch.randint(SHAPE.vocab_size, (2, 17), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def path(tmp_path):
    return write_gguf(tmp_path / "tiny.gguf", speaking())


def logits_of(path) -> torch.Tensor:
    config, weights, _ = read_gguf(path)
    model = Llama(config)
    model.load_state_dict(weights, strict=False)
    model.tie()
    with torch.no_grad():
        return model(PROMPT)


def test_the_shape_comes_from_the_file(path):
    config, _, _ = read_gguf(path)
    assert config == SHAPE


def test_every_weight_comes_back_under_its_own_name_and_in_its_own_order(path):
    _, weights, _ = read_gguf(path)
    expected = dict(speaking().named_parameters())
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", [Kind.F32, Kind.Q8_0], ids=["F32", "Q8_0"])
def test_transformers_answers_the_same_from_the_same_file(tmp_path, kind, tied):
    config = dataclasses.replace(SHAPE, tie_word_embeddings=tied)
    path = write_gguf(tmp_path / "tiny.gguf", speaking(config), kind=kind)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name)
    with torch.no_grad():
        expected = theirs(PROMPT).logits
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(logits_of(path), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "bound"),
    [
        (Kind.F16, 1e-3),
        (Kind.BF16, 1e-2),
        (Kind.Q8_0, 1e-2),
        (Kind.Q4_1, 1e-1),
    ],
    ids=["F16", "BF16", "Q8_0", "Q4_1"],
)
def test_quantised_weights_come_back_in_float32_near_what_they_were(tmp_path, kind, bound):
    model = speaking()
    _, weights, _ = read_gguf(write_gguf(tmp_path / "tiny.gguf", model, kind=kind))
    for name, original in model.named_parameters():
        assert weights[name].dtype == torch.float32
        assert (weights[name] - original).abs().max() <= bound * original.abs().max()


def test_weights_can_be_trained_without_a_change_of_the_file(path):
    before = path.read_bytes()
    _, weights, _ = read_gguf(path)
    for weight in weights.values():
        weight.add_(1)
    assert path.read_bytes() == before


def test_older_files_without_heads_of_their_own_for_keys_have_one_for_each_query(tmp_path):
    config = dataclasses.replace(SHAPE, num_key_value_heads=4, rope_theta=10_000.0)
    left_out = {"llama.attention.head_count_kv": None, "llama.rope.freq_base": None}
    path = write_gguf(tmp_path / "old.gguf", speaking(config), changes=left_out)
    assert read_gguf(path)[0] == config


# Tokenizer


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("hello", ["hell", "o"]),
        ("he1234", ["he", "1", "2", "3", "4"]),
        ("a  12", ["a", "Ġ", "Ġ", "1", "2"]),
        ("<|end|>he", ["<|end|>", "he"]),
        ("", []),
    ],
)
def test_text_falls_into_the_vocabulary_of_the_file(path, text, pieces):
    _, _, tokenizer = read_gguf(path)
    assert [TOKENS[i] for i in tokenizer.encode(text)] == pieces


def test_digits_stand_alone_so_that_spaces_before_them_stay_together(tmp_path):
    tokens = [*TOKENS[:-3], "ĠĠ", *TOKENS[-2:]]
    changes = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": ["Ġ Ġ"]}
    _, _, tokenizer = read_gguf(write_gguf(tmp_path / "a.gguf", speaking(), changes=changes))
    assert [tokens[i] for i in tokenizer.encode("a  12")] == ["a", "ĠĠ", "1", "2"]


@pytest.mark.parametrize("text", ["héllo", "日本語 🦙", " two  spaces ", "tab\tline\n"])
def test_text_comes_back_without_its_special_tokens(path, text):
    _, _, tokenizer = read_gguf(path)
    assert tokenizer.decode(tokenizer.encode(f"<|start|>{text}<|end|>")) == text


def test_special_tokens_and_template_are_those_of_the_file(path):
    _, _, tokenizer = read_gguf(path)
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.vocab_size) == (1, 2, len(TOKENS))
    assert tokenizer.prompt("hello") == "<|start|>hello:"


def test_a_file_without_a_padding_token_pads_with_the_end(tmp_path):
    changes = {"tokenizer.ggml.padding_token_id": None, "tokenizer.ggml.bos_token_id": None}
    _, _, tokenizer = read_gguf(write_gguf(tmp_path / "a.gguf", speaking(), changes=changes))
    assert tokenizer.pad_id == tokenizer.eos_id == 1


# Refused


def test_another_architecture_is_refused_by_name(tmp_path):
    path = write_gguf(tmp_path / "other.gguf", speaking(), architecture="qwen2")
    with pytest.raises(ValueError, match=r'reads llama, and "qwen2" is another architecture'):
        read_gguf(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.ggml.pre": "llama-bpe"}, '"gpt2" with pre-tokenizer "llama-bpe" is not read'),
        ({"tokenizer.ggml.pre": None}, '"gpt2" with pre-tokenizer "None" is not read'),
        ({"tokenizer.ggml.model": "llama"}, 'tokenizer "llama" with .* is not read'),
        ({"llama.rope.scaling.type": "yarn"}, 'rope scaling "yarn" is not read'),
        ({"llama.block_count": None}, "lacks the metadata field 'llama.block_count'"),
        ({"tokenizer.ggml.eos_token_id": None}, "lacks .* 'tokenizer.ggml.eos_token_id'"),
        ({"tokenizer.ggml.merges": None}, "lacks .* 'tokenizer.ggml.merges'"),
    ],
    ids=str,
)
def test_what_is_not_read_is_refused_by_name(tmp_path, changes, message):
    path = write_gguf(tmp_path / "tiny.gguf", speaking(), changes=changes)
    with pytest.raises(ValueError, match=message):
        read_gguf(path)


@pytest.mark.parametrize("name", ["blk.0.attn_q.bias", "rope_freqs.weight", "blk.1.ffn_up.weights"])
def test_a_tensor_of_another_kind_of_model_is_refused_by_name(tmp_path, name):
    extra = {name: np.ones(4, dtype=np.float32)}
    path = write_gguf(tmp_path / "tiny.gguf", speaking(), extra=extra)
    with pytest.raises(ValueError, match=f"tensor {name} belongs to no plain Llama"):
        read_gguf(path)


@pytest.mark.parametrize("length", [0, 3, 100, 20_000])
def test_a_truncated_file_is_refused(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"tiny\.gguf is not a readable GGUF file"):
        read_gguf(path)


def test_what_is_no_gguf_is_refused(tmp_path):
    path = tmp_path / "page.gguf"
    path.write_text("<html>not found</html>" * 100)
    with pytest.raises(ValueError, match=r"page\.gguf is not a readable GGUF file"):
        read_gguf(path)
