"""A question's controls: what they say is an answer, and an answer is shown on them."""

import pytest

from lorakit.quiz import Item, Option, is_right, quiz_items, shuffled
from lorakit.widgets.question import Question

OF_KIND = {item.kind: item for item in reversed(quiz_items())}


@pytest.mark.parametrize("item", quiz_items(), ids=lambda item: item.key)
def test_the_solution_can_be_given_and_is_shown_at_rest(item):
    given, seen = Question(item), Question(item)
    seen.show(item.solution)
    for mine, its in zip(given.controls, seen.controls, strict=True):
        assert not mine.disabled and its.disabled
        mine.value = its.value
    assert is_right(item, given.answer())
    assert given.answer() == item.solution


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("choice", "choose one of the options"),
        ("bug", "choose one of the options"),
        ("order", "choose one for every place"),
        ("number", "a number is asked for, such as 1,200"),
    ],
)
def test_no_answer_yet_is_told_with_what_to_do(kind, message):
    with pytest.raises(ValueError, match=message):
        Question(OF_KIND[kind]).answer()


def test_of_several_none_is_no_answer_yet():
    assert Question(OF_KIND["several"]).answer() == []


@pytest.mark.parametrize("item", quiz_items(), ids=lambda item: item.key)
def test_every_control_has_a_label(item):
    assert all(control.description for control in Question(item).controls)


def test_an_order_has_a_list_for_each_place_that_offers_all_of_them():
    item = OF_KIND["order"]
    controls = Question(item).controls
    assert [c.description for c in controls[:2]] == ["first", "second"]
    assert len(controls) == len(item.options)
    offered = [("choose one", None), *((o.text, o.text) for o in shuffled(item))]
    assert all(list(control.options) == offered for control in controls)


def test_the_lines_of_code_are_numbered_and_none_is_html():
    item = Item(
        key="k",
        topic="t",
        kind="bug",
        page="02",
        question="?",
        options=tuple(
            Option(text=text, why="w", right=text == "a < b") for text in ("x", "a < b", "  y & z")
        ),
    )
    listing, control = Question(item).children
    assert " 2  a &lt; b\n 3    y &amp; z" in listing.value
    assert [label for label, _ in control.options] == ["line 1", "line 2", "line 3"]
    control.index = 1
    assert control.value == "a < b"


def test_a_number_says_its_unit():
    assert "TB" in Question(next(i for i in quiz_items() if i.unit == "TB")).controls[0].description


def test_a_number_is_sent_whole():
    """Digit by digit, a quick press of Check would judge the first ones alone."""
    assert not Question(OF_KIND["number"]).controls[0].continuous_update
