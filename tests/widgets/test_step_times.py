"""Step times: bars are the phases as measured, and the line says the shares of a full step."""

from types import SimpleNamespace

import pytest
from explorables import look

from lorakit.step_times import StepTimes
from lorakit.widgets import step_times as module
from lorakit.widgets.step_times import StepTimesExplorer


def of(total: float) -> StepTimes:
    return StepTimes(forward=total / 4, backward=total / 2, optimizer=total / 4)


@pytest.fixture
def timed(monkeypatch):
    """A machine whose steps take as long as told, and which remembers what it was asked."""
    clock = SimpleNamespace(asked=[], full=1.0)

    def step_times(run):
        clock.asked.append((run.rank, run.batch_size))
        return {"full": of(clock.full), "taught": of(0.9), "fast": of(0.7), "floor": of(0.5)}

    monkeypatch.setattr(module, "step_times", step_times)
    return clock


def test_the_bars_are_the_phases_in_milliseconds(run, timed):
    explorer = StepTimesExplorer(run)
    widths = [bar.get_width() for bar in explorer.picture.axes.patches]
    assert widths == pytest.approx([250, 225, 175, 125, 500, 450, 350, 250, 250, 225, 175, 125])


def test_the_line_says_the_shares_and_the_floor(run, timed):
    explorer = StepTimesExplorer(run)
    assert "LoRA as taught takes 90%, fast 70%; under 50% no LoRA can go" in explorer.picture.text


def test_rank_and_batch_size_are_measured_anew_and_back(run, timed):
    explorer = StepTimesExplorer(run)
    before = look(explorer)
    timed.full = 2.0
    explorer.rank.value = 64
    explorer.batch_size.value = 1
    assert timed.asked == [(run.rank, run.batch_size), (64, run.batch_size), (64, 1)]
    assert look(explorer) != before
    timed.full = 1.0
    explorer.rank.value, explorer.batch_size.value = run.rank, run.batch_size
    assert look(explorer) == before


def test_measuring_again_asks_again_and_leaves_the_controls_alive(run, timed):
    explorer = StepTimesExplorer(run)
    explorer.again.click()
    assert len(timed.asked) == 2
    assert not (explorer.rank.disabled or explorer.batch_size.disabled or explorer.again.disabled)
