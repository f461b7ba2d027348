"""The largest batch is the largest, and what to change comes in order, each with what it saves."""

from dataclasses import replace

import pytest

from lorakit.lora import LoRAConfig
from lorakit.memory import Setup, changes_to_fit, estimate, largest_batch
from lorakit.presets import PRESETS
from lorakit.step import TrainConfig

MINI = Setup(model=PRESETS["mini"], length=32)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=4)], ids=["full", "lora"])
def test_one_row_more_would_not_fit(device, lora):
    setup = replace(MINI, lora=lora, device=device)
    budget = estimate(replace(setup, batch_size=20)).device
    fit = largest_batch(budget, setup)
    assert fit.batch_size >= (20 if device == "cpu" else 15)
    assert fit.memory.device <= budget
    more = estimate(replace(setup, batch_size=fit.batch_size + 1))
    if device == "cpu":
        assert more.device > budget
    else:  # a per cent is left free, and segments come in steps of 2 MiB or more
        assert more.device > 0.95 * budget


def test_a_batch_that_just_fits_is_found_to_the_row():
    for rows in (1, 2, 3, 31, 64):
        budget = estimate(replace(MINI, batch_size=rows)).device
        assert largest_batch(budget, MINI).batch_size == rows


def test_a_budget_under_the_weights_fits_no_row():
    fit = largest_batch(1_000_000, MINI)
    assert fit.batch_size == 0
    assert fit.memory == estimate(MINI)


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_of_nothing_is_refused(budget):
    with pytest.raises(ValueError, match=f"a budget must be at least 1 byte, got {budget}"):
        largest_batch(budget, MINI)
    with pytest.raises(ValueError, match="at least 1 byte"):
        changes_to_fit(budget, MINI)


def test_what_fits_needs_no_change():
    assert changes_to_fit(estimate(MINI).device, MINI) == []


def test_fewer_rows_come_first_and_suffice_where_they_can():
    setup = replace(MINI, batch_size=16)
    accumulated = replace(setup, batch_size=4, config=TrainConfig(accumulation=4))
    (change,) = changes_to_fit(estimate(accumulated).device, setup)
    assert change.what == "micro-batches of 4, 4 of them accumulated"
    assert change.setup == accumulated
    assert change.fits
    assert change.saves == estimate(setup).device - estimate(accumulated).device > 0


def test_changes_come_in_order_and_add_up():
    setup = replace(MINI, batch_size=6, length=200)
    config = TrainConfig(accumulation=6, gradient_checkpointing=True)
    last = replace(setup, batch_size=1, config=config, lora=LoRAConfig(rank=2))
    changes = changes_to_fit(estimate(last).device, setup, rank=2)
    assert [change.what for change in changes] == [
        "micro-batches of 1, 6 of them accumulated",
        "gradient checkpointing",
        "LoRA of rank 2",
    ]
    assert [change.fits for change in changes] == [False, False, True]
    assert sum(change.saves for change in changes) == (
        estimate(setup).device - changes[-1].memory.device
    )
    assert changes[-1].setup == last


def test_where_nothing_suffices_the_last_change_says_so():
    changes = changes_to_fit(1_000_000, replace(MINI, lora=LoRAConfig(rank=1)))
    assert [change.what for change in changes] == [
        "gradient checkpointing",
        "QLoRA, the base in 4 bits",
    ]
    assert not changes[-1].fits


def test_after_lora_comes_a_base_in_4_bits_and_after_that_nothing():
    config = TrainConfig(gradient_checkpointing=True)
    last = replace(MINI, config=config, lora=LoRAConfig(rank=2), quantized=True)
    *_, lora, qlora = changes_to_fit(estimate(last).device, replace(MINI, config=config), rank=2)
    assert (lora.what, lora.fits) == ("LoRA of rank 2", False)
    assert (qlora.setup, qlora.fits) == (last, True)
    assert qlora.saves == estimate(lora.setup).device - estimate(last).device > 0
    assert changes_to_fit(1, last) == []
