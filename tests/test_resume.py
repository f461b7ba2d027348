"""A run taken up again gives the bits of the unbroken one, and refuses to be mixed up."""

import copy
import dataclasses

import pytest
import torch
from weights import assert_same_weights, weights

from lorakit.lora import LoRAConfig, inject, unfreeze
from lorakit.resume import load_checkpoint, save_checkpoint
from lorakit.step import TrainConfig
from lorakit.text import Batches, Encoded
from lorakit.train import Training

CONFIG = TrainConfig(steps=5, lr=1e-2, warmup_steps=2, accumulation=2, seed=9)
BATCHES = Batches(
    examples=tuple(Encoded(tuple(range(n, n + 7)), prompt=2) for n in range(1, 7)),
    batch_size=2,
    pad_id=0,
)


def adapted(model, rank: int = 3):
    """A copy of the base with fresh adapters that drop out, always the same."""
    model = copy.deepcopy(model)
    inject(model, LoRAConfig(rank=rank, dropout=0.3), generator=torch.Generator().manual_seed(1))
    return model


@pytest.fixture(params=["lora", "full"])
def fresh(request, model):
    return lambda: adapted(model) if request.param == "lora" else copy.deepcopy(model)


@pytest.mark.parametrize("calls", range(1, 2 * CONFIG.steps + 1))
def test_a_run_resumes_bit_for_bit_after_a_stop_at_any_micro_batch(fresh, calls, tmp_path):
    whole = Training(fresh(), BATCHES, CONFIG)
    whole.run()
    asked = iter(range(100))
    broken = Training(fresh(), BATCHES, CONFIG)
    broken.run(stop=lambda: next(asked) + 1 >= calls)
    save_checkpoint(broken, tmp_path / "checkpoint")
    torch.manual_seed(calls)  # whatever the next session has drawn before
    resumed = Training(fresh(), BATCHES, CONFIG)
    load_checkpoint(resumed, tmp_path / "checkpoint")
    assert resumed.position == (calls - 1) // 2
    resumed.run()
    assert_same_weights(resumed.model, weights(whole.model))
    assert resumed.history.losses == whole.history.losses
    assert resumed.history.notes == whole.history.notes


def test_dropout_matters_in_these_tests(model):
    losses = []
    for seed in (1, 2):
        training = Training(adapted(model), BATCHES, dataclasses.replace(CONFIG, seed=seed))
        losses.append(training.run().losses[-1])
    assert losses[0] != losses[1]


def saved(model, folder):
    training = Training(adapted(model), BATCHES, CONFIG)
    training.step()
    save_checkpoint(training, folder)


@pytest.mark.parametrize(
    ("batches", "config", "message"),
    [
        ({"examples": BATCHES.examples[1:]}, {}, "trained on other data"),
        ({"seed": 1}, {}, "trained on other data"),
        ({}, {"lr": 5e-3}, r"trained with lr=0\.01, not 0\.005"),
        ({}, {"steps": 9}, "trained with steps=5, not 9"),
    ],
)
def test_other_data_or_another_config_is_refused_and_nothing_changes(
    model, tmp_path, batches, config, message
):
    saved(model, tmp_path / "checkpoint")
    training = Training(
        adapted(model),
        dataclasses.replace(BATCHES, **batches),
        dataclasses.replace(CONFIG, **config),
    )
    before = weights(training.model)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(training, tmp_path / "checkpoint")
    assert_same_weights(training.model, before)
    assert training.position == 0


def test_a_model_that_trains_other_tensors_is_refused_by_name(model, tmp_path):
    saved(model, tmp_path / "checkpoint")
    for other in (adapted(model, rank=2), copy.deepcopy(model)):
        with pytest.raises(ValueError, match=r"does not fit this model: .* is .* there, .* here"):
            load_checkpoint(Training(other, BATCHES, CONFIG), tmp_path / "checkpoint")


def test_a_folder_that_is_no_checkpoint_is_neither_read_nor_overwritten(model, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    training = Training(unfrozen(model), BATCHES, CONFIG)
    with pytest.raises(ValueError, match=r"it has no run\.json"):
        load_checkpoint(training, tmp_path)
    with pytest.raises(ValueError, match="something else than a checkpoint"):
        save_checkpoint(training, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def unfrozen(model):
    unfreeze(model)
    return model


def test_an_error_while_saving_leaves_the_last_checkpoint(model, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoint"
    saved(model, folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    training = Training(adapted(model), BATCHES, CONFIG)

    def full(*args):
        raise OSError("no space left on device")

    monkeypatch.setattr("lorakit.resume.save_file", full)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(training, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
