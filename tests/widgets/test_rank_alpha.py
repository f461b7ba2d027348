"""Rank, alpha and rate: the multiplier at once, a training when they rest, and none that queues."""

import math
import threading
import time
from dataclasses import replace

import pytest
import torch
from explorables import assert_keeps_nothing, controls, look
from matplotlib.colors import to_hex

from lorakit.begin import begin
from lorakit.checkpoint import load_base
from lorakit.lora import LoRAConfig, lora_layers
from lorakit.plots import COLORS
from lorakit.tasks import load_task
from lorakit.text import encode_example
from lorakit.widgets import RankAlphaExplorer
from lorakit.widgets import rank_alpha as module
from lorakit.widgets.rank_alpha import KEPT, PLAIN, PROBE, STABLE, changing

MOVES = {"rank": 16, "alpha": 64, "divisor": STABLE, "lr": 0.05}


@pytest.fixture
def explorer(run) -> RankAlphaExplorer:
    return RankAlphaExplorer(run)


@pytest.fixture
def trained(explorer) -> RankAlphaExplorer:
    explorer.start.click()
    return explorer


def eventually(holds, seconds: float = 20):
    last = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < last, "never came true"
        time.sleep(0.005)


# The multiplier


@pytest.mark.parametrize(
    ("rank", "alpha", "divisor", "words"),
    [
        (4, 8, PLAIN, "alpha / r = 8 / 4 = 2"),
        (64, 2, PLAIN, "alpha / r = 2 / 64 = 0.0312"),
        (16, 8, STABLE, "alpha / sqrt(r) = 8 / sqrt(16) = 2"),
        (8, 16, STABLE, "alpha / sqrt(r) = 16 / sqrt(8) = 5.66"),
    ],
)
def test_the_multiplier_is_told(explorer, monkeypatch, rank, alpha, divisor, words):
    monkeypatch.setattr(explorer._later, "ask", lambda: None)  # it moves still
    explorer.rank.value, explorer.alpha.value, explorer.divisor.value = rank, alpha, divisor
    assert explorer.multiplier.value == words
    assert explorer.trials == []
    expected = LoRAConfig(rank=rank, alpha=alpha, use_rslora=divisor == STABLE).scale
    assert explorer.run.lora.scale == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("control", ["rank", "alpha", "lr"])
def test_a_slider_speaks_while_it_moves(explorer, control):
    assert getattr(explorer, control).continuous_update


def test_what_trains_has_the_multiplier_that_is_told(explorer, monkeypatch):
    made = []
    monkeypatch.setattr(module, "begin", lambda run: made.append(begin(run)) or made[-1])
    explorer.divisor.value = STABLE
    scales = {layer.config.scale for _, layer in lora_layers(made[-1].model)}
    assert scales == {8 / math.sqrt(4)}


# The training


def test_the_pictures_are_the_run_that_the_controls_stand_for(trained, run):
    alone = begin(run)
    change, losses, changes = changing(run, alone.model), [], []
    for _ in range(run.steps):
        losses.append(alone.step().loss)
        changes.append(change())
    trial = trained.trials[-1]
    assert trial.run == run
    assert (trial.losses, trial.changes) == (losses, pytest.approx(changes))
    assert list(trained.loss.axes.lines[-1].get_ydata()) == losses
    assert list(trained.change.axes.lines[-1].get_ydata()) == trial.changes
    assert f"loss {losses[0]:.3g} at first, {losses[-1]:.3g} at step 8" in trained.loss.text
    assert f"by {changes[0]:.3g} of its size after one step, by {changes[-1]:.3g} after 8" in (
        trained.change.text
    )
    assert trained.line.value == "8 of 8 steps"


def test_the_change_is_that_of_the_logits_of_real_tokens(run):
    training = begin(run)
    change = changing(run, training.model)
    assert change() == 0  # LoRA's start is the base
    training.step()
    base, tokenizer = load_base(run.base)
    moved = norm = 0.0
    with torch.no_grad():
        for example in load_task(run.task).heldout[:PROBE]:
            tokens = torch.tensor([encode_example(tokenizer, example).tokens])
            before = base(tokens)
            moved += (training.model(tokens) - before).square().sum().item()
            norm += before.square().sum().item()
    assert change() == pytest.approx(math.sqrt(moved / norm), rel=1e-4)
    assert change() > 0


def test_a_larger_multiplier_moves_the_output_further(trained):
    first = trained.trials[-1].changes[0]
    trained.alpha.value = 64
    assert trained.trials[-1].changes[0] > 4 * first


def test_a_setting_that_diverges_is_told_in_words(run):
    explorer = RankAlphaExplorer(replace(run, lr=1e30))
    explorer.start.click()
    trial = explorer.trials[-1]
    assert len(trial.losses) == 1 and "at step 2 with learning rate" in trial.diverged
    assert f"at step 1; then it diverged: {trial.diverged}" in explorer.loss.text
    assert explorer.error.value == ""
    explorer.lr.value = 1e-3
    assert [len(trial.losses) for trial in explorer.trials] == [1, run.steps]


def test_a_full_run_is_refused(run):
    with pytest.raises(ValueError, match="full fine-tuning has no rank and no alpha"):
        RankAlphaExplorer(replace(run, method="full"))


# Earlier settings


