"""A run in a stack is the run alone: same losses, same weights, same score."""

import copy
from dataclasses import replace

import pytest
import torch
from recorded import Recorded

from lorakit import stacked
from lorakit.lora import LoRAConfig, inject, unfreeze
from lorakit.model import Llama
from lorakit.scoring import score
from lorakit.stacked import Stack, StackedRun
from lorakit.step import TrainConfig
from lorakit.text import Batches, Encoded
from lorakit.train import Training

EXACT = {"rtol": 1e-6, "atol": 1e-7}


@pytest.fixture
def base(model) -> Llama:
    return model.double()


def batches(seed: int, batch_size: int = 3) -> Batches:
    draw = torch.Generator().manual_seed(9)
    examples = tuple(
        Encoded(tuple(torch.randint(3, 61, (6 + n % 4,), generator=draw).tolist()), 2 + n % 2)
        for n in range(12)
    )
    return Batches(examples=examples, batch_size=batch_size, pad_id=0, seed=seed)


FIRST, SECOND = batches(0), batches(1)
CONFIG = TrainConfig(steps=5, lr=3e-3, warmup_steps=2, max_grad_norm=0.5)
RUNS = {
    "lora": [
        StackedRun(LoRAConfig(rank=1, alpha=2), FIRST, CONFIG, 0),
        StackedRun(LoRAConfig(rank=5, alpha=20), SECOND, replace(CONFIG, lr=1e-2), 1),
        StackedRun(LoRAConfig(rank=3, alpha=3), FIRST, replace(CONFIG, weight_decay=0.1), 2),
    ],
    "full": [
        StackedRun(None, FIRST, CONFIG, 0),
        StackedRun(None, SECOND, replace(CONFIG, lr=1e-2), 1),
        StackedRun(None, FIRST, replace(CONFIG, weight_decay=0.1), 2),
    ],
}


def alone(base: Llama, run: StackedRun) -> tuple[Llama, list[float]]:
    """The same run through train.py, and its losses."""
    one = copy.deepcopy(base)
    if run.lora is None:
        unfreeze(one)
    else:
        inject(one, run.lora, generator=torch.Generator().manual_seed(run.seed))
    training = Training(one, run.batches, run.config)
    return one, training.run().losses


@pytest.mark.parametrize("method", RUNS)
def test_every_run_of_a_stack_is_the_run_alone(base, method):
    stack = Stack(base, RUNS[method])
    losses = torch.stack([stack.step() for _ in range(stack.steps)]).T.tolist()
    for i, run in enumerate(RUNS[method]):
        one, expected = alone(base, run)
        assert losses[i] == pytest.approx(expected, rel=1e-5)
        found = dict(stack.model_of(i).named_parameters())
        for name, p in one.named_parameters():
            torch.testing.assert_close(found[name], p, rtol=1e-4, atol=1e-5)
            assert found[name].requires_grad == p.requires_grad


@pytest.mark.parametrize("method", RUNS)
def test_a_stack_scores_each_run_as_scoring_does(base, method):
    stack = Stack(base, RUNS[method])
    for _ in range(stack.steps):
        stack.step()
    examples = FIRST.examples[:7]
    for i, found in enumerate(stack.score(examples, tokens_at_once=60)):
        expected = score(stack.model_of(i), examples, pad_id=0)
        assert (found.right, found.count) == (expected.right, expected.count)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)


def test_the_zeros_that_pad_a_rank_stay_zero(base):
    stack = Stack(base, RUNS["lora"])
    for _ in range(stack.steps):
        stack.step()
    for name, p in stack.parameters.items():
        if name.endswith(".A"):
            assert not p[0, 1:].any() and p[0, :1].any()
        if name.endswith(".B"):
            assert not p[0, :, 1:].any() and p[0, :, :1].any()


@pytest.mark.parametrize("method", RUNS)
def test_the_base_stays_as_it_was(base, method):
    before = copy.deepcopy(base.state_dict())
    stack = Stack(base, RUNS[method])
    stack.step()
    for name, value in base.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("method", RUNS)
def test_a_run_that_blows_up_stands_still_and_the_others_do_not_notice(base, method, monkeypatch):
    expected = Stack(base, RUNS[method])
    calm = [expected.step() for _ in range(expected.steps)]
    losses = Stack._losses

    def blow_up(stack, tokens, labels):
        """From the third step on the first run's loss, and so its gradient, is infinite."""
        times = torch.tensor([float("inf") if stack.position >= 3 else 1.0, 1.0, 1.0])
        return losses(stack, tokens, labels) * times

    monkeypatch.setattr(Stack, "_losses", blow_up)
    stack = Stack(base, RUNS[method])
    kept = []
    for _ in range(stack.steps):
        last = stack.step()
        kept.append({name: p[0].detach().clone() for name, p in stack.parameters.items()})
    assert stack.alive.tolist() == [False, True, True]
    assert not all(torch.equal(kept[1][name], kept[0][name]) for name in kept[0])
    for later in kept[2:]:
        assert all(torch.equal(later[name], kept[1][name]) for name in later)
    torch.testing.assert_close(last[1:], calm[-1][1:], **EXACT)


