"""A run from a notebook: live while it lasts, stopped by Stop, never two at once, errors shown."""

import gc
import threading
import time
import weakref

import pytest

from lorakit.plots import PARTS
from lorakit.plots.style import size
from lorakit.run import Answer, Run
from lorakit.widgets import finetune as module
from lorakit.widgets.finetune import FinetuneExplorer, answers_table


@pytest.fixture
def explorer(tiny_base, tiny_task, monkeypatch) -> FinetuneExplorer:
    monkeypatch.setattr(FinetuneExplorer, "redraw", 0.0)
    return FinetuneExplorer(
        Run(base=tiny_base, task=tiny_task, rank=4, steps=6, lr=1e-2, answers=2)
    )


def eventually(holds, seconds: float = 20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.01)


def test_a_run_leaves_its_result_pictures_and_answers(explorer):
    result = explorer.train(wait=True)
    assert result is explorer.result
    assert len(result.history.steps) == 6
    assert all(picture.value for picture in explorer.pictures)
    assert explorer.loss.text == f"step 6: loss {result.history.losses[-1]:.3g}"
    assert "6 of 6 steps" in explorer.line.value
    assert f"{result.after.exact_match:.2f} after" in explorer.line.value
    run = result.run
    told = "full, " if run.lora is None else f"{run.method}, rank {run.rank}, alpha {run.alpha:g}, "
    assert f"({told}batch size {run.batch_size})" in explorer.line.value
    assert result.answers[0].prompt in explorer.table.value


def test_the_sliders_decide_what_runs(explorer):
    explorer.settings.method.value = "full"
    explorer.settings.batch_size.value = 2
    result = explorer.train(wait=True)
    assert result.run.method == "full"
    assert result.run.batch_size == 2
    assert result.parameters.percent == 100


def test_the_pictures_are_the_runs_losses_and_memory(explorer):
    result = explorer.train(wait=True)
    assert list(explorer.loss.axes.lines[0].get_ydata()) == result.history.losses
    widths = [bars[0].get_width() * 1e6 for bars in explorer.memory.axes.containers]
    peak = result.memory.peak
    assert widths == pytest.approx([value for p in PARTS if (value := getattr(peak, p))])
    assert explorer.memory.axes.get_title() == "measured in the step with the highest peak"
    total = size(peak.total)
    assert total in [text.get_text() for text in explorer.memory.axes.texts]
    assert explorer.memory.text.startswith(f"{total} held at once")
    assert explorer.memory.text.endswith(f"falls in {result.memory.phase}")


def test_a_live_picture_names_the_step_that_was_followed(explorer, monkeypatch):
    real, told, titles = module.finetune, [], []

    def listen(run, *, stop, report):
        def tell(progress):
            report(progress)
            if progress.memory is not None:
                told.append(progress.followed)
                titles.append(explorer.memory.axes.get_title())

        return real(run, stop=stop, report=tell)

    monkeypatch.setattr(module, "finetune", listen)
    explorer.train(wait=True)
    assert told[:2] == [1, 2] and len(told) == 6
    assert titles == [f"measured in step {number}" for number in told]


def test_the_same_run_again_leaves_the_same_pictures(explorer):
    explorer.train(wait=True)
    before = [(picture.value, picture.text) for picture in explorer.pictures]
    explorer.settings.method.value = "full"
    explorer.train(wait=True)
    other = [(picture.value, picture.text) for picture in explorer.pictures]
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in zip(before, other, strict=True))
    explorer.settings.method.value = "lora"
    explorer.train(wait=True)
    assert [(picture.value, picture.text) for picture in explorer.pictures] == before


def hold_steps(monkeypatch):
    """Let no run past its first step before the event is set."""
    real, gate = module.finetune, threading.Event()

    def slow(run, *, stop, report):
        def tell(progress):
            report(progress)
            if progress.stage == "training" and progress.done == 1:
                gate.wait(20)

        return real(run, stop=stop, report=tell)

    monkeypatch.setattr(module, "finetune", slow)
    return gate


def test_the_cell_returns_at_once_stop_stops_and_a_second_run_is_refused(explorer, monkeypatch):
    gate = hold_steps(monkeypatch)
    assert explorer.train() is None
    eventually(lambda: "training: 1 of 6" in explorer.line.value)
    assert explorer.running
    assert explorer.start.disabled and not explorer.stop.disabled
    with pytest.raises(RuntimeError, match="a run is alive: press its Stop"):
        explorer.train()
    explorer.stop.click()
    gate.set()
    eventually(lambda: not explorer.running)
    assert explorer.line.value == "stopped after 1 of 6 steps"
    assert explorer.result.after is None
    assert not explorer.start.disabled and explorer.stop.disabled


