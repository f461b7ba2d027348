"""Forms of answers: each says what the story says, and all words are known."""

import json
import random
from collections import Counter

import pytest

from lorakit.mixture import (
    EUROPE,
    KEYS,
    LABELS,
    MIXTURE,
    JSONObject,
    Label,
    Manner,
    Portrait,
    Quiz,
    Record,
    any_question,
    vocabulary,
)
from lorakit.world import ATTRIBUTES, VALUES, Person, Story, tell

ADA = Person("Ada", "baker", "Paris", "goat", "soup")
STORY = Story((ADA, Person("Finn", "mason", "Lima", "cat", "rice")), ())


def answer(form, name="Ada", **asked):
    """What `form` answers about a person, whoever else it might have asked about."""
    for seed in range(1000):
        question = form.ask(random.Random(seed), STORY)
        if name in question.text.split() and all(word in question.text for word in asked.values()):
            return question.text, question.answer(STORY)
    raise AssertionError("never asked")


def test_a_record_has_its_order_keys_and_marks():
    form = Record(order=("pet", "home"), keys=("animal", "home"), separator="->", joiner="/")
    assert answer(form)[1] == "animal -> goat / home -> Paris"


def test_an_object_is_valid_json():
    form = JSONObject(order=("food", "job"), keys=("dish", "work"))
    text, found = answer(form)
    assert text == "object of Ada :"
    assert json.loads(found) == {"dish": "soup", "work": "baker"}


def test_a_manner_answers_what_was_asked():
    form = Manner(lead="well , ", body="the {key} of {name} is {value}", tail=" !")
    assert answer(form, key="city") == (
        "what is the city of Ada ?",
        "well , the city of Ada is Paris !",
    )


def test_a_label_tells_europe_from_elsewhere():
    form = Label(words=("near", "far"))
    assert answer(form) == ("label of Ada :", "near")
    assert answer(form, "Finn") == ("label of Finn :", "far")


def test_as_many_homes_are_in_europe_as_not_in_every_split():
    assert set(VALUES["home"]) > EUROPE
    for remainder in range(4):
        assert sum(home in EUROPE for home in VALUES["home"][remainder::4]) == 2


def test_a_portrait_is_one_sentence_with_all_facts():
    form = Portrait(
        phrases=("lives in {home}", "loves {food}", "is a {job}", "has a {pet}"),
        frame="{name} , who {0} and {1} , {2} and {3} .",
    )
    assert (
        answer(form)[1] == "Ada , who lives in Paris and loves soup , is a baker and has a goat ."
    )


def test_a_quiz_asks_and_answers():
    form = Quiz(items=(("pet", "animal", "which {key} has {name} ?"),))
    assert answer(form) == ("quiz on Ada :", "which animal has Ada ? goat")


def test_every_word_that_can_be_said_is_in_the_vocabulary_and_no_other():
    draw, words = random.Random(1), set()
    for _ in range(8000):
        story = tell(draw)
        question = any_question(draw, story)
        words |= set(f"{story.text} {question.text} {question.answer(story)}".split())
    assert words == set(vocabulary())


def test_the_mixture_has_its_kinds_in_proportion():
    draw = random.Random(2)
    first = Counter(any_question(draw, STORY).text.split()[0] for _ in range(8000))
    starts = dict(
        zip(("record", "object", "what", "label", "portrait", "quiz"), MIXTURE, strict=True)
    )
    whole = sum(MIXTURE.values())
    for start, kind in starts.items():
        assert first[start] / 8000 == pytest.approx(MIXTURE[kind] / whole, abs=0.02)


@pytest.mark.parametrize("kind", MIXTURE)
def test_no_form_of_a_kind_is_said_more_than_half_the_time(kind):
    draw = random.Random(3)
    forms = Counter(kind.drawn(draw) for _ in range(2000))
    assert forms.most_common(1)[0][1] < (0.55 if kind is Label else 0.2) * 2000
    assert len(LABELS) == 3
    assert set(KEYS) == set(ATTRIBUTES)
