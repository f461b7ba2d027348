"""One teacher-forced pass tells what generating every answer would."""

import pytest
import torch

from lorakit.generation import generate
from lorakit.scoring import score
from lorakit.step import TrainConfig
from lorakit.text import Batches, Encoded
from lorakit.train import train

PAD, END = 0, 1


def examples(count: int, length: int = 5) -> list[Encoded]:
    draw = torch.Generator().manual_seed(4)
    return [
        Encoded((*torch.randint(2, 61, (length + n % 3,), generator=draw).tolist(), END), prompt=3)
        for n in range(count)
    ]


def test_exact_match_is_that_of_greedy_generation(model):
    known, unknown = examples(9)[:5], examples(9)[5:]
    batches = Batches(examples=tuple(known), batch_size=5, pad_id=PAD)
    train(model, batches, TrainConfig(steps=150, lr=3e-2))

    def right(example: Encoded) -> bool:
        prompt, answer = example.tokens[: example.prompt], example.tokens[example.prompt : -1]
        return generate(model, [*prompt], stop=[END], max_new_tokens=10) == [*answer]

    by_generation = sum(map(right, known + unknown))
    assert 0 < by_generation < 9
    assert score(model, known + unknown, pad_id=PAD).right == by_generation


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_the_score_does_not_depend_on_the_batch(model, batch_size):
    expected = score(model, examples(7), pad_id=PAD)
    got = score(model, examples(7), pad_id=PAD, batch_size=batch_size)
    assert (got.right, got.count) == (expected.right, 7)
    assert got.loss == pytest.approx(expected.loss, rel=1e-5)
    assert got.exact_match == got.right / 7


def test_scoring_tells_its_progress_stops_and_leaves_the_mode_as_it_was(model):
    done = []
    score(model.train(), examples(7), pad_id=PAD, batch_size=3, progress=done.append)
    assert done == [3, 6, 7]
    assert model.training
    assert score(model, examples(7), pad_id=PAD, stop=lambda: True) is None


def test_nothing_to_judge_by_is_refused(model):
    with pytest.raises(ValueError, match="no examples"):
        score(model, [], pad_id=PAD)
