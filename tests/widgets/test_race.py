"""A race: the same batches for all, each runner as it is alone, settings for the next one."""

import threading
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from explorables import assert_keeps_nothing, controls, look
from matplotlib.colors import to_hex, to_rgb

from lorakit.begin import begin
from lorakit.checkpoint import load_base
from lorakit.plots import COLORS
from lorakit.run import MINI_LEARNING_RATES, Run
from lorakit.scoring import score
from lorakit.stacked import Stack
from lorakit.tasks import load_task
from lorakit.text import encode_example
from lorakit.widgets import RaceExplorer
from lorakit.widgets import race as module

RANKS = (1, 2, 4)
NAMES = ["full", "rank 1", "rank 2", "rank 4"]


@pytest.fixture
def explorer(run) -> RaceExplorer:
    return RaceExplorer(run, RANKS, tasks=["manner"])


@pytest.fixture
def teams(monkeypatch) -> list[Stack]:
    """The stacks that race, as they are made."""
    real, made = module.stack_runs, []

    def stack_runs(runs):
        stack, judged = real(runs)
        made.append(stack)
        return stack, judged

    monkeypatch.setattr(module, "stack_runs", stack_runs)
    return made


def test_every_runner_meets_the_same_batches_in_the_same_order(explorer, run, monkeypatch):
    real, met = Stack._batch, {}

    def batch(stack, position):
        tokens, labels = real(stack, position)
        met.setdefault(position, []).extend(tokens.chunk(len(stack.runs)))
        return tokens, labels

    monkeypatch.setattr(Stack, "_batch", batch)
    explorer.go(wait=True)
    alone = begin(run).batches
    assert sorted(met) == list(range(run.steps))
    for position, batches in met.items():
        assert len(batches) == len(NAMES)
        assert all(torch.equal(tokens, alone.batch(position)[0]) for tokens in batches)
    assert any(not torch.equal(met[0][0], met[position][0]) for position in met)


@pytest.mark.parametrize("alpha", [module.FIXED, module.TWICE])
def test_every_runner_ends_as_the_same_run_alone(explorer, teams, alpha):
    explorer.alpha.value = alpha
    explorer.go(wait=True)
    full, lora = teams
    places = [(full, 0), *((lora, index) for index in range(len(RANKS)))]
    for (name, run), (stack, index) in zip(explorer.runs.items(), places, strict=True):
        alone = begin(run)
        assert explorer.losses[name] == pytest.approx(alone.run().losses, rel=1e-4)
        found = dict(stack.model_of(index).named_parameters())
        for key, p in alone.model.named_parameters():
            torch.testing.assert_close(found[key], p, rtol=1e-3, atol=1e-4)


def test_the_runners_differ_in_method_rank_and_their_methods_rate_alone(explorer, run):
    explorer.lr.value = 2e-3
    runs = explorer.runs
    assert list(runs) == NAMES
    assert [runs[name].rank for name in NAMES[1:]] == [*RANKS]
    assert {runs[name].learning_rate for name in NAMES[1:]} == {2e-3}
    assert runs["full"].learning_rate == replace(run, method="full", lr=None).learning_rate
    same = {replace(one, method="lora", rank=1, lr=None) for one in runs.values()}
    assert same == {replace(run, rank=1, lr=None)}


def test_without_a_rate_of_its_own_every_method_has_its_own():
    runs = RaceExplorer(Run(base="mini", task="json"), [8]).runs
    assert runs["full"].learning_rate == MINI_LEARNING_RATES["full"]
    assert runs["rank 8"].learning_rate == MINI_LEARNING_RATES["lora"]


def test_alpha_is_the_same_or_twice_the_rank(explorer, run):
    assert {one.alpha for one in explorer.runs.values()} == {run.alpha}
    explorer.alpha.value = module.TWICE
    assert [explorer.runs[name].alpha for name in NAMES[1:]] == [2, 4, 8]
    assert {explorer.runs[name].lora.scale for name in NAMES[1:]} == {2.0}


def test_full_fine_tuning_need_not_race(run):
    explorer = RaceExplorer(run, RANKS, full=False)
    explorer.go(wait=True)
    assert list(explorer.losses) == list(explorer.scores) == NAMES[1:]
    assert f"{run.steps} of {run.steps} steps of 3 runs" in explorer.line.value
    assert explorer.line.value.endswith(f"learning rates: LoRA: {explorer.lr.value:g}")


@pytest.mark.parametrize("ranks", [(), (4, 2), (2, 2)])
def test_ranks_that_do_not_rise_are_refused(run, ranks):
    with pytest.raises(ValueError, match="ranks must be different and rise"):
        RaceExplorer(run, ranks)


# What is left of it


def test_the_curves_are_the_losses_that_are_left(explorer, run):
    explorer.go(wait=True)
    assert {len(losses) for losses in explorer.losses.values()} == {run.steps}
    lines = dict(zip(explorer.losses, explorer.picture.axes.lines, strict=True))
    for name, losses in explorer.losses.items():
        assert list(lines[name].get_ydata()) == losses
        assert f"{name}: {losses[-1]:.3g}" in explorer.picture.text
    assert to_hex(lines["full"].get_color()) == COLORS["full"]
    greys = [sum(to_rgb(lines[name].get_color())) for name in NAMES[1:]]
    assert all(lighter > darker + 0.3 for lighter, darker in pairwise(greys))