def test_a_full_stack_keeps_tied_weights_tied(base):
    stack = Stack(base, RUNS["full"])
    assert stack.model.lm_head.weight is stack.model.model.embed_tokens.weight
    assert sum(p[0].numel() for p in stack.parameters.values()) == sum(
        p.numel() for p in base.parameters()
    )


def test_what_one_program_cannot_vary_is_refused_and_named(base):
    first = RUNS["lora"][0]
    for other, field in [
        (RUNS["full"][0], "method"),
        (replace(first, lora=replace(first.lora, targets=("q_proj",))), "targets"),
        (replace(first, config=replace(CONFIG, steps=9)), "steps"),
        (replace(first, batches=batches(0, batch_size=2)), "batch_size"),
    ]:
        with pytest.raises(ValueError, match=f"must agree in {field}"):
            Stack(base, [first, other])
    with pytest.raises(ValueError, match="no runs"):
        Stack(base, [])
    with pytest.raises(ValueError, match="knows no dropout, no accumulation and no autocast"):
        Stack(base, [replace(first, config=replace(CONFIG, accumulation=2))])
    with pytest.raises(ValueError, match="no examples to judge by"):
        Stack(base, [first]).score([])


# A step as a graph


@pytest.fixture
def recorded(base, monkeypatch):
    """Makes a stack whose step is recorded once, as a GPU would, and then replayed."""
    monkeypatch.setattr(stacked, "Captured", Recorded)

    def make(method: str) -> Stack:
        stack = Stack(base, RUNS[method])
        stack.captures = True
        return stack

    return make


@pytest.mark.parametrize("method", RUNS)
def test_a_recorded_step_is_the_step(base, recorded, method):
    plain, replayed = Stack(base, RUNS[method]), recorded(method)
    for _ in range(plain.steps):
        torch.testing.assert_close(replayed.step(), plain.step(), **EXACT)
    for name, p in plain.parameters.items():
        torch.testing.assert_close(replayed.parameters[name], p, rtol=1e-4, atol=1e-6)


def test_recording_sees_weights_that_were_exchanged_before_the_first_step(base, recorded):
    plain, replayed = Stack(base, RUNS["lora"]), recorded("lora")
    for stack in (plain, replayed):
        with torch.no_grad():
            for name, p in stack.parameters.items():
                p.fill_(0.1 if name.endswith(".A") else 0.2)
    torch.testing.assert_close(replayed.step(), plain.step(), **EXACT)


def test_losses_of_a_replay_stay_when_the_next_one_comes(recorded):
    stack = recorded("lora")
    first = stack.step()
    kept = first.clone()
    assert not torch.equal(stack.step(), kept)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("method", RUNS)
def test_a_run_that_dies_in_a_replay_stays_dead(base, recorded, method, monkeypatch):
    losses, times = Stack._losses, torch.ones(3)
    monkeypatch.setattr(Stack, "_losses", lambda stack, *batch: losses(stack, *batch) * times)
    stack = recorded(method)
    stack.step()
    kept = {name: p.detach().clone() for name, p in stack.parameters.items()}
    times[0] = float("inf")
    stack.step()
    times[0] = 1
    stack.step()
    assert stack.alive.tolist() == [False, True, True]
    for name, p in stack.parameters.items():
        assert torch.equal(p[0], kept[name][0])
        assert not torch.equal(p[1], kept[name][1])


def test_a_run_that_dies_of_its_second_step_is_alive_after_its_first(base, monkeypatch):
    monkeypatch.setattr(stacked, "Captured", Recorded)
    hot = [replace(run, config=replace(CONFIG, lr=1e30)) for run in RUNS["full"]]
    stack = Stack(base, hot)
    stack.captures = True
    stack.step()
    assert stack.alive.all()
    stack.step()
    assert not stack.alive.any()


def test_a_recorded_stack_is_judged_between_two_steps(base, recorded):
    plain, replayed = Stack(base, RUNS["lora"]), recorded("lora")
    for _ in range(2):
        plain.step(), replayed.step()
        for a, b in zip(plain.score(FIRST.examples), replayed.score(FIRST.examples), strict=True):
            assert a.loss == pytest.approx(b.loss, rel=1e-5)


def test_a_graph_is_refused_where_there_is_no_gpu(base):
    assert not Stack(base, RUNS["lora"]).captures
    with pytest.raises(ValueError, match="needs a base on a GPU, this one is on cpu: leave it out"):
        Stack(base, RUNS["lora"], capture=True)
