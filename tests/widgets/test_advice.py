"""What fits a budget, in words: the largest batches, and what to change, in order."""

import re
from dataclasses import replace

import pytest

from lorakit.memory import changes_to_fit, estimate, largest_batch
from lorakit.memory.fit import MOST
from lorakit.plots.style import size
from lorakit.widgets import BudgetExplorer
from lorakit.widgets.advice import advice, describe


@pytest.fixture
def explorer(shapes) -> BudgetExplorer:
    return BudgetExplorer(length=32, batch_size=2)


@pytest.fixture
def on_cuda(explorer) -> BudgetExplorer:
    explorer.device.value = "cuda"
    return explorer


def test_the_largest_batches_are_told(explorer):
    for budget in (0.03, 0.1):
        explorer.budget.value = budget
        for method, setup in explorer.setups.items():
            rows = largest_batch(explorer.bytes, setup).batch_size
            assert f"{method} {rows:,} rows" in explorer.advice.value
        assert f"within {size(explorer.bytes)}" in explorer.advice.value


def test_where_not_even_one_row_fits_it_is_told_what_one_takes(on_cuda):
    for method, setup in on_cuda.setups.items():
        one = estimate(replace(setup, batch_size=1)).device
        assert f"{method} none, one row takes {size(one)}" in on_cuda.advice.value


def test_what_fits_needs_no_change(explorer):
    assert "does not fit" not in explorer.advice.value


@pytest.mark.parametrize(("device", "fits"), [("cpu", True), ("cuda", False)])
def test_what_does_not_fit_gets_the_changes_in_order_and_what_each_saves(shapes, device, fits):
    explorer = BudgetExplorer(length=64, batch_size=16, budget=0.006, device=device)
    changes = changes_to_fit(explorer.bytes, explorer.setups["full"], rank=8)
    assert changes[-1].fits == fits and (fits or len(changes) == 4)
    full, _, end = explorer.advice.value.split("full does not fit.")[1].partition("</ol>")
    assert re.findall("<li>(.*?)</li>", full) == [
        f"{c.what}: saves {size(c.saves)}, then {size(c.memory.device)}" for c in changes
    ]
    assert end.startswith("<p>then it fits" if fits else "<p>it still does not fit")


def test_the_rank_of_the_advice_is_the_sliders(on_cuda):
    on_cuda.rank.value = 32
    assert "LoRA of rank 32" in on_cuda.advice.value


def test_where_no_change_helps_the_advice_says_what_is_left(on_cuda):
    assert "it still does not fit: that leaves a smaller model" in on_cuda.advice.value


def test_the_words_hold_what_was_measured_and_in_which_phase(explorer):
    estimated = estimate(explorer.setups["full"])
    other = replace(estimated, device=7 * 10**9, phases={"optimizer": estimated.peak})
    assert "measured" not in describe("full", estimated, None)
    assert describe("full", estimated, other).endswith("; measured: 7 GB, in optimizer")


def test_one_row_is_a_row_and_more_than_anybody_asks_for_is_said_to_be_so(explorer):
    setups = explorer.setups
    one = estimate(replace(setups["full"], batch_size=1)).device
    assert "full 1 row;" in advice(one, setups, rank=8)
    rows = re.search(r"full ([\d,]+) rows or more;", advice(10**15, setups, rank=8))
    assert int(rows[1].replace(",", "")) >= MOST
