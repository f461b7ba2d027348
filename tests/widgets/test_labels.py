"""For a keyboard and a screen reader: every control has a name, and every picture words."""

from collections import Counter
from dataclasses import replace

import ipywidgets
import pytest
from explorables import controls, look, values

from lorakit import widgets
from lorakit.widgets import (
    Choice,
    ClaimExplorer,
    Explorable,
    Glossary,
    Job,
    Keeping,
    MergedExplorer,
    Number,
    PaceExplorer,
    Picture,
    Predictions,
    QuizExplorer,
    RaceExplorer,
    RankAlphaExplorer,
    RealModelExplorer,
    ShelfExplorer,
    Sketch,
    StepTimesExplorer,
    SweepExplorer,
    WhenFullWinsExplorer,
    shown,
)
from lorakit.widgets.frames import FRAMES
from lorakit.widgets.stage import Stage

# Those that `make` makes, and the others.
MADE = (
    *("parameters", "adapter file", "memory", "estimate", "spectrum", "truncation", "merge"),
    *("overlap", "step", "handshake", "finetune", "starts", "budget", "live", "quantize"),
)
OTHERS = {
    "pace": lambda run: PaceExplorer(replace(run, steps=1)),
    "step times": StepTimesExplorer,
    "race": lambda run: RaceExplorer(run, ranks=(1, 4)),
    "rank and alpha": lambda run: RankAlphaExplorer(run),
    "sweep": lambda run: SweepExplorer("rank"),
    "when full wins": lambda run: WhenFullWinsExplorer(),
    "claim": lambda run: ClaimExplorer("H5"),
    "shelf": lambda run: ShelfExplorer(),
    "merged": lambda run: MergedExplorer(),
    "real model": lambda run: RealModelExplorer(),
    "quiz": lambda run: QuizExplorer(),
    "glossary": lambda run: Glossary(),
    "keeping": lambda run: Keeping(browser=False),
    "predictions": lambda run: Predictions(),
    "choice": lambda run: Choice("a", "Which?", ["this", "that"]),
    "number": lambda run: Number("b", "How many?"),
    "sketch": lambda run: Sketch("c", "How?", x=[1, 2, 4], y=(0, 1)),
    "stage": lambda run: Stage([*FRAMES.values()]),
}
EVERY = pytest.mark.parametrize("name", [*MADE, *OTHERS])
# Which of their controls move a picture and its words at once, without a run.
DRAWN = {
    "sweep": "measure",
    "when full wins": "measure",
    "claim": "model",
    "merged": "measure",
    "real model": "measure",
}

ACTING = (  # what takes a focus; the rest of what has a description only shows
    ipywidgets.Button,
    ipywidgets.widgets.widget_bool._Bool,
    ipywidgets.widgets.widget_selection._Selection,
    ipywidgets.widgets.widget_selection._MultipleSelection,
    ipywidgets.Text,
    ipywidgets.Textarea,
    ipywidgets.BoundedIntText,
    ipywidgets.IntSlider,
    ipywidgets.FloatSlider,
    ipywidgets.FileUpload,
)


@pytest.fixture
def explorable(name, make, run, request) -> Explorable:
    return OTHERS[name](run) if name in OTHERS else make(name)


def inside(widget: ipywidgets.Widget) -> list[ipywidgets.Widget]:
    children = getattr(widget, "children", ())
    return [found for child in children for found in [child, *inside(child)]]


def acting(explorable: Explorable) -> list[ipywidgets.Widget]:
    return [widget for widget in inside(explorable) if isinstance(widget, ACTING)]


def name_of(control: ipywidgets.Widget) -> str:
    """What a screen reader calls it: its label, or for want of one its title."""
    tooltip = "tooltip" if control.has_trait("tooltip") else "description_tooltip"  # ipywidgets 7
    return (control.description or getattr(control, tooltip) or "").strip()


@EVERY
def test_every_control_has_a_name(explorable):
    assert [control for control in acting(explorable) if not name_of(control)] == []


@EVERY
def test_no_two_controls_have_one_name(explorable):
    names = Counter(map(name_of, acting(explorable)))
    assert [name for name, times in names.items() if times > 1] == []


@EVERY
def test_every_picture_has_a_line_of_words(explorable):
    assert all(picture.alt and picture.text for picture in explorable.pictures)


@EVERY
def test_no_picture_has_a_title(explorable):
    # ipywidgets' own page code fails on an image with one, and shows an error in its place.
    titles = [getattr(picture.image, "tooltip", None) for picture in explorable.pictures]
    assert [title for title in titles if title] == []


@EVERY
def test_what_it_is_is_told_in_words(explorable):
    assert explorable.alt.startswith("explorable: ")


@pytest.mark.parametrize("name", DRAWN)
def test_words_change_with_a_picture(explorable, name):
    control = getattr(explorable, DRAWN[name])
    (other, *_) = (value for value in values(control) if value != control.value)
    before, control.value = look(explorable), other
    for (png, words), (new_png, new_words) in zip(before, look(explorable), strict=True):
        assert (png != new_png) == (words != new_words)
    assert look(explorable) != before


def test_no_explorable_is_passed_over(make, run):
    public = [getattr(widgets, name) for name in widgets.__all__]
    kinds = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Explorable)}
    seen = {type(make(name)) for name in MADE}
    seen |= {type(OTHERS[name](run)) for name in OTHERS}
    assert kinds - seen == {Explorable, Job}


# The asking itself


class Nameless(Explorable):
    def __init__(self):
        self.number = ipywidgets.IntSlider()
        self.picture = Picture(120, 80, alt="a level")
        super().__init__([ipywidgets.HBox([self.number]), self.picture], alt="a level")

    @shown
    def refresh(self, change=None) -> None: ...


def test_a_control_without_a_name_is_found_out():
    (control,) = acting(Nameless())
    assert name_of(control) == ""
    assert controls(Nameless()) != []
