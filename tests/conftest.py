"""Tiny models that every test can afford."""

import dataclasses
import shutil

import pytest
import tokenizers
import torch

from lorakit.checkpoint import save_folder
from lorakit.fingerprint import remember_file
from lorakit.lora import lora_layers
from lorakit.model import Llama, ModelConfig
from lorakit.presets import PRESETS
from lorakit.pretrain import mini_tokenizer
from lorakit.tasks import write_examples
from lorakit.text import Example, Tokenizer

TINY = ModelConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)


def pytest_configure(config) -> None:
    """An adapter whose base nobody knows is an error, where a test does not expect the warning."""
    config.addinivalue_line("filterwarnings", "error::lorakit.fingerprint.UnknownBase")


@pytest.fixture
def model() -> Llama:
    torch.manual_seed(0)
    net = Llama(TINY)
    with torch.no_grad():  # larger than a fresh start, so that attention and MLP speak up
        for layer in net.model.layers.parameters():
            layer.mul_(1 if layer.ndim == 1 else 8)
    remember_file(net, "0123456789abcdef")  # as if it had been read from a file
    return net


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(TINY.vocab_size, (2, 9), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def perturb():
    """Stand in for training: B starts at zero, and zero hides mistakes."""

    def fill(model, size: float = 0.3):
        generator = torch.Generator().manual_seed(2)
        for _, layer in lora_layers(model):
            with torch.no_grad():
                layer.B.copy_(size * torch.randn(layer.B.shape, generator=generator))

    return fill


@pytest.fixture
def tokenizer() -> Tokenizer:
    """One token a character, and three special ones."""
    alphabet = [*map(chr, range(32, 127)), "\n"]
    special = ["<|start|>", "<|end|>", "<|pad|>"]
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    characters = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    characters.add_special_tokens(special)
    return Tokenizer(
        characters,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        chat_template=(
            "{% for message in messages %}<|start|>{{ message.role }}\n{{ message.content }}"
            "<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
        ),
    )


@pytest.fixture
def tiny_base(tokenizer, tmp_path) -> str:
    """A tiny random base as a Hugging Face folder."""
    torch.manual_seed(0)
    config = dataclasses.replace(TINY, vocab_size=tokenizer.vocab_size, max_position_embeddings=128)
    folder = tmp_path / "base"
    save_folder(Llama(config), tokenizer, folder)
    return str(folder)


@pytest.fixture(scope="session")
def small_base_to_read(tmp_path_factory) -> str:
    """An untrained base that knows the mini world's words and nothing else; nobody changes it."""
    config = dataclasses.replace(
        PRESETS["mini"], hidden_size=32, intermediate_size=48, num_hidden_layers=1
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Llama(config)
    folder = tmp_path_factory.mktemp("bases") / "small"
    save_folder(model, mini_tokenizer(), folder)
    return str(folder)


@pytest.fixture
def small_base(small_base_to_read, tmp_path) -> str:
    """The same base, in a folder of the test's own."""
    return str(shutil.copytree(small_base_to_read, tmp_path / "small"))


@pytest.fixture
def tiny_task(tmp_path) -> str:
    """Ten one-letter questions as a JSONL file; two of them are held out."""
    path = tmp_path / "letters.jsonl"
    write_examples(path, [Example(f"{letter}?", letter.upper()) for letter in "abcdefghij"])
    return str(path)
