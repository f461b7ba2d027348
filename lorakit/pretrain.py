"""The recipe of the mini base: next-token training on stories, each with two questions answered.

    <begin> story question answer <end> question answer <end>        every token is predicted

    python -m lorakit.pretrain data/base            minutes on a GPU, many hours on a CPU

The loss falls in two steps: first the language, then, some thousand steps later, binding: which fact
belongs to which name. A base that stops before the second can be taught no form that needs facts.
"""

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import tokenizers
import torch
from torch import Tensor

from lorakit.device import describe, pick_device
from lorakit.files import write_json
from lorakit.hf_folder import save_folder
from lorakit.history import History, StepRecord
from lorakit.mixture import any_question, vocabulary
from lorakit.model import Llama
from lorakit.presets import PRESETS
from lorakit.text import IGNORE, Tokenizer
from lorakit.train import TrainConfig, Training
from lorakit.world import ATTRIBUTES, tell

BEGIN, END, PAD = "<begin>", "<end>", "<pad>"
RECIPE = TrainConfig(
    steps=8_000, lr=2e-3, warmup_steps=500, weight_decay=0.01, autocast=True, seed=0
)
BATCH_SIZE = 512
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
    fingerprint: str = "documents of the mini world"

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
def binding(model: Llama, tokenizer: Tokenizer, count: int = 128) -> float:
    """How often the likeliest word after "what is the home of Ada ?" and a first "the home of Ada
    is" is Ada's home, on stories of all words, the same ones each time."""
    draw, right = random.Random("binding"), 0
    device = model.lm_head.weight.device
    for _ in range(count):
        story, attribute = tell(draw), draw.choice(ATTRIBUTES)
        person = draw.choice(story.people)
        stem = f"the {attribute} of {person.name} is"
        tokens = tokenizer.encode(f"{BEGIN} {story.text} what is {stem[:-3]} ? {stem}")
        # Not through __call__: compiled, it would be compiled again for each length.
        token = model.forward(torch.tensor([tokens], device=device))[0, -1].argmax()
        right += tokenizer.decode([int(token)]) == getattr(person, attribute)
    return right / count


def pretrain(
    config: TrainConfig = RECIPE,
    *,
    shards: int = SHARDS,
    batch_size: int = BATCH_SIZE,
    report: Callable[[str], None] = lambda sentence: None,
) -> tuple[Llama, Tokenizer, History]:
    """The mini base made again; `report` hears a sentence every hundred steps."""
    tokenizer, device = mini_tokenizer(), pick_device()
    report(f"telling {shards * SHARD:,} documents")
    with ProcessPoolExecutor() as pool:
        texts = [text for shard in pool.map(documents, range(shards)) for text in shard]
    tokens = encode_documents(tokenizer, texts).to(device)
    report(f"{len(tokens):,} documents of up to {tokens.shape[1]} tokens, on {describe(device)}")
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        model = Llama(PRESETS["mini"])
    if device.type == "cuda":
        model.compile()  # half a minute, then twice as fast
    training = Training(model.to(device), Corpus(tokens, batch_size, tokenizer.pad_id), config)

    def tell_step(record: StepRecord) -> None:
        if record.step % 100 == 0:
            left = (config.steps - record.step) * training.history.seconds / record.step
            line = f"step {record.step:,} of {config.steps:,}, loss {record.loss:.4f}"
            if record.step % 1000 == 0:
                line += f", binding {binding(model, tokenizer):.2f}"
            report(f"{line}, {left:.0f} s left")

    training.run(on_step=tell_step)
    return model.cpu(), tokenizer, training.history


def main() -> None:
    parser = argparse.ArgumentParser(description="Pre-train the mini base.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=RECIPE.steps)
    parser.add_argument("--shards", type=int, default=SHARDS)
    parser.add_argument("--batch-size", type=int, default=BATCH_SIZE)
    options = parser.parse_args()
    model, tokenizer, history = pretrain(
        replace(RECIPE, steps=options.steps),
        shards=options.shards,
        batch_size=options.batch_size,
        report=lambda sentence: print(sentence, file=sys.stderr, flush=True),
    )
    save_folder(model, tokenizer, options.out)
    print(f"{history.seconds:.0f} s of steps", file=sys.stderr)
    every = history.steps[99::100]
    write_json(
        options.out.with_name(f"{options.out.name}-history.json"),
        [{"step": r.step, "loss": round(r.loss, 4)} for r in every],
    )


if __name__ == "__main__":
    main()
