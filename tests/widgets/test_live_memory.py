"""Memory while models train: both, step by step in turns, the last followed steps on show."""

import gc
import time
import weakref
from dataclasses import replace

import pytest
from explorables import look

from lorakit.plots import PARTS
from lorakit.plots.style import size
from lorakit.train import Training
from lorakit.widgets import LiveMemoryExplorer, Picture
from lorakit.widgets import live_memory as module


@pytest.fixture
def explorer(run) -> LiveMemoryExplorer:
    return LiveMemoryExplorer(run)


@pytest.fixture
def steps(monkeypatch) -> list:
    """Every step that is asked for: what of the model trained, which step, and what it returned."""
    done, real = [], Training.step

    def step(self, *args, **kwargs):
        record = real(self, *args, **kwargs)
        everything = all(p.requires_grad for p in self.model.parameters())
        done.append(("full" if everything else "LoRA", record and record.step))
        return record

    monkeypatch.setattr(Training, "step", step)
    return done


@pytest.fixture
def drawings(monkeypatch) -> list[str]:
    """The title of each drawing."""
    seen, real = [], module.draw_timeline

    def draw(ax, memories, *, title):
        seen.append(title)
        real(ax, memories, title=title)

    monkeypatch.setattr(module, "draw_timeline", draw)
    return seen


def test_the_methods_take_a_step_each_in_turns(explorer, steps, run):
    explorer.go(wait=True)
    assert steps == [(name, number) for number in range(1, 9) for name in ("full", "LoRA")]
    assert explorer.line.value == "steps done of 8: full 8, LoRA 8"


def test_whatever_method_the_run_has_both_are_trained(run, steps):
    LiveMemoryExplorer(replace(run, method="full", steps=2)).go(wait=True)
    assert [name for name, _ in steps] == ["full", "LoRA"] * 2


def test_the_memory_is_that_of_the_run(explorer, full, lora):
    explorer.go(wait=True)
    for name, result in {"full": full, "LoRA": lora}.items():
        found = explorer.memories[name].most
        assert found.weights == result.memory.most.weights
        assert found.gradients == result.memory.most.gradients
        assert found.optimizer == result.memory.most.optimizer


def test_the_areas_are_as_high_as_the_memory_on_show(explorer):
    explorer.go(wait=True)
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in explorer.picture.axes.collections]
    for name, place in {"full": 0, "LoRA": len(PARTS)}.items():
        highest = max(tops[place : place + len(PARTS)])
        assert 1e6 * highest == pytest.approx(explorer.memories[name].peak.total)


def test_the_words_hold_each_peak_and_its_phase_and_the_picture_has_the_same(explorer):
    explorer.go(wait=True)
    drawn = [text.get_text() for text in explorer.picture.axes.texts]
    for name, memory in explorer.memories.items():
        total = size(memory.peak.total)
        assert f"{name}: {total} at the peak, in {memory.phase}" in explorer.picture.text
        assert total in drawn


def test_the_title_names_the_steps_that_were_followed(explorer, drawings, monkeypatch):
    monkeypatch.setattr(LiveMemoryExplorer, "redraw", 0.0)
    explorer.go(wait=True)
    assert drawings[:3] == [
        "full: step 1, LoRA: step 1",
        "full: step 2, LoRA: step 1",
        "full: step 2, LoRA: step 2",
    ]
    last = ", ".join(f"{name}: step {number}" for name, number in explorer.followed.items())
    assert drawings[-1] == last


def test_it_is_drawn_when_due_and_at_the_end(explorer, drawings, monkeypatch):
    assert LiveMemoryExplorer.redraw == 0.2
    monkeypatch.setattr(LiveMemoryExplorer, "redraw", 1e9)
    explorer.go(wait=True)
    assert len(drawings) == 1


def test_however_it_was_reached_the_picture_is_that_drawn_at_once(explorer, monkeypatch):
    monkeypatch.setattr(LiveMemoryExplorer, "redraw", 0.0)
    explorer.go(wait=True)
    reached = look(explorer)
    explorer.picture = Picture(860, 420, alt="another")
    explorer._draw()
    assert (explorer.picture.value, explorer.picture.text) == reached[0]


def test_before_it_starts_there_is_no_picture(explorer):
    assert explorer.picture.value == b""
    assert explorer.memories == {}


def stop_at(explorer, monkeypatch, number: int) -> None:
    """Press Stop when the number-th forward begins."""
    asked = []

    def stopping() -> bool:
        asked.append(1)
        return len(asked) >= number

    monkeypatch.setattr(explorer, "stopping", stopping)


@pytest.mark.parametrize(
    ("forward", "line"),
    [(1, "full 0, LoRA 0"), (2, "full 1, LoRA 0"), (4, "full 2, LoRA 1"), (5, "full 2, LoRA 2")],
)
def test_stop_ends_it_and_what_there_is_is_drawn(explorer, steps, monkeypatch, forward, line):
    stop_at(explorer, monkeypatch, forward)
    explorer.go(wait=True)
    assert explorer.line.value == f"steps done of 8: {line}"
    assert len(steps) == forward and steps[-1][1] is None
    assert bool(explorer.picture.value) == (forward > 1)
    assert len(explorer.memories) == min(forward - 1, 2)


def test_stop_works_between_two_micro_batches(run, steps, monkeypatch):
    explorer = LiveMemoryExplorer(replace(run, accumulation=3, batch_size=1))
    stop_at(explorer, monkeypatch, 5)  # the second of LoRA's first step
    explorer.go(wait=True)
    assert steps == [("full", 1), ("LoRA", None)]


def test_the_clicked_stop_is_heard(explorer, steps, monkeypatch):
    monkeypatch.setattr(explorer, "show", lambda progress: explorer.stop.click())
    explorer.go(wait=True)
    assert explorer.line.value == "steps done of 8: full 0, LoRA 0"


def test_it_starts_over(explorer):
    explorer.go(wait=True)
    before = explorer.memories
    explorer.go(wait=True)
    assert explorer.memories is not before
    assert explorer.line.value == "steps done of 8: full 8, LoRA 8"


# Models


@pytest.fixture
def models(monkeypatch) -> list[weakref.ref]:
    made, real = [], module.begin

    def begin(run):
        training = real(run)
        made.append(weakref.ref(training.model))
        return training

    monkeypatch.setattr(module, "begin", begin)
    return made


def test_when_it_is_done_the_models_are_let_go(explorer, models):
    explorer.go(wait=True)
    gc.collect()
    assert [model() for model in models] == [None, None]


def test_closed_while_it_runs_it_stops_and_lets_the_models_go(run, models):
    explorer = LiveMemoryExplorer(replace(run, steps=10_000))
    explorer.go()
    end = time.monotonic() + 20
    while not explorer.memories:
        assert time.monotonic() < end
        time.sleep(0.01)
    explorer.close()
    explorer._thread.join(20)
    assert not explorer.running
    gc.collect()
    assert [model() for model in models] == [None, None]


def test_an_error_of_the_run_is_shown_where_start_was_clicked(run, monkeypatch):
    explorer = LiveMemoryExplorer(replace(run, task="nowhere.jsonl"))
    monkeypatch.delenv("LORAKIT_TEST")
    explorer.start.click()
    explorer._thread.join(20)
    assert "nowhere.jsonl" in explorer.error.value
    assert not explorer.start.disabled