def test_a_ranks_line_looks_the_same_whoever_races_with_it(explorer):
    explorer.go(wait=True)
    before = explorer.picture.axes.lines[3].get_color()
    explorer.ranks.value = (4,)
    explorer.go(wait=True)
    assert explorer.picture.axes.lines[1].get_color() == before


def test_every_runner_is_judged_as_it_would_be_alone(explorer, teams, run):
    explorer.go(wait=True)
    _, tokenizer = load_base(run.base)
    heldout = load_task(run.task).heldout[: run.heldout]
    examples = [encode_example(tokenizer, example) for example in heldout]
    models = [teams[0].model_of(0), *(teams[1].model_of(index) for index in range(3))]
    for name, model in zip(NAMES, models, strict=True):
        expected = score(model, examples, pad_id=tokenizer.pad_id)
        found = explorer.scores[name]
        assert (found.right, found.count) == (expected.right, run.heldout)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert f"{name}: {expected.loss:.3g}" in explorer.loss.text
        assert f"{name}: {expected.right / run.heldout:.2f}" in explorer.match.text
    points = explorer.loss.axes.lines[0]
    assert list(points.get_ydata()) == [explorer.scores[name].loss for name in NAMES[1:]]
    full = explorer.loss.axes.lines[1]
    assert full.get_ydata()[0] == explorer.scores["full"].loss


def test_a_hundred_examples_judge_at_most(run):
    explorer = RaceExplorer(replace(run, heldout=400), RANKS)
    assert {one.heldout for one in explorer.runs.values()} == {module.MOST} == {100}


def test_it_starts_over_and_ends_the_same(explorer):
    explorer.go(wait=True)
    losses, seen = explorer.losses, look(explorer)
    explorer.go(wait=True)
    assert explorer.losses == losses and explorer.losses is not losses
    assert look(explorer) == seen


def test_it_is_drawn_while_it_runs(explorer, run, monkeypatch):
    monkeypatch.setattr(RaceExplorer, "redraw", -1.0)
    seen = []
    explorer.picture.image.observe(lambda change: seen.append(change.new), names="value")
    explorer.go(wait=True)
    assert len(seen) >= run.steps


def test_stop_ends_it_and_what_there_is_is_drawn_and_not_judged(explorer, teams, monkeypatch):
    gate, real = threading.Event(), Stack.step

    def step(stack):
        if stack.position == 2 and stack is teams[0]:
            explorer.stop.click()
            gate.set()
        return real(stack)

    monkeypatch.setattr(Stack, "step", step)
    explorer.go()
    assert gate.wait(20)
    explorer.go(wait=True)
    assert explorer.line.value.startswith("stopped: 3 of 8 steps of 4 runs")
    assert {len(losses) for losses in explorer.losses.values()} == {3}
    assert list(explorer.picture.axes.lines[0].get_ydata()) == explorer.losses["full"]
    assert explorer.picture.text.startswith("loss at step 3")
    assert explorer.scores == {} and explorer.match.text == "not judged yet"


def test_a_runner_that_diverges_is_told_and_the_others_finish(run):
    explorer = RaceExplorer(replace(run, lr=1e30), RANKS)
    explorer.go(wait=True)
    for name in NAMES[1:]:
        assert f"{name}: diverged" in explorer.picture.text
    assert f"full: {explorer.losses['full'][-1]:.3g}" in explorer.picture.text
    assert explorer.error.value == ""


def test_racing_and_dropping_again_and_again_leaves_no_tensor_behind(run):
    short = replace(run, steps=1, heldout=1)

    def race_and_drop() -> None:
        explorer = RaceExplorer(short, RANKS)
        explorer.go(wait=True)
        explorer.close()

    assert_keeps_nothing(race_and_drop, 5)


# Its controls

MOVES = {"task": "manner", "ranks": (1, 4), "alpha": module.TWICE, "lr": 2e-3}


@pytest.mark.parametrize("control", MOVES)
def test_a_setting_decides_the_next_race_and_moves_no_picture(explorer, control):
    before, runs = look(explorer), explorer.runs
    slider = getattr(explorer, control)
    old, slider.value = slider.value, MOVES[control]
    assert explorer.runs != runs
    assert look(explorer) == before
    slider.value = old
    assert explorer.runs == runs


@pytest.mark.parametrize("control", MOVES)
def test_the_next_race_follows_a_control_there_and_back(explorer, control):
    explorer.start.click()
    before, slider = look(explorer), getattr(explorer, control)
    old, slider.value = slider.value, MOVES[control]
    explorer.start.click()
    (png, text), *_ = look(explorer)
    assert png != before[0][0] and text != before[0][1]
    slider.value = old
    explorer.start.click()
    assert look(explorer) == before


def test_no_control_is_passed_over(explorer):
    assert {getattr(explorer, name) for name in MOVES} == set(controls(explorer))


def test_what_it_is_is_told_in_words_that_stay(explorer):
    assert explorer._repr_mimebundle_()["text/plain"] == explorer.alt
    assert explorer.picture.text == "no step yet"
    for picture in explorer.pictures:
        assert picture.value and picture.text != picture.alt
