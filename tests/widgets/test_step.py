"""A step: which numbers it changes, told and drawn tensor by tensor."""

from dataclasses import replace

import pytest
import torch
from explorables import values
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from lorakit.begin import begin
from lorakit.changes import changes, snapshot
from lorakit.plots.style import STILL
from lorakit.widgets.step import STEPS, StepExplorer, changes_after, describe


def kind(name: str) -> str:
    last = name.rpartition(".")[2]
    return last if last in "AB" else "base"


def moved(found) -> set[str]:
    return {kind(change.name) for change in found if change.changed}


def test_a_full_step_changes_every_tensor(run):
    found = changes_after(replace(run, method="full"), 1)
    assert all(change.changed for change in found)
    assert {kind(change.name) for change in found} == {"base"}


@pytest.mark.parametrize(("steps", "expected"), [(0, set()), (1, {"B"}), (2, {"A", "B"})])
def test_lora_changes_b_first_then_a_as_well_and_the_base_never(run, steps, expected):
    found = changes_after(run, steps)
    assert moved(found) == expected
    assert {kind(change.name) for change in found} == {"A", "B", "base"}
    for change in found:
        assert bool(change.changed) == (kind(change.name) in expected)


def test_the_base_is_not_changed_by_many_steps_either(run):
    assert moved(changes_after(run, 8)) == {"A", "B"}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_no_step_changes_nothing(run, method):
    found = changes_after(replace(run, method=method), 0)
    assert [(change.changed, change.size) for change in found] == [(0, 0.0)] * len(found)


def test_the_changes_are_those_of_the_runs_own_training(run):
    training = begin(run)
    before = snapshot(training.model)
    for _ in range(3):
        training.step()
    assert changes_after(run, 3) == changes(training.model, before)


def test_each_look_starts_from_a_fresh_base(run):
    explorer = StepExplorer(run)
    explorer.steps.value = 8
    explorer.steps.value = 1
    assert explorer.picture.text == describe(
        changes_after(run, 1), 1, run.train_config("cpu").learning_rate(1)
    )


def tiles(explorer) -> list[Rectangle]:
    return list(explorer.picture.axes.patches)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("steps", [0, 1, 2])
def test_there_is_a_tile_a_tensor_grey_where_nothing_changed(run, method, steps):
    explorer = StepExplorer(run)
    explorer.method.value, explorer.steps.value = method, steps
    found = changes_after(replace(run, method=method), steps)
    grey = [to_hex(tile.get_facecolor()) == STILL for tile in tiles(explorer)]
    assert grey == [not change.changed for change in found]


def test_no_tile_covers_another(run):
    places = [(tile.get_x(), tile.get_y()) for tile in tiles(StepExplorer(run))]
    assert len(set(places)) == len(places)


def test_the_words_count_what_changed_and_where(run):
    found = changes_after(run, 2)
    total = sum(p.numel() for p in begin(run).model.parameters())
    changed = {k: sum(c.changed for c in found if kind(c.name) == k) for k in "AB"}
    assert describe(found, 2, 0.002) == (
        f"after 2 steps: {sum(changed.values()):,} of {total:,} numbers changed "
        f"({changed['A']:,} in A, {changed['B']:,} in B); the learning rate was 0.002"
    )
    assert (
        describe(changes_after(run, 0), 0, 0.0) == f"after 0 steps: 0 of {total:,} numbers changed"
    )
    assert describe(changes_after(run, 1), 1, 0.1).startswith("after 1 step: ")


@pytest.mark.parametrize(("steps", "offered"), [(4, [0, 1, 2, 4]), (100, list(STEPS))])
def test_no_step_is_offered_beyond_the_runs_last(run, steps, offered):
    explorer = StepExplorer(replace(run, steps=steps))
    assert values(explorer.steps) == offered


def test_looking_leaves_the_random_numbers_of_others_alone(run):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    changes_after(run, 1)
    assert torch.equal(torch.rand(2), expected)
