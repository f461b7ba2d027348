"""Counts are those of the lab, and so are the bytes."""

import pytest
import torch

import lorakit as lk
from lorakit.checks import check_adapter_parameters, check_training_mebibytes
from lorakit.counts import skeleton

MINI = lk.PRESETS["mini"]


def by_the_lab(model, rank):
    lk.inject(model, lk.LoRAConfig(rank=rank))
    return sum(p.numel() for p in lk.trainable(model))


def test_the_labs_own_count_is_right():
    check_adapter_parameters(by_the_lab, strict=True)


@pytest.mark.parametrize("preset", ["mini", "smollm2-135m", "llama-3-8b"])
def test_the_solution_counts_what_the_lab_counts(preset):
    (adapter_parameters,) = check_adapter_parameters.answer(check_adapter_parameters.solution)
    shape = lk.PRESETS[preset]
    wanted = lk.count(shape, lk.LoRAConfig(rank=4)).trainable
    assert adapter_parameters(skeleton(shape), 4) == wanted


@pytest.mark.parametrize(
    ("count", "name"),
    [
        (lambda model, rank: 2 * rank * 128 * 28, None),  # every layer taken as square
        (lambda model, rank: by_the_lab(model, 1), "rank forgotten"),
        (lambda model, rank: by_the_lab(model, 2 * rank), None),
    ],
)
def test_what_others_count_wrong(count, name):
    verdict = check_adapter_parameters.judge(count)
    assert (verdict.name, verdict.kind == "mistake") == (name, name is not None)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_solutions_bytes_are_those_of_a_real_step(method):
    """AdamW's step counters, 4 bytes a tensor, are what the exercise leaves out."""
    (training_mebibytes,) = check_training_mebibytes.answer(check_training_mebibytes.solution)
    lora = lk.LoRAConfig(rank=8) if method == "lora" else None
    held = lk.estimate(lk.Setup(model=MINI, lora=lora, length=16)).most
    told = training_mebibytes(skeleton(MINI, lora))
    tensors = len(lk.trainable(skeleton(MINI, lora)))
    assert told["gradients"] * 2**20 == held.gradients
    assert told["optimizer"] * 2**20 == held.optimizer - 4 * tensors
    # Beside the parameters, the tables of the rotary positions.
    assert 0 <= held.weights - told["weights"] * 2**20 < 2**17


def bill(model, unit=2**20, state=8):
    total = sum(p.numel() for p in model.parameters())
    trains = sum(p.numel() for p in lk.trainable(model))
    held = {"weights": 4 * total, "gradients": 4 * trains, "optimizer": state * trains}
    return {part: size / unit for part, size in held.items()}


def test_another_bill_is_right():
    def bill(model):
        sizes = torch.tensor([[p.numel(), p.numel() * p.requires_grad] for p in model.parameters()])
        total, trains = sizes.sum(0).tolist()
        return {
            "weights": total / 2**18,
            "gradients": trains / 2**18,
            "optimizer": trains / 2**17,
            "more": 1,
        }

    check_training_mebibytes(bill, strict=True)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"unit": 10**6}, "MB for MiB"),
        ({"unit": 1}, "bytes for MiB"),
        ({"state": 4}, "second Adam moment forgotten"),
        ({"state": 0}, None),
        ({"unit": 2**30}, None),
    ],
)
def test_what_others_bill_wrong_has_the_same_name(options, name):
    verdict = check_training_mebibytes.judge(lambda model: bill(model, **options))
    assert (verdict.name, verdict.kind == "mistake") == (name, name is not None)


def test_gigabytes_are_told_by_their_size():
    told = check_training_mebibytes.judge(lambda model: bill(model, unit=2**30)).text
    assert told == "weights, in full: too small by about 1,000 times"
