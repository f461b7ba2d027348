"""However often a slider is moved or a model is trained, no tensor stays behind."""

from dataclasses import replace
from itertools import cycle, islice

import pytest
import torch
from explorables import assert_keeps_nothing, controls, values

from lorakit.widgets import (
    FinetuneExplorer,
    Handshake,
    LiveMemoryExplorer,
    StartsExplorer,
    budget,
    picture,
    step,
)
from lorakit.widgets.measured import measured

MOVES = 50
CYCLES = 20


@pytest.fixture(autouse=True)
def nothing_is_rendered(monkeypatch):
    """Pixels hold no tensors, and are most of a move's time."""
    monkeypatch.setattr(picture, "png", lambda figure: b"")
    monkeypatch.setattr(picture.Picture, "_blit", lambda self, kept: ((), b""))
    monkeypatch.setattr(step, "draw_tensors", lambda ax, changes, concept: None)
    monkeypatch.setattr(budget, "advice", lambda budget, setups, rank: "")  # nor do words


def moves(explorer):
    """Sets every control, one after the other, to its first value, the next time to its second."""
    turns = [(control, cycle(values(control)[:2])) for control in controls(explorer)]

    def move() -> None:
        measured.cache_clear()  # or the second move to a value would measure nothing
        getattr(explorer, "measured", {}).clear()
        for control, turn in turns:
            control.value = next(turn)

    return move


@pytest.mark.parametrize(
    "name", ["parameters", "memory", "estimate", "spectrum", "step", "handshake", "finetune"]
)
def test_fifty_moves_of_every_control_leave_no_tensor_behind(make, name):
    move = moves(make(name))
    move()
    assert_keeps_nothing(move, MOVES)


@pytest.mark.parametrize("explorable", [FinetuneExplorer, LiveMemoryExplorer, StartsExplorer])
def test_training_and_dropping_again_and_again_leaves_no_tensor_behind(run, explorable):
    short = replace(run, steps=1, heldout=1, answers=0)

    def train_and_drop() -> None:
        explorer = explorable(short)
        explorer.go(wait=True)
        explorer.close()

    assert_keeps_nothing(train_and_drop, CYCLES)


def test_the_steps_beside_a_budget_leave_no_tensor_behind(make):
    move = moves(make("budget"))  # many controls, each with a real step by each method
    move()
    assert_keeps_nothing(move, 2)


def test_a_run_after_a_run_keeps_one_model(make):
    explorer = make("finetune")
    assert_keeps_nothing(lambda: explorer.train(wait=True), 5)


# The asking itself


def test_a_list_that_keeps_results_is_found_out(make):
    kept = []
    explorer = make("finetune")
    with pytest.raises(AssertionError, match="bytes stay after 3 more"):
        assert_keeps_nothing(lambda: kept.append(explorer.train(wait=True)), 3)


def test_a_slider_that_keeps_a_number_a_move_is_found_out():
    explorer, kept = Handshake(), []
    explorer.number.observe(lambda change: kept.append(torch.zeros(1)), names="value")
    numbers = islice(cycle(range(10)), 4, None)

    def move() -> None:
        explorer.number.value = next(numbers)

    with pytest.raises(AssertionError, match=f"{4 * MOVES} bytes stay"):
        assert_keeps_nothing(move, MOVES)