def test_the_last_settings_stay_as_faint_lines(trained):
    runs = [trained.run]
    for alpha in (16, 32, 64, 128):
        trained.alpha.value = alpha
        runs.append(trained.run)
    assert [trial.run for trial in trained.trials] == runs[-KEPT - 1 :]
    for picture in (trained.loss, trained.change):
        *earlier, now = picture.axes.lines
        assert len(earlier) == KEPT
        assert to_hex(now.get_color()) == COLORS["lora"]
        assert COLORS["lora"] not in {to_hex(line.get_color()) for line in earlier}
        assert len({line.get_linestyle() for line in earlier}) == KEPT
        assert all(line.get_linewidth() < now.get_linewidth() for line in earlier)
    for line, trial in zip(trained.loss.axes.lines, trained.trials, strict=True):
        assert list(line.get_ydata()) == trial.losses


def test_a_setting_that_is_tried_again_is_there_once(trained):
    old = trained.rank.value
    trained.rank.value = 16
    trained.rank.value = old
    assert [trial.run.rank for trial in trained.trials] == [16, old]


def test_clear_forgets_the_earlier_ones(trained):
    trained.rank.value = 16
    trained.clear.click()
    assert [trial.run for trial in trained.trials] == [trained.run]
    assert len(trained.loss.axes.lines) == len(trained.change.axes.lines) == 1


def test_clear_before_anything_is_trained_leaves_it_so(explorer):
    before = look(explorer)
    explorer.clear.click()
    assert look(explorer) == before


# Its controls


@pytest.mark.parametrize("control", MOVES)
def test_pictures_and_words_follow_a_control_there_and_back(trained, control):
    before, said = look(trained), trained.multiplier.value
    slider = getattr(trained, control)
    old, slider.value = slider.value, MOVES[control]
    for (png, text), (old_png, old_text) in zip(look(trained), before, strict=True):
        assert png != old_png and text != old_text
    assert (trained.multiplier.value != said) == (control != "lr")
    slider.value = old
    trained.clear.click()
    assert look(trained) == before
    assert trained.multiplier.value == said


def test_no_control_is_passed_over(explorer):
    assert {getattr(explorer, name) for name in MOVES} == set(controls(explorer))


def test_what_it_is_is_told_in_words_that_stay(explorer):
    assert explorer._repr_mimebundle_()["text/plain"] == explorer.alt
    for picture in explorer.pictures:
        assert picture.value and picture.text == "not trained yet"


# One after the other


@pytest.fixture
def held(explorer, monkeypatch):
    """In a thread, as in a notebook; a training waits before its third step until it may go on."""
    monkeypatch.delenv("LORAKIT_TEST")
    began, gate = threading.Event(), threading.Event()

    def slow(run):
        training = begin(run)
        step = training.step

        def one_step(**hooks):
            if training.position == 2:
                began.set()
                assert gate.wait(20)
            return step(**hooks)

        training.step = one_step
        return training

    monkeypatch.setattr(module, "begin", slow)
    yield began, gate
    gate.set()
    eventually(lambda: not explorer.running)


def test_a_newer_setting_stops_the_one_that_trains_and_is_trained(explorer, held):
    began, gate = held
    explorer.rank.value = 16
    assert began.wait(20) and explorer.running
    threading.Timer(0.1, gate.set).start()
    explorer.rank.value = 32  # waits for the step, not for the training
    eventually(lambda: explorer.line.value == "8 of 8 steps")
    assert [trial.run.rank for trial in explorer.trials] == [32]
    assert len(explorer.trials[-1].losses) == 8


def test_stop_ends_a_training_and_what_there_is_is_drawn(explorer, held):
    began, gate = held
    explorer.start.click()
    assert began.wait(20)
    explorer.stop.click()
    gate.set()
    eventually(lambda: not explorer.running)
    assert explorer.line.value == "2 of 8 steps"
    assert len(explorer.loss.axes.lines[-1].get_ydata()) == 2
    assert "at step 2" in explorer.loss.text


def test_a_cell_gets_the_trial_of_its_setting_whatever_trains(explorer, held):
    began, gate = held
    explorer.rank.value = 16
    assert began.wait(20) and explorer.running
    explorer._later.ask = lambda: None  # as while a cell runs
    explorer.rank.value = 32
    threading.Timer(0.1, gate.set).start()
    trial = explorer.trial()
    assert trial.run == explorer.run and trial.run.rank == 32
    assert len(trial.losses) == 8 and not explorer.running


def test_what_is_trained_is_not_trained_again_for_a_cell(trained):
    last = trained.trials[-1]
    assert trained.trial() is last
    trained.alpha.value = 64
    assert trained.trial() is trained.trials[-1] is not last


def test_while_anothers_work_is_alive_a_setting_is_refused_in_words(run, explorer, held):
    began, _ = held
    explorer.start.click()
    assert began.wait(20)
    other = RankAlphaExplorer(run)
    other.rank.value = 16
    assert "a run is alive" in other.error.value
    assert explorer.running and other.trials == []


def test_training_and_dropping_again_and_again_leaves_no_tensor_behind(run):
    short = replace(run, steps=1)

    def train_and_drop() -> None:
        explorer = RankAlphaExplorer(short)
        explorer.start.click()
        explorer.rank.value = 16
        explorer.close()

    assert_keeps_nothing(train_and_drop, 5)
