"""The recipe of the mini base: next-token training on stories, each with four questions answered.

    <begin> story question answer <end> question answer <end> ...        every token is predicted

    python -m lorakit.pretrain data/base            minutes on a GPU, many hours on a CPU

The loss falls in steps: the language first, and thousands of steps later binding, which fact
belongs to which name. A base that stops before can be taught no form that needs facts, and when it
comes differs from run to run; so the recipe trains at a high rate until it is there, and then once
more, with a fresh optimizer, to a rate of nothing.
"""

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import repeat
from pathlib import Path

import tokenizers
import torch
from torch import Tensor

from lorakit.device import describe, pick_device
from lorakit.hf_folder import save_folder
from lorakit.history import History, StepRecord
from lorakit.mixture import any_question, vocabulary
from lorakit.model import Llama
from lorakit.presets import PRESETS
from lorakit.step import TrainConfig
from lorakit.text import IGNORE, Tokenizer
from lorakit.train import Training
from lorakit.world import ATTRIBUTES, tell

BEGIN, END, PAD = "<begin>", "<end>", "<pad>"
UNTIL_IT_BINDS = TrainConfig(
    steps=30_000, lr=2e-3, warmup_steps=300, weight_decay=0.01, autocast=True
)
THEN = replace(UNTIL_IT_BINDS, steps=4_000)
BOUND = 0.99
EVERY = 100  # steps between two looks
BATCH_SIZE = 256
SHARDS, SHARD = 64, 8192  # 524,288 documents
QUESTIONS = 4  # after each story


def mini_tokenizer() -> Tokenizer:
    """One token a word of the mini world, and three special ones."""
    ids = {token: i for i, token in enumerate([BEGIN, END, PAD, *vocabulary()])}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens([BEGIN, END, PAD])
    return Tokenizer(words, eos_token=END, pad_token=PAD, bos_token=BEGIN)


def documents(shard: int, count: int = SHARD) -> list[str]:
    """The texts of one shard; always the same ones."""
    draw, texts = random.Random(f"documents {shard}"), []
    for _ in range(count):
        story = tell(draw)
        text = f"{BEGIN} {story.text}"
        for question in [any_question(draw, story) for _ in range(QUESTIONS)]:
            text += f" {question.text} {question.answer(story)} {END}"
        texts.append(text)
    return texts


@dataclass(frozen=True)
class Corpus:
    """Documents (count, length) as token ids, padded; a stream of batches like `text.Batches`."""

    tokens: Tensor
    batch_size: int
    pad_id: int

    @property
    def fingerprint(self) -> str:
        return f"{len(self.tokens)} documents, {self.batch_size} at a time"

    def batch(self, position: int) -> tuple[Tensor, Tensor]:
        """Tokens and labels (batch_size, length); each epoch has an order of its own."""
        epoch, place = divmod(position, len(self.tokens) // self.batch_size)
        order = _order(len(self.tokens), epoch)
        rows = order[place * self.batch_size : (place + 1) * self.batch_size]
        tokens = self.tokens[rows.to(self.tokens.device)].long()
        return tokens, tokens.masked_fill(tokens == self.pad_id, IGNORE)


@lru_cache(maxsize=1)
def _order(count: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(epoch))


def encode_documents(tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Token ids (len(texts), longest), padded on the right, in two bytes each."""
    tokenizer.tokenizer.enable_padding(pad_id=tokenizer.pad_id, pad_token=PAD)
    encoded = tokenizer.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    tokenizer.tokenizer.no_padding()
    return torch.tensor([encoding.ids for encoding in encoded], dtype=torch.int16)


@torch.no_grad()
def binding(model: Llama, tokenizer: Tokenizer, count: int = 256) -> float:
    """How often the likeliest word after "what is the home of Ada ?" and a first "the home of Ada
    is" is Ada's home, on stories of all words, the same ones each time."""
    draw, prompts, facts = random.Random("binding"), [], []
    for _ in range(count):
        story, attribute = tell(draw), draw.choice(ATTRIBUTES)
        person = draw.choice(story.people)
        fact = f"the {attribute} of {person.name}"
        prompts.append(f"{BEGIN} {story.text} what is {fact} ? {fact} is")
        facts.append(tokenizer.encode(getattr(person, attribute))[0])
    tokens = encode_documents(tokenizer, prompts).long().to(model.lm_head.weight.device)
    last = (tokens != tokenizer.pad_id).sum(1) - 1
    # Not through __call__: a compiled model would be compiled again for these lengths.
    guesses = model.forward(tokens)[torch.arange(count), last].argmax(-1)
    return (guesses.cpu() == torch.tensor(facts)).float().mean().item()


def pretrain(
    until: TrainConfig = UNTIL_IT_BINDS,
    then: TrainConfig = THEN,
    *,
    shards: int = SHARDS,
    shard: int = SHARD,
    batch_size: int = BATCH_SIZE,
    report: Callable[[str], None] = lambda sentence: None,
) -> tuple[Llama, Tokenizer, list[History]]:
    """The mini base made again, and the history of both parts; `report` hears how it goes.

    Raises ArithmeticError if the base does not bind facts to names at the end of either.
    """
    tokenizer, device = mini_tokenizer(), pick_device()
    report(f"telling {shards * shard:,} documents")
    with ProcessPoolExecutor() as pool:
        parts = pool.map(documents, range(shards), repeat(shard))
        texts = [text for part in parts for text in part]
    tokens = encode_documents(tokenizer, texts).to(device)
    report(f"{len(tokens):,} documents of up to {tokens.shape[1]} tokens, on {describe(device)}")
    corpus = Corpus(tokens, batch_size, tokenizer.pad_id)
    with torch.random.fork_rng():
        torch.manual_seed(until.seed)
        model = Llama(PRESETS["mini"])
    model.to(device)
    if device.type == "cuda":
        model.compile()  # half a minute, then twice as fast
    bound, histories = 0.0, []

    def tell_step(record: StepRecord) -> None:
        nonlocal bound
        if record.step % EVERY == 0:
            bound = binding(model, tokenizer)
            report(f"step {record.step:,}, loss {record.loss:.4f}, binding {bound:.2f}")

    for config, stop in ((until, lambda: bound >= BOUND), (then, lambda: False)):
        training = Training(model, corpus, config)
        histories.append(training.run(on_step=tell_step, stop=stop))
        if bound < BOUND:
            raise ArithmeticError(f"after {training.position} steps binding is {bound:.2f} still")
    return model.cpu(), tokenizer, histories


def main() -> None:
    parser = argparse.ArgumentParser(description="Pre-train the mini base.")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    try:
        model, tokenizer, histories = pretrain(
            report=lambda sentence: print(sentence, file=sys.stderr, flush=True)
        )
    except KeyboardInterrupt:
        print("stopped: nothing was written", file=sys.stderr)
        raise SystemExit(130) from None
    save_folder(model, tokenizer, options.out)
    print(f"{sum(history.seconds for history in histories):.0f} s of steps", file=sys.stderr)


if __name__ == "__main__":
    main()
