"""Four starts of A and B: as named, and what each does to the base and to itself."""

import threading
from dataclasses import replace

import pytest
import torch
from explorables import look
from matplotlib.colors import to_hex

from lorakit.begin import begin
from lorakit.lora import lora_layers
from lorakit.plots import COLORS
from lorakit.widgets import starts as module
from lorakit.widgets.starts import STARTS, StartsExplorer, stack_of_starts


@pytest.fixture
def stack(run):
    return stack_of_starts(run)


@pytest.fixture
def explorer(run) -> StartsExplorer:
    return StartsExplorer(run)


def factors(stack, start: str, which: str) -> list[torch.Tensor]:
    index = STARTS.index(start)
    return [p[index] for name, p in stack.parameters.items() if name.endswith(f".{which}")]


@pytest.mark.parametrize(
    ("start", "zero"),
    [("B zero", {"B"}), ("A zero", {"A"}), ("both zero", {"A", "B"}), ("both random", set())],
)
def test_a_start_is_as_its_name_says(stack, start, zero):
    for which in "AB":
        tensors = factors(stack, start, which)
        assert len(tensors) == 7
        assert all(bool(p.any()) != (which in zero) for p in tensors)
        assert which in zero or all(p.count_nonzero() == p.numel() for p in tensors)


def test_there_are_the_four_of_them():
    assert set(STARTS) == {"B zero", "A zero", "both zero", "both random"}


def test_loras_own_start_is_that_of_the_run_alone(stack, run):
    layers = lora_layers(begin(run).model)
    for (_, layer), A in zip(layers, factors(stack, "B zero", "A"), strict=True):
        assert torch.equal(layer.A, A)


def test_a_random_b_is_drawn_as_a_is_and_is_the_same_for_both_starts(stack):
    pairs = [factors(stack, start, "B") for start in ("A zero", "both random")]
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))
    for B in pairs[0]:
        bound = 1 / B.shape[1] ** 0.5  # uniform in it, as nn.Linear's own weights are
        assert 0.9 * bound < B.abs().max() <= bound


def test_the_two_random_starts_share_their_a(stack):
    pairs = [factors(stack, start, "A") for start in ("B zero", "both random")]
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


@pytest.mark.parametrize("steps", [1, 4])
def test_both_zero_never_moves(stack, steps):
    for _ in range(steps):
        stack.step()
    for which in "AB":
        assert not any(p.any() for p in factors(stack, "both zero", which))


@pytest.mark.parametrize("start", ["B zero", "A zero", "both random"])
def test_every_other_start_moves(stack, start):
    before = [p.clone() for which in "AB" for p in factors(stack, start, which)]
    stack.step()
    after = [p for which in "AB" for p in factors(stack, start, which)]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_delta_of_zero_begins_at_the_bases_loss_exactly_and_a_random_one_does_not(stack, run):
    losses = dict(zip(STARTS, stack.step().tolist(), strict=True))
    assert losses["B zero"] == losses["A zero"] == losses["both zero"]
    assert losses["both random"] != losses["both zero"]
    alone = begin(run).step()
    assert alone.loss == pytest.approx(losses["both zero"], rel=1e-6)  # fresh LoRA is the base


def test_both_zero_has_the_bases_loss_at_every_step(explorer, run):
    explorer.go(wait=True)
    still = begin(replace(run, lr=1e-30))
    base = [still.step().loss for _ in range(run.steps)]
    assert explorer.losses["both zero"] == pytest.approx(base, rel=1e-6)
    assert explorer.losses["B zero"][-1] < base[-1] - 0.01


def test_a_full_run_is_refused(run):
    explorer = StartsExplorer(replace(run, method="full"))
    with pytest.raises(ValueError, match="full fine-tuning has no A and B to start from"):
        explorer.go(wait=True)
    assert explorer.line.value == "ended by an error"


def test_four_curves_are_the_losses_that_are_left(explorer, run):
    explorer.go(wait=True)
    assert [len(losses) for losses in explorer.losses.values()] == [run.steps] * 4
    drawn = {line.get_label(): line for line in explorer.picture.axes.lines}
    for start in STARTS:
        assert list(drawn[start].get_ydata()) == explorer.losses[start]
        assert to_hex(drawn[start].get_color()) == module.STYLES[start]["color"]
    assert explorer.line.value == f"{run.steps} of {run.steps} steps"
    assert to_hex(drawn["B zero"].get_color()) == COLORS["lora"]


def test_the_words_hold_each_starts_first_and_last_loss(explorer):
    before = look(explorer)
    explorer.go(wait=True)
    for start, losses in explorer.losses.items():
        assert f"{start} {losses[0]:.2g} to {losses[-1]:.2g}" in explorer.picture.text
    assert look(explorer)[0][0] != before[0][0]


def test_it_starts_over_and_ends_the_same(explorer):
    explorer.go(wait=True)
    losses, seen = explorer.losses, look(explorer)
    explorer.go(wait=True)
    assert explorer.losses == losses and explorer.losses is not losses
    assert look(explorer) == seen


def test_stop_ends_it_and_what_there_is_is_drawn(explorer, monkeypatch):
    real = module.stack_of_starts
    gate = threading.Event()

    def slow(run):
        stack = real(run)
        step = stack.step

        def one_step():
            if stack.position == 2:
                explorer.stop.click()
                gate.set()
            return step()

        stack.step = one_step
        return stack

    monkeypatch.setattr(module, "stack_of_starts", slow)
    explorer.go()
    assert gate.wait(20)
    explorer.go(wait=True)
    assert explorer.line.value == "3 of 8 steps"
    assert {len(losses) for losses in explorer.losses.values()} == {3}
    assert list(explorer.picture.axes.lines[0].get_ydata()) == explorer.losses["B zero"]
