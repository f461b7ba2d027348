"""Every control of every explorable does something, and undoes it to the last byte."""

import random
from operator import attrgetter

import ipywidgets
import pytest
from explorables import assert_moves, controls, look, values

from lorakit.plots import figure
from lorakit.widgets import Explorable, Picture, shown
from lorakit.widgets.budget import OPTIMIZERS

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"
# An explorable, one of its controls, another value, and the pictures that it moves.
MOVES = [
    ("parameters", "model", "llama-3-8b", ("share", "matrices")),
    ("parameters", "targets", ("q_proj", "v_proj"), ("share", "matrices")),
    ("parameters", "rank", 64, ("share", "matrices")),
    ("adapter file", "model", "llama-3-8b", ("picture",)),
    ("adapter file", "targets", ("q_proj", "v_proj"), ("picture",)),
    ("adapter file", "rank", 64, ("picture",)),
    ("adapter file", "embeddings", True, ("picture",)),
    ("memory", "settings.method", "full", ("picture",)),
    ("memory", "settings.rank", 64, ("picture",)),
    ("memory", "settings.batch_size", 16, ("picture",)),
    ("estimate", "settings.method", "full", ("picture",)),
    ("estimate", "settings.rank", 64, ("picture",)),
    ("estimate", "settings.batch_size", 16, ("picture",)),
    ("budget", "model", "large", ("picture",)),
    ("budget", "optimizer", OPTIMIZERS["SGD"], ("picture",)),
    ("budget", "dtype", "bfloat16", ("picture",)),
    ("budget", "device", "cuda", ("picture",)),
    ("budget", "rank", 32, ("picture",)),
    ("budget", "batch_size", 8, ("picture",)),
    ("budget", "length", 64, ("picture",)),
    ("budget", "budget", 0.1, ("picture",)),
    ("budget", "checkpointing", True, ("picture",)),
    ("spectrum", "layer", Q, ("values",)),
    ("spectrum", "cut", 4, ("values",)),
    ("truncation", "rank", 1, ("values", "match", "loss")),
    ("truncation", "rest", "of the base", ("match", "loss")),
    ("overlap", "layer", DOWN, ("found", "random")),
    ("overlap", "side", "output (U)", ("found",)),
    ("merge", "alpha", 64, ("picture",)),
    ("merge", "dtype", "float16", ("picture",)),
    ("quantize", "layer", DOWN, ("map", "levels")),
    ("quantize", "block", 256, ("map", "levels")),
    ("quantize", "codebook", "int4", ("map", "levels")),
    ("quantize", "scales", "32 bits", ("map",)),
    ("step", "method", "full", ("picture",)),
    ("step", "steps", 4, ("picture",)),
    ("handshake", "number", 8, ("picture",)),
]
# Whose pictures and words do not both follow: test_parameters and test_spectrum hold them.
APART = [("parameters", "alpha"), ("spectrum", "alpha")]


@pytest.mark.parametrize(("name", "control", "value", "moving"), MOVES)
def test_pictures_and_words_follow_a_control_there_and_back(make, name, control, value, moving):
    explorer = make(name)
    pictures = [getattr(explorer, picture) for picture in moving]
    assert_moves(explorer, attrgetter(control)(explorer), value, pictures)


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in MOVES))
def test_no_control_is_passed_over(make, name):
    explorer = make(name)
    known = [control for of, control, *_ in [*MOVES, *APART] if of == name]
    assert {attrgetter(control)(explorer) for control in known} == set(controls(explorer))


@pytest.mark.parametrize(
    "name",
    [
        "parameters",
        "adapter file",
        "memory",
        "spectrum",
        "truncation",
        "overlap",
        "quantize",
        "handshake",
    ],
)
def test_a_picture_reached_by_many_moves_is_that_drawn_afresh(make, name):
    explorer, draw = make(name), random.Random(name)
    for _ in range(8):
        control = draw.choice(controls(explorer))
        control.value = draw.choice(values(control))
    reached = look(explorer)
    for picture in explorer.pictures:
        width, height = map(int, picture._figure.bbox.size)
        picture._figure, picture.axes = figure(width, height)
        picture._kept = {}
    explorer.refresh()
    assert look(explorer) == reached


@pytest.mark.parametrize(
    ("control", "value"), [("method", "full"), ("rank", 64), ("alpha", 1), ("batch_size", 16)]
)
def test_a_setting_decides_the_next_run_and_moves_no_picture(make, control, value):
    explorer = make("finetune")
    slider, before, run = getattr(explorer.settings, control), look(explorer), explorer.settings.run
    old, slider.value = slider.value, value
    assert getattr(explorer.settings.run, control) == value
    assert look(explorer) == before
    slider.value = old
    assert explorer.settings.run == run


@pytest.mark.parametrize("name", dict.fromkeys(name for name, *_ in MOVES) | {"live": ()})
def test_what_it_and_its_pictures_are_is_told_in_words_that_stay(make, name):
    explorer = make(name)
    assert explorer._repr_mimebundle_()["text/plain"] == explorer.alt
    for picture in explorer.pictures:
        assert picture.alt
        assert picture.text == picture.alt if not picture.value else picture.text != picture.alt


# The asking itself


class Suspect(Explorable):
    """A level that a slider moves, unless it is told to be faulty."""

    def __init__(self, fault: str):
        self.fault, self.moves = fault, 0
        self.number = ipywidgets.IntSlider(2, min=0, max=9)
        self.picture = Picture(120, 80, alt="a level")
        super().__init__([self.number, self.picture], alt="a level")
        self.number.observe(self.refresh, names="value")
        self.refresh()

    @shown
    def refresh(self, change=None) -> None:
        self.moves += 1
        drawn = said = self.number.value
        if self.fault in ("dead", "dead picture"):
            drawn = 2
        if self.fault in ("dead", "dead words"):
            said = 2
        if self.fault == "never back":
            drawn += 0.1 * self.moves
        if self.fault == "words never back":
            said += self.moves
        with self.picture.drawing() as ax:
            ax.plot([0, 9], [drawn, drawn])
            ax.set_ylim(0, 10)
        self.picture.text = f"level {said}"


def test_a_sound_control_passes():
    explorer = Suspect("none")
    assert_moves(explorer, explorer.number, 7, [explorer.picture])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dead", r"changed are \(False, False"),
        ("dead picture", r"changed are \(False, True"),
        ("dead words", r"changed are \(True, False"),
        ("never back", "does not look as it did"),
        ("words never back", "does not look as it did"),
    ],
)
def test_a_faulty_control_is_found_out(fault, message):
    explorer = Suspect(fault)
    with pytest.raises(AssertionError, match=message):
        assert_moves(explorer, explorer.number, 7, [explorer.picture])


def test_a_control_that_moves_what_it_should_not_is_found_out():
    explorer = Suspect("none")
    with pytest.raises(AssertionError, match=r"changed are \(True, True"):
        assert_moves(explorer, explorer.number, 7, [])