def test_a_cell_that_waits_takes_the_run_that_is_alive(explorer, monkeypatch):
    gate = hold_steps(monkeypatch)
    explorer.train()
    eventually(lambda: "training: 1 of 6" in explorer.line.value)
    gate.set()
    result = explorer.train(wait=True)
    assert result is explorer.result
    assert len(result.history.steps) == 6


def test_after_a_stop_another_run_goes_to_its_end(explorer, monkeypatch):
    gate = hold_steps(monkeypatch)
    gate.set()
    explorer.stop.click()
    assert len(explorer.train(wait=True).history.steps) == 6


def test_a_second_run_does_not_keep_the_first_ones_model(explorer):
    first = weakref.ref(explorer.train(wait=True).model)
    explorer.train(wait=True)
    gc.collect()
    assert first() is None


def test_closed_while_it_runs_it_stops_and_holds_no_model(explorer, monkeypatch):
    gate = hold_steps(monkeypatch)
    explorer.train()
    eventually(lambda: "training: 1 of 6" in explorer.line.value)
    explorer.close()
    gate.set()
    eventually(lambda: not explorer.running)
    assert explorer.line.value == "stopped after 1 of 6 steps"
    assert explorer.result is None


def test_stopped_before_the_first_step_there_is_no_result(explorer, monkeypatch):
    monkeypatch.setattr(explorer, "stopping", lambda: True)
    assert explorer.train(wait=True) is None
    assert explorer.line.value == "stopped before the first step: nothing was trained"


def test_an_error_of_the_run_stands_in_the_explorable_and_start_works_again(tiny_base, monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST", raising=False)
    explorer = FinetuneExplorer(Run(base=tiny_base, task="nowhere.jsonl"))
    explorer.train()
    eventually(lambda: not explorer.running)
    assert "there is no file nowhere.jsonl" in explorer.error.value
    assert explorer.line.value == "ended by an error"
    assert not explorer.start.disabled


def test_a_cell_that_waits_gets_the_error_itself(tiny_base, monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST", raising=False)
    explorer = FinetuneExplorer(Run(base=tiny_base, task="nowhere.jsonl"))
    with pytest.raises(ValueError, match="there is no file nowhere"):
        explorer.train(wait=True)
    assert not explorer.start.disabled


def test_under_test_a_click_does_its_work_before_it_returns(explorer, monkeypatch):
    monkeypatch.setenv("LORAKIT_TEST", "1")
    explorer.start.click()
    assert len(explorer.result.history.steps) == 6


def test_answers_are_escaped():
    row = Answer(prompt="<b>", expected="x", base="a & b", tuned="<i>")
    table = answers_table([row])
    assert "&lt;b&gt;" in table and "a &amp; b" in table and "<i>" not in table


def test_a_stopped_run_shows_its_last_step_however_seldom_it_draws(explorer, monkeypatch):
    monkeypatch.setattr(FinetuneExplorer, "redraw", 1e9)
    real = module.finetune

    def stopped_after_3(run, *, stop, report):
        def tell(progress):
            report(progress)
            if progress.stage == "training" and progress.done == 3:
                explorer.stop.click()

        return real(run, stop=stop, report=tell)

    monkeypatch.setattr(module, "finetune", stopped_after_3)
    result = explorer.train(wait=True)
    assert explorer.line.value == "stopped after 3 of 6 steps"
    assert explorer.loss.text == f"step 3: loss {result.history.losses[-1]:.3g}"
    assert list(explorer.loss.axes.lines[0].get_ydata()) == result.history.losses


def test_a_new_run_begins_with_an_empty_curve(explorer, monkeypatch):
    explorer.train(wait=True)
    seen = []

    def look(run, *, stop, report):
        seen.append((explorer.loss.text, len(explorer.loss.axes.lines[0].get_ydata())))
        raise module.Stopped("stopped before the first step")

    monkeypatch.setattr(module, "finetune", look)
    explorer.train(wait=True)
    assert seen == [("no step yet", 0)]


def test_the_bar_is_full_once_all_is_done(explorer):
    explorer.train(wait=True)
    assert explorer.bar.value == explorer.bar.max > 0
