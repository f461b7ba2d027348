"""Generation: cached and uncached agree, sampling repeats by seed, a batch is its rows."""

import pytest
import torch

from lorakit.checkpoint import load_base
from lorakit.generation import ask, choose, generate, generate_rows, stream

PROMPT = [5, 17, 3, 42]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "top_p": 0.9, "seed": 7}])
def test_cached_and_uncached_give_the_same_tokens(model, options):
    options |= {"max_new_tokens": 30}
    cached = generate(model, PROMPT, **options)
    assert len(set(cached)) > 1
    assert cached == generate(model, PROMPT, cached=False, **options)


def test_greedy_takes_the_likeliest_token_each_time(model):
    sequence = list(PROMPT)
    for _ in range(5):
        sequence.append(int(model(torch.tensor([sequence]))[0, -1].argmax()))
    assert generate(model, PROMPT, max_new_tokens=5) == sequence[4:]


def test_sampling_repeats_by_seed_and_differs_between_seeds(model):
    options = {"temperature": 2.0, "max_new_tokens": 20}
    assert generate(model, PROMPT, seed=1, **options) == generate(model, PROMPT, seed=1, **options)
    assert generate(model, PROMPT, seed=1, **options) != generate(model, PROMPT, seed=2, **options)


def test_top_p_keeps_the_nucleus_only():
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    generator = torch.Generator().manual_seed(0)
    drawn = {choose(logits, 1.0, 0.7, generator) for _ in range(200)}
    assert drawn == {0, 1}
    assert {choose(logits, 1.0, 1.0, generator) for _ in range(200)} == {0, 1, 2}


def test_a_stop_token_ends_the_text_and_is_not_part_of_it(model):
    tokens = generate(model, PROMPT, max_new_tokens=10)
    stop = tokens[-1]
    expected = tokens[: tokens.index(stop)]
    assert generate(model, PROMPT, max_new_tokens=10, stop=[stop]) == expected


def test_asking_wraps_the_prompt_and_reads_the_answer(tiny_base):
    model, tokenizer = load_base(tiny_base)
    answer = ask(model, tokenizer, "hi", max_new_tokens=6)
    tokens = tokenizer.encode(tokenizer.prompt("hi"))
    new = generate(model, tokens, max_new_tokens=6, stop=[tokenizer.eos_id])
    assert answer == tokenizer.decode(new)
    assert answer


def test_generation_ends_at_the_models_limit(model):
    assert len(generate(model, PROMPT, max_new_tokens=1000)) == 64 - len(PROMPT)


def test_generation_leaves_the_training_mode_as_it_was(model):
    tokens = stream(model.train(), PROMPT)
    next(tokens)
    assert model.training


@pytest.mark.parametrize(
    ("prompt", "options", "message"),
    [
        ([], {}, "prompt is empty"),
        (PROMPT, {"temperature": -1}, "temperature must be at least 0, got -1"),
        (PROMPT, {"top_p": 0}, "top_p must be .* got 0"),
        ([1] * 64, {}, "64 tokens, the model reads at most 64"),
    ],
)
def test_nonsense_is_refused_before_the_first_token(model, prompt, options, message):
    with pytest.raises(ValueError, match=message):
        stream(model, prompt, **options)


# Batches


PROMPTS = [PROMPT, [9, 9, 1, 50], [60, 2, 2, 8], PROMPT]


def test_a_batch_generates_what_each_prompt_does_alone(model):
    found = generate_rows(model, PROMPTS, max_new_tokens=20)
    assert found == [generate(model, prompt, max_new_tokens=20) for prompt in PROMPTS]
    assert len({tuple(row) for row in found}) == 3


def test_a_row_that_stopped_waits_for_the_others(model):
    alone = [generate(model, prompt, max_new_tokens=20) for prompt in PROMPTS]
    stop = [alone[0][3], alone[1][9]]
    expected = [generate(model, prompt, max_new_tokens=20, stop=stop) for prompt in PROMPTS]
    assert len({len(row) for row in expected}) > 1
    assert generate_rows(model, PROMPTS, max_new_tokens=20, stop=stop) == expected


def test_a_batch_ends_when_all_have_stopped(model, monkeypatch):
    calls = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    first = [generate(model, prompt, max_new_tokens=1)[0] for prompt in PROMPTS]
    calls.clear()
    assert generate_rows(model, PROMPTS, max_new_tokens=20, stop=first) == [[]] * 4
    assert len(calls) == 1


def test_a_batch_ends_at_the_models_limit_and_leaves_its_mode(model):
    found = generate_rows(model.train(), PROMPTS[:2], max_new_tokens=1000)
    assert [len(row) for row in found] == [60, 60]
    assert model.training


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "one length, got no prompts"),
        ([[1, 2], [1, 2, 3]], "one length, got 2, 3 tokens: generate length by length"),
        ([[], []], "prompt is empty"),
        ([[1] * 64], "64 tokens, the model reads at most 64"),
    ],
)
def test_a_batch_of_nonsense_is_refused(model, prompts, message):
    with pytest.raises(ValueError, match=message):
        generate_rows(model, prompts)
