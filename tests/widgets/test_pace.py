"""Pace: seconds are those of real steps, and the words hold the whole run."""

from dataclasses import replace
from statistics import median
from types import SimpleNamespace

import pytest
from explorables import look

from lorakit.train import Training
from lorakit.widgets import pace as module
from lorakit.widgets.pace import PaceExplorer, seconds_a_step


@pytest.fixture
def steps(monkeypatch) -> list:
    """Every real step that is done, by what of the model trained, and its record."""
    done, real = [], Training.step

    def step(self, *args, **kwargs):
        record = real(self, *args, **kwargs)
        everything = all(p.requires_grad for p in self.model.parameters())
        done.append(("full" if everything else "lora", record))
        return record

    monkeypatch.setattr(Training, "step", step)
    return done


@pytest.mark.parametrize("method", ["full", "lora"])
def test_seconds_are_the_median_of_real_steps_without_the_first_two(run, steps, method):
    found = seconds_a_step(run, steps=5)
    records = [record for of, record in steps if of == method]
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6, 7]
    assert found[method] == median(record.seconds for record in records[2:])


def test_both_methods_are_timed_whatever_the_runs_own_is(run, steps):
    assert list(seconds_a_step(replace(run, method="full"), steps=1)) == ["full", "lora"]
    assert [of for of, _ in steps] == ["full"] * 3 + ["lora"] * 3


def test_a_run_of_few_steps_is_timed_as_well(run, steps):
    assert min(seconds_a_step(replace(run, steps=1)).values()) > 0
    assert len(steps) == 14


@pytest.fixture
def timed(monkeypatch):
    """A machine whose steps take as long as told."""
    clock = SimpleNamespace(full=0.25, lora=0.125)
    monkeypatch.setattr(
        module, "seconds_a_step", lambda run: {"full": clock.full, "lora": clock.lora}
    )
    return clock


def test_the_words_hold_the_whole_run(run, timed):
    explorer = PaceExplorer(replace(run, steps=400))
    assert explorer.picture.text.startswith("400 steps on ")
    assert explorer.picture.text.endswith("about 100 s in full, 50 s with LoRA")


def test_the_bars_are_milliseconds_a_step(run, timed):
    explorer = PaceExplorer(run)
    assert [bar.get_width() for bar in explorer.picture.axes.patches] == [250, 125]


def test_measuring_again_draws_the_new_seconds_and_back(run, timed):
    explorer = PaceExplorer(run)
    before = look(explorer)
    timed.full = 0.5
    explorer.again.click()
    (was, said), (now, says) = before[0], look(explorer)[0]
    assert was != now and said != says
    timed.full = 0.25
    explorer.again.click()
    assert look(explorer) == before
