"""A run before its first step: the base as it is, what the method trains, the run's batches."""

from dataclasses import replace

import pytest
import torch

from lorakit.begin import base_of, begin, make_trainable
from lorakit.checkpoint import load_base
from lorakit.experiment import finetune
from lorakit.lora import lora_layers, trainable
from lorakit.qlora import quantize_, quantized_layers
from lorakit.run import Run
from lorakit.tasks import load_task
from lorakit.text import encode_batches


@pytest.fixture
def run(tiny_base, tiny_task) -> Run:
    return Run(base=tiny_base, task=tiny_task, rank=4, steps=3, batch_size=2, answers=0, heldout=2)


def test_before_the_first_step_nothing_is_done(run):
    training = begin(run)
    assert training.position == 0
    assert not any(layer.B.any() for _, layer in lora_layers(training.model))


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_it_is_the_training_that_finetune_does(run, method):
    run = replace(run, method=method)
    training, result = begin(run), finetune(run)
    assert training.run().losses == result.history.losses
    trained, expected = training.model.state_dict(), result.model.state_dict()
    assert all(torch.equal(trained[name], expected[name]) for name in expected)


def test_full_trains_every_weight_of_the_base(run):
    training = begin(replace(run, method="full"))
    base, _ = load_base(run.base)
    assert len(trainable(training.model)) == len(list(base.parameters()))
    assert lora_layers(training.model) == []


def test_lora_trains_its_adapters_alone(run):
    training = begin(run)
    names = {name for name, p in training.model.named_parameters() if p.requires_grad}
    assert names == {f"{n}.{which}" for n, _ in lora_layers(training.model) for which in "AB"}
    assert {layer.config for _, layer in lora_layers(training.model)} == {run.lora}


def test_qlora_trains_adapters_over_a_base_in_4_bits(run):
    training = begin(replace(run, method="qlora"))
    base = load_base(run.base)[0]
    quantize_(base)
    expected = dict(quantized_layers(base))
    layers = dict(lora_layers(training.model))
    assert layers.keys() == expected.keys()
    for name, layer in layers.items():
        assert torch.equal(layer.base.weight.cpu(), expected[name].weight)
    parameters = set(map(id, trainable(training.model)))
    assert parameters == {id(p) for layer in layers.values() for p in (layer.A, layer.B)}


def test_a_base_in_half_precision_has_the_same_4_bits(run, monkeypatch):
    run = replace(run, method="qlora")
    wide, _ = base_of(run, torch.device("cpu"))
    monkeypatch.setattr(Run, "dtype", lambda self, device: torch.bfloat16)
    half, _ = base_of(run, torch.device("cpu"))
    assert half.model.embed_tokens.weight.dtype == torch.bfloat16
    for (_, one), (_, other) in zip(quantized_layers(wide), quantized_layers(half), strict=True):
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in one.stored)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_base_is_what_it_was(run, method):
    training = begin(replace(run, method=method))
    base = dict(load_base(run.base)[0].named_parameters())
    for name, p in training.model.named_parameters():
        plain = name.replace(".base.", ".")
        assert plain not in base or torch.equal(p.cpu(), base[plain])


def test_the_seed_draws_the_adapters_and_the_order(run):
    first, same, other = (begin(replace(run, seed=seed)) for seed in (0, 0, 1))
    As = [lora_layers(training.model)[0][1].A for training in (first, same, other)]
    assert torch.equal(As[0], As[1]) and not torch.equal(As[0], As[2])
    tokens = [training.batches.batch(0)[0].tolist() for training in (first, same, other)]
    assert tokens[0] == tokens[1] != tokens[2]


def test_the_batches_are_of_the_runs_task_sample_and_size(run):
    run = replace(run, sample=5, batch_size=3)
    training = begin(run)
    _, tokenizer = load_base(run.base)
    drawn = run.drawn(load_task(run.task).train)
    assert training.batches == encode_batches(tokenizer, drawn, batch_size=3, seed=run.seed)
    assert len(training.batches.examples) == 5


def test_two_beginnings_share_no_weight(run):
    first, second = begin(run), begin(run)
    first.step()
    assert not any(layer.B.any() for _, layer in lora_layers(second.model))


def test_drawing_adapters_leaves_the_random_numbers_of_others_alone(model, run):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    make_trainable(model, run)
    assert torch.equal(torch.rand(2), expected)
