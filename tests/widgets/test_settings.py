"""Sliders turn one run into another."""

import dataclasses

import pytest

from lorakit.run import Run
from lorakit.widgets.settings import Settings

RUN = Run(task="mine.jsonl", steps=7, rank=8, alpha=16, batch_size=4)


def test_untouched_sliders_leave_the_run_as_it_was():
    assert Settings(RUN).run == RUN


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


def test_a_rank_between_the_slider_stops_gets_a_stop_of_its_own():
    assert Settings(dataclasses.replace(RUN, rank=12)).run.rank == 12
