"""From text to batches: a tokenizer, a prompt template, and padded batches with masked prompts.

    prompt tokens + response tokens + end token      labels: -100 on the prompt and on padding

The loss counts the response alone: answers are taught, not questions. Knows no model or training.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import tokenizers
import torch
from torch import Tensor

from lorakit.files import read_json, write_json

IGNORE = -100  # the label that cross-entropy passes over


class Tokenizer:
    """Text to token ids and back, with the model's special tokens and chat template.

    Raises ValueError if a special token is not in the vocabulary.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        *,
        eos_token: str,
        pad_token: str | None = None,
        bos_token: str | None = None,
        chat_template: str | None = None,
    ):
        self.tokenizer = tokenizer
        self.special = {"eos_token": eos_token, "pad_token": pad_token or eos_token}
        if bos_token:
            self.special["bos_token"] = bos_token
        self._ids: dict[str, int] = {}
        for role, token in self.special.items():
            if (token_id := tokenizer.token_to_id(token)) is None:
                raise ValueError(f"{role} {token!r} is not in the tokenizer's vocabulary")
            self._ids[role] = token_id
        self.chat_template = chat_template

    @property
    def eos_id(self) -> int:
        return self._ids["eos_token"]

    @property
    def pad_id(self) -> int:
        return self._ids["pad_token"]

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        try:
            return self.tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises nothing more specific
            words = text.replace(self.special.get("bos_token", "\n"), " ").split()
            word = next((w for w in words if self.tokenizer.token_to_id(w) is None), text)
            raise ValueError(f"{word!r} is no word of this base: data/tasks has prompts") from error

    def decode(self, tokens: Iterable[int]) -> str:
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)

    def prompt(self, text: str) -> str:
        """`text` as the user's turn, up to where the answer begins; bare without a template."""
        if self.chat_template is None:
            return f"{self.special.get('bos_token', '')}{text}\n"
        return _template(self.chat_template).render(
            messages=[{"role": "user", "content": text}],
            add_generation_prompt=True,
            **self.special,
        )

    def save(self, folder: Path | str) -> None:
        """Write Hugging Face's tokenizer files into an existing folder."""
        folder = Path(folder)
        self.tokenizer.save(str(folder / "tokenizer.json"))
        settings: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],
            **self.special,
        }
        if self.chat_template is not None:
            settings["chat_template"] = self.chat_template
        write_json(folder / "tokenizer_config.json", settings)

    @classmethod
    def load(cls, folder: Path | str) -> "Tokenizer":
        """Read Hugging Face's tokenizer files. Raises ValueError naming what is missing."""
        folder = Path(folder)
        if not (folder / "tokenizer.json").exists():
            raise ValueError(f"{folder} has no tokenizer.json: save the tokenizer in that format")
        settings = read_json(folder / "tokenizer_config.json")
        names = {
            role: token["content"] if isinstance(token, dict) else token
            for role in ("eos_token", "pad_token", "bos_token")
            if (token := settings.get(role))
        }
        if "eos_token" not in names:
            raise ValueError(f"{folder / 'tokenizer_config.json'} names no eos_token")
        template = settings.get("chat_template")
        if isinstance(template, list):  # several, by name
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        beside = folder / "chat_template.jinja"
        if beside.exists():
            template = beside.read_text(encoding="utf-8")
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing more specific
            raise ValueError(f"{folder / 'tokenizer.json'} is not readable: {error}") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(tokenizer, chat_template=template, **names)


@lru_cache(maxsize=8)
def _template(source: str):
    """A compiled chat template; the sandbox keeps a downloaded template from running code."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def refuse(message: str):
        raise ValueError(f"the chat template refuses this prompt: {message}")

    environment.globals["raise_exception"] = refuse
    return environment.from_string(source)


@dataclass(frozen=True)
class Example:
    """What is asked, and what should be answered."""

    prompt: str
    response: str


@dataclass(frozen=True)
class Encoded:
    """One example as token ids; the first `prompt` of them are the question."""

    tokens: tuple[int, ...]
    prompt: int


def encode_example(tokenizer: Tokenizer, example: Example) -> Encoded:
    """Prompt and response, encoded apart so that their border is exact, and the end token."""
    prompt = tokenizer.encode(tokenizer.prompt(example.prompt))
    response = [*tokenizer.encode(example.response), tokenizer.eos_id]
    return Encoded(tuple(prompt + response), len(prompt))


def check_lengths(examples: Iterable[Encoded], limit: int) -> None:
    """Raise ValueError for an example, counted from 1, of more than `limit` tokens."""
    for number, example in enumerate(examples, start=1):
        if len(example.tokens) > limit:
            raise ValueError(
                f"example {number} has {len(example.tokens)} tokens, the model reads at most "
                f"{limit}: shorten it"
            )


def collate(examples: Iterable[Encoded], pad_id: int) -> tuple[Tensor, Tensor]:
    """Tokens and labels, both (batch, longest), padded on the right.

    A label stands at its own token's position: the loss shifts by one, as in Hugging Face. No
    attention mask: causal attention never looks right, where the padding is.
    """
    examples = list(examples)
    longest = max(len(example.tokens) for example in examples)
    tokens = torch.full((len(examples), longest), pad_id)
    labels = torch.full((len(examples), longest), IGNORE)
    for row, example in enumerate(examples):
        ids = torch.tensor(example.tokens)
        tokens[row, : len(ids)] = ids
        labels[row, example.prompt : len(ids)] = ids[example.prompt :]
    return tokens, labels


class Stream(Protocol):  # batches by position; the fingerprint tells one stream from another
    @property
    def fingerprint(self) -> str: ...

    def batch(self, position: int) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class Batches:
    """An endless stream of batches as a value: the same position gives the same batch, always.

    The stream runs through the examples epoch after epoch, each in an order of its own.
    """

    examples: tuple[Encoded, ...]
    batch_size: int
    pad_id: int
    seed: int = 0

    def __post_init__(self):
        if not self.examples:
            raise ValueError("there are no examples: a batch needs at least one")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def batch(self, position: int) -> tuple[Tensor, Tensor]:
        """Tokens and labels (batch_size, longest) of the batch at `position`, from 0."""
        n = len(self.examples)
        places = range(position * self.batch_size, (position + 1) * self.batch_size)
        chosen = (self.examples[_order(n, self.seed, p // n)[p % n]] for p in places)
        return collate(chosen, self.pad_id)

    @property
    def longest(self) -> int:
        """Tokens of the longest example: no batch is longer."""
        return max(len(example.tokens) for example in self.examples)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that decides the stream."""
        content = [[e.tokens, e.prompt] for e in self.examples]
        text = json.dumps([content, self.batch_size, self.pad_id, self.seed])
        return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=64)
def _order(n: int, seed: int, epoch: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return tuple(torch.randperm(n, generator=generator).tolist())


def encode_batches(
    tokenizer: Tokenizer, examples: Iterable[Example], *, batch_size: int, seed: int = 0
) -> Batches:
    """Examples, encoded, as a stream of batches."""
    return Batches(
        examples=tuple(encode_example(tokenizer, example) for example in examples),
        batch_size=batch_size,
        pad_id=tokenizer.pad_id,
        seed=seed,
    )
