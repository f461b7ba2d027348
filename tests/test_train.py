"""One loop for every method: what trains moves, what is frozen stays, a stop leaves no trace."""

import copy
import dataclasses
import math
from contextlib import contextmanager

import pytest
import torch
from weights import assert_same_weights, weights

from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.step import TrainConfig, response_loss
from lorakit.text import IGNORE, Batches, Encoded
from lorakit.train import Diverged, Training, train

CONFIG = TrainConfig(steps=6, lr=1e-2, warmup_steps=2)
LONG = TrainConfig(steps=60, lr=3e-2)
LORA = LoRAConfig(rank=4, alpha=8)


def examples(count: int = 8) -> tuple[Encoded, ...]:
    draw = torch.Generator().manual_seed(5)
    lengths = torch.randint(6, 12, (count,), generator=draw).tolist()
    return tuple(
        Encoded(tuple(torch.randint(1, 61, (n,), generator=draw).tolist()), prompt=3)
        for n in lengths
    )


@pytest.fixture
def batches() -> Batches:
    return Batches(examples=examples(), batch_size=2, pad_id=0)


def test_full_fine_tuning_moves_every_weight_and_learns(model, batches):
    before = weights(model)
    history = train(model, batches, LONG)
    assert history.losses[-1] < 0.5 * history.losses[0]
    assert not any(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert history.notes == []


def test_lora_moves_its_adapters_and_leaves_the_base_bit_for_bit(model, batches):
    before = weights(model)
    inject(model, LORA)
    history = train(model, batches, LONG)
    assert history.losses[-1] < 0.95 * history.losses[0]
    after = {name.replace(".base.", "."): t for name, t in model.state_dict().items()}
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(layer.B.any() for _, layer in lora_layers(model))
    assert history.notes == []


def test_the_prompt_and_the_padding_have_no_say_in_the_loss(model):
    tokens = torch.tensor([[7, 8, 9, 10, 11, 0]])
    labels = torch.tensor([[IGNORE, IGNORE, 9, 10, 11, IGNORE]])
    logits = model(tokens).detach().requires_grad_()
    response_loss(logits, labels).backward()
    spoken = logits.grad.abs().sum(-1)[0] > 0
    assert spoken.tolist() == [False, True, True, True, False, False]
    expected = -sum(model(tokens).log_softmax(-1)[0, i, tokens[0, i + 1]] for i in (1, 2, 3))
    torch.testing.assert_close(response_loss(model(tokens), labels), expected)


def test_micro_batches_give_the_gradient_of_one_large_batch(model, batches):
    twin = copy.deepcopy(model)
    one = Training(model, dataclasses.replace(batches, batch_size=4), CONFIG)
    two = Training(twin, batches, dataclasses.replace(CONFIG, accumulation=2))
    first, second = one.step(), two.step()
    assert first.loss == pytest.approx(second.loss, rel=1e-6)
    assert first.grad_norm == pytest.approx(second.grad_norm, rel=1e-5)


def test_the_gradient_is_clipped_and_its_norm_told_before_clipping(model, batches):
    seen = {}

    @contextmanager
    def phase(name):
        yield
        if name == "optimizer":
            seen["norm"] = math.sqrt(sum(p.grad.pow(2).sum() for p in model.parameters()))

    training = Training(model, batches, dataclasses.replace(CONFIG, max_grad_norm=0.01))
    record = training.step(phase=phase)
    assert record.grad_norm > 0.01
    assert seen["norm"] == pytest.approx(0.01, rel=1e-3)


def test_the_learning_rate_warms_up_then_falls_along_a_cosine():
    config = TrainConfig(steps=10, lr=1.0, warmup_steps=4)
    rates = [config.learning_rate(step) for step in range(1, 11)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[6] == pytest.approx(0.5 * (1 + math.cos(math.pi * 3 / 7)))
    assert 0 < rates[-1] < 0.1
    assert TrainConfig(steps=3, lr=1.0, warmup_steps=0).learning_rate(1) < 1


def test_phases_come_in_turn_once_a_micro_batch(model, batches):
    names = []

    @contextmanager
    def phase(name):
        names.append(name)
        yield

    Training(model, batches, dataclasses.replace(CONFIG, accumulation=2)).step(phase=phase)
    assert names == ["step", "forward", "backward", "forward", "backward", "optimizer"]


def test_history_counts_every_step(model, batches):
    heard = []
    history = train(model, batches, CONFIG, on_step=heard.append)
    assert heard == history.steps
    assert [record.step for record in heard] == [1, 2, 3, 4, 5, 6]
    assert heard[0].tokens == batches.batch(0)[0].numel()
    assert heard[2].lr == CONFIG.learning_rate(3)
    assert all(record.tokens_per_second > 0 for record in heard)


@pytest.mark.parametrize("calls", [1, 2, 3, 4])
def test_a_stop_between_micro_batches_leaves_whole_steps_only(model, batches, calls):
    asked = iter(range(100))
    before = weights(model)
    training = Training(model, batches, dataclasses.replace(CONFIG, accumulation=2))
    history = training.run(stop=lambda: next(asked) + 1 >= calls)
    assert len(history.steps) == (calls - 1) // 2
    assert all(p.grad is None for p in model.parameters())
    if not history.steps:
        assert_same_weights(model, before)


def test_training_goes_on_after_a_stop_as_if_there_had_been_none(model, batches):
    twin = copy.deepcopy(model)
    expected = train(twin, batches, CONFIG)
    asked = iter(range(100))
    training = Training(model, batches, CONFIG)
    training.run(stop=lambda: next(asked) == 3)
    assert training.position == 3
    training.run()
    assert training.history.losses == expected.losses
    assert_same_weights(model, weights(twin))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_before_any_weight_moves(model, batches, bad):
    training = Training(model, batches, CONFIG)
    training.step()
    with torch.no_grad():
        model.model.norm.weight[0] = bad
    before = weights(model)
    with pytest.raises(Diverged, match=r"loss is nan at step 2 with learning rate 0\.01"):
        training.run()
    assert training.position == 1
    after = weights(model)
    assert all(torch.equal(after[n].nan_to_num(), before[n].nan_to_num()) for n in before)


def test_after_two_steps_the_run_names_what_has_had_no_gradient_and_why(model, batches):
    inject(model, LORA)
    name, layer = lora_layers(model)[0]
    with torch.no_grad():
        layer.A.zero_()
    history = train(model, batches, CONFIG)
    (note,) = history.notes
    assert note.startswith("2 of 28 trainable tensors have had no gradient but zero")
    assert f"first: {name}.A" in note
    assert "both start at zero" in note


def test_nothing_to_train_is_refused(model, batches):
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        Training(model, batches, CONFIG)


def test_training_leaves_the_global_random_state_alone(model, batches):
    inject(model, dataclasses.replace(LORA, dropout=0.5))
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train(model, batches, CONFIG)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("accumulation", 0),
        ("warmup_steps", -1),
        ("lr", math.nan),
        ("lr", -1),
        ("weight_decay", math.inf),
        ("max_grad_norm", 0),
    ],
)
def test_a_config_refuses_nonsense_and_names_it(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .* got {value}"):
        TrainConfig(**{field: value})
