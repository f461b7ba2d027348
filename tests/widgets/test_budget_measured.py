"""Real steps beside a budget: done unasked if small, else when asked, and when a slider rests."""

import asyncio

import pytest
from explorables import look

from lorakit.memory import estimate
from lorakit.plots.style import size
from lorakit.widgets import BudgetExplorer
from lorakit.widgets import budget as module
from lorakit.widgets.budget import AT_ONCE

ESTIMATED, MEASURED = ["full, estimated", "LoRA, estimated"], ["full, measured", "LoRA, measured"]
ALL = [row for pair in zip(ESTIMATED, MEASURED, strict=True) for row in pair]


@pytest.fixture
def explorer(shapes) -> BudgetExplorer:
    return BudgetExplorer(length=32, batch_size=2)


@pytest.fixture
def unasked(explorer, monkeypatch) -> BudgetExplorer:
    """An explorer for which no step is small enough to be done unasked."""
    monkeypatch.setattr(module, "AT_ONCE", 0)
    explorer.measured.clear()
    explorer.rank.value = 4
    return explorer


def rows(explorer) -> list[str]:
    return [text.get_text() for text in explorer.picture.axes.get_yticklabels()]


def test_for_a_device_that_is_not_here_nothing_is_measured(explorer):
    explorer.device.value = "cuda"
    assert rows(explorer) == ESTIMATED
    assert explorer.measure.disabled
    assert all(setup.device == "cpu" for setup in explorer.measured)


def test_small_steps_are_measured_unasked_and_need_no_button(explorer):
    assert max(estimate(setup).peak.total for setup in explorer.setups.values()) < AT_ONCE
    assert rows(explorer) == ALL
    assert explorer.measure.disabled


def test_larger_ones_are_measured_when_asked(unasked):
    assert rows(unasked) == ESTIMATED
    assert not unasked.measure.disabled
    unasked.measure.click()
    assert rows(unasked) == ALL
    assert unasked.measure.disabled
    assert "measured: " in unasked.picture.text


def test_a_measurement_that_a_control_made_stale_is_gone_and_comes_back_with_the_setting(
    unasked, monkeypatch
):
    unasked.measure.click()
    before = look(unasked)
    unasked.rank.value = 16
    assert rows(unasked) == ["full, estimated", "full, measured", "LoRA, estimated"]
    assert not unasked.measure.disabled
    unasked.batch_size.value = 8
    assert rows(unasked) == ESTIMATED
    monkeypatch.setattr(module, "measured", lambda setup, device: pytest.fail("measured again"))
    unasked.batch_size.value, unasked.rank.value = 2, 4
    assert look(unasked) == before


def test_the_budget_makes_no_measurement_stale(unasked):
    unasked.measure.click()
    unasked.budget.value = 8
    assert rows(unasked) == ALL


@pytest.mark.parametrize(("model", "asked"), [("smollm2-135m", True), ("large", False)])
def test_models_up_to_smollm2_may_be_measured(brief, unasked, model, asked):
    unasked.model.value = model
    assert unasked.measure.disabled != asked


def test_what_does_not_fit_this_machine_is_not_measured(unasked, monkeypatch):
    needed = max(estimate(setup).device for setup in unasked.setups.values())
    for free, asked in ((needed, False), (needed + 1, True)):
        monkeypatch.setattr(module, "free_bytes", lambda device, free=free: free)
        unasked.refresh()
        assert unasked.measure.disabled != asked


def test_a_measurement_that_fails_is_shown_and_may_be_asked_for_again(unasked, monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST")
    before = look(unasked)

    def fail(setup, device):
        raise MemoryError("out of memory")

    monkeypatch.setattr(module, "measured", fail)
    unasked.measure.click()
    assert "out of memory" in unasked.error.value
    assert look(unasked) == before
    assert not unasked.measure.disabled


# While a slider moves


def in_a_kernel(explorer, monkeypatch, act) -> None:
    monkeypatch.delenv("LORAKIT_TEST")
    explorer._later.seconds = 0.05

    async def main() -> None:
        await act()

    asyncio.run(main())


def test_a_moving_slider_moves_the_estimates_and_the_rest_follows_when_it_rests(
    explorer, monkeypatch
):
    async def act():
        for rank in (16, 32):
            explorer.rank.value = rank
            peak = estimate(explorer.setups["LoRA"]).peak
            assert f"LoRA: {size(peak.total)}" in explorer.picture.text
            assert "LoRA, measured" not in rows(explorer)
            assert explorer.advice.value == "working out what fits"
        await asyncio.sleep(0.3)
        assert rows(explorer) == ALL
        assert "Largest batch" in explorer.advice.value
        assert {s.lora.rank for s in explorer.measured if s.lora} == {8, 32}  # 16 was passed over

    in_a_kernel(explorer, monkeypatch, act)


def test_the_error_of_a_refused_setting_is_not_cleared_by_what_was_asked_before(
    explorer, monkeypatch
):
    async def act():
        explorer.rank.value = 16
        explorer.rank.value = 128
        await asyncio.sleep(0.2)
        assert "rank=128 is more than" in explorer.error.value

    in_a_kernel(explorer, monkeypatch, act)


def test_closed_it_works_nothing_out(explorer, monkeypatch):
    async def act():
        explorer.rank.value = 16
        explorer.close()
        monkeypatch.setattr(module, "advice", lambda *a, **k: pytest.fail("worked out"))
        await asyncio.sleep(0.2)
        assert {s.lora.rank for s in explorer.measured if s.lora} == {8}

    in_a_kernel(explorer, monkeypatch, act)
