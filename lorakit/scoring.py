"""How good are the answers: exact match on held-out examples, without writing a single token.

Greedy generation gives the expected answer exactly when each of its tokens is the likeliest one
after the prompt and the expected tokens before it. One forward pass over prompt and answer tells
that, and the loss as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lorakit.model import Llama
from lorakit.step import response_loss
from lorakit.text import IGNORE, Encoded, collate


@dataclass(frozen=True, kw_only=True)
class Score:
    """Answers right to the last token, of how many, and the mean loss of an answer's token."""

    right: int
    count: int
    loss: float

    @property
    def exact_match(self) -> float:
        return self.right / self.count


@torch.no_grad()
def score(
    model: Llama,
    examples: Sequence[Encoded],
    *,
    pad_id: int,
    batch_size: int = 8,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda done: None,
) -> Score | None:
    """Judge `model` by `examples`; None if `stop()` came true. `progress` hears how many are done.

    Raises ValueError if there are no examples.
    """
    if not examples:
        raise ValueError("there are no examples to judge by")
    device = model.lm_head.weight.device
    examples = sorted(examples, key=lambda example: len(example.tokens))  # little padding
    right, total, labelled = 0, 0.0, 0
    mode = model.training
    model.eval()
    try:
        for start in range(0, len(examples), batch_size):
            if stop():
                return None
            chunk = examples[start : start + batch_size]
            tokens, labels = (t.to(device) for t in collate(chunk, pad_id))
            logits = model(tokens)
            expected = labels[:, 1:]
            hits = (logits[:, :-1].argmax(-1) == expected) | (expected == IGNORE)
            right += int(hits.all(-1).sum())
            total += float(response_loss(logits, labels))
            labelled += int((expected != IGNORE).sum())
            progress(start + len(chunk))
    finally:
        model.train(mode)
    return Score(right=right, count=len(examples), loss=total / labelled)
