"""Sliders turn one run into another."""

import dataclasses

import pytest

from lorakit.run import Run
from lorakit.widgets.settings import Settings

RUN = Run(task="mine.jsonl", steps=7, rank=8, alpha=16, batch_size=4)


@pytest.mark.parametrize("change", [{}, {"alpha": 0.5}, {"alpha": 2.5}, {"lr": 3e-4}, {"rank": 12}])
def test_untouched_sliders_leave_the_run_as_it_was(change):
    run = dataclasses.replace(RUN, **change)
    assert Settings(run).run == run


def test_a_learning_rate_stays_with_its_method():
    settings = Settings(dataclasses.replace(RUN, lr=1e-4))
    settings.method.value = "full"
    assert settings.run.lr is None
    settings.method.value = "lora"
    assert settings.run.lr == 1e-4


@pytest.mark.parametrize(
    ("control", "value"), [("method", "full"), ("rank", 64), ("alpha", 1), ("batch_size", 16)]
)
def test_each_control_moves_its_field_and_calls_back(control, value):
    settings, calls = Settings(RUN), []
    settings.observe_all(calls.append)
    getattr(settings, control).value = value
    assert settings.run == dataclasses.replace(RUN, **{control: value})
    assert len(calls) == 1


def test_rank_and_alpha_rest_while_everything_trains():
    settings = Settings(RUN)
    settings.method.value = "full"
    assert settings.rank.disabled and settings.alpha.disabled
    settings.method.value = "lora"
    assert not settings.rank.disabled and not settings.alpha.disabled
