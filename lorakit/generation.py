"""Tokens out of a model, one at a time: greedy, or sampled by temperature and top-p; and by batch.

With a cache each step feeds the newest token alone; without one it feeds the whole sequence again.
Both give the same tokens, and so does a GPU's graph. Knows the model only as tokens -> logits.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from lorakit.decoding import Decoding, evaluating
from lorakit.model import Llama
from lorakit.text import Tokenizer


def stream(
    model: Llama,
    prompt: list[int],
    *,
    max_new_tokens: int = 64,
    stop: Iterable[int] = (),
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    cached: bool = True,
    captured: bool = True,
) -> Iterator[int]:
    """Yield new token ids until one of `stop` (not yielded), `max_new_tokens` or the model's limit.

    `temperature` 0 is greedy; `top_p` keeps the likeliest tokens that together reach that
    probability (nucleus sampling, arXiv 1904.09751). On a GPU, unless `captured` is False, a long
    answer with a cache comes from the model as it stood at its first tokens: see `Decoding`. Raises
    ValueError before the first token.
    """
    if temperature < 0:
        raise ValueError(f"temperature must be at least 0, got {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}")
    max_new_tokens = min(max_new_tokens, _room(model, prompt))
    capacity = len(prompt) + max_new_tokens
    read = Decoding(model, 1, capacity, captured=captured) if cached else None
    generator = torch.Generator(model.model.embed_tokens.weight.device).manual_seed(seed)

    def choice(logits: Tensor) -> int:
        return choose(logits, temperature, top_p, generator)

    return _stream(model, read, prompt, max_new_tokens, set(stop), choice)


def generate(model: Llama, prompt: list[int], **options) -> list[int]:
    """The tokens of `stream`, as a list; takes the same options."""
    return list(stream(model, prompt, **options))


@torch.no_grad()
def generate_rows(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 64,
    stop: Iterable[int] = (),
    captured: bool = True,
) -> list[list[int]]:
    """Greedy tokens for prompts of one length, together: what `generate` gives for each alone.

    A row that has stopped goes on in silence until all have. Raises ValueError for no prompts, for
    prompts that differ in length, or where `stream` would.
    """
    lengths = sorted({len(prompt) for prompt in prompts})
    if len(lengths) != 1:
        what = f"{', '.join(map(str, lengths))} tokens" if lengths else "no prompts"
        raise ValueError(f"prompts must be of one length, got {what}: generate length by length")
    max_new_tokens = min(max_new_tokens, _room(model, prompts[0]))
    read = Decoding(model, len(prompts), lengths[0] + max_new_tokens, captured=captured)
    new = torch.tensor([list(prompt) for prompt in prompts])
    found: list[list[int]] = [[] for _ in prompts]
    stops, going = set(stop), set(range(len(prompts)))
    for _ in range(max_new_tokens):
        new = read(new).argmax(-1, keepdim=True)
        for row, token in enumerate(new[:, 0].tolist()):
            if token in stops:
                going.discard(row)
            elif row in going:
                found[row].append(token)
        if not going:
            break
    return found


def ask(model: Llama, tokenizer: Tokenizer, prompt: str, **options) -> str:
    """The model's answer to a prompt, as text, up to the end token; takes `stream`'s options."""
    tokens = tokenizer.encode(tokenizer.prompt(prompt))
    return tokenizer.decode(generate(model, tokens, stop=[tokenizer.eos_id], **options))


def _stream(
    model: Llama,
    read: Decoding | None,
    prompt: list[int],
    max_new_tokens: int,
    stop: set[int],
    choice: Callable[[Tensor], int],
) -> Iterator[int]:
    sequence, new = list(prompt), list(prompt)
    for _ in range(max_new_tokens):
        token = choice((_reread(model, sequence) if read is None else read(torch.tensor([new])))[0])
        if token in stop:
            return
        yield token
        sequence.append(token)
        new = [token]


@torch.no_grad()
def _reread(model: Llama, sequence: list[int]) -> Tensor:
    """Logits in float32 (1, vocab_size) of the last token, without a cache."""
    tokens = torch.tensor([sequence], device=model.model.embed_tokens.weight.device)
    with evaluating(model.modules()):
        return model(tokens, last=True)[:, -1].float()


def _room(model: Llama, prompt: Sequence[int]) -> int:
    """How many tokens fit after the prompt. Raises ValueError if it is empty or leaves no room."""
    if not prompt:
        raise ValueError("the prompt is empty: give at least one token")
    limit = model.config.max_position_embeddings
    if len(prompt) >= limit:
        raise ValueError(f"the prompt has {len(prompt)} tokens, the model reads at most {limit}")
    return limit - len(prompt)


def choose(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """One token id from logits (vocab_size,)."""
    if temperature == 0:
        return int(logits.argmax())
    probabilities, order = (logits / temperature).softmax(-1).sort(descending=True)
    before = probabilities.cumsum(-1) - probabilities
    probabilities[before >= top_p] = 0  # the likeliest token always stays
    return int(order[torch.multinomial(probabilities, 1, generator=generator)])
