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


def test_without_alpha_there_is_no_slider_of_it_and_the_run_keeps_its_own():
    settings, calls = Settings(RUN, alpha=False), []
    settings.observe_all(calls.append)
    assert settings.alpha not in settings.children
    assert settings.run == RUN


@pytest.mark.parametrize("on_release", [True, False])
def test_where_each_value_takes_a_while_a_slider_speaks_when_it_is_let_go(on_release):
    settings = Settings(RUN, on_release=on_release)
    assert settings.rank.continuous_update == settings.batch_size.continuous_update != on_release


@pytest.mark.parametrize("method", ["full", "lora"])
def test_rank_and_alpha_rest_from_the_start_where_everything_trains(method):
    settings = Settings(dataclasses.replace(RUN, method=method))
    settings.rest_when_full()
    assert settings.rank.disabled == settings.alpha.disabled == (method == "full")


def test_unasked_no_slider_rests():
    settings = Settings(RUN)
    settings.method.value = "full"
    assert not settings.rank.disabled and not settings.alpha.disabled


def test_rank_and_alpha_rest_while_everything_trains():
    settings = Settings(RUN)
    settings.rest_when_full()
    settings.method.value = "full"
    assert settings.rank.disabled and settings.alpha.disabled
    settings.method.value = "lora"
    assert not settings.rank.disabled and not settings.alpha.disabled


def test_a_slider_that_rests_has_a_handle_that_is_not_white_and_takes_its_own_again():
    settings = Settings(RUN)
    settings.rest_when_full()
    for method, seen in (("full", True), ("lora", False)):
        settings.method.value = method
        for slider in (settings.rank, settings.alpha):
            assert slider.disabled == seen
            if slider.style.has_trait("handle_color"):  # of ipywidgets 7 it has no colour
                assert bool(slider.style.handle_color) == seen
