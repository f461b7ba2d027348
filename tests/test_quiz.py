"""The quiz's questions are well put, and an answer is worth what it should be."""

from collections import Counter

import pytest

from lorakit.quiz import (
    KINDS,
    Item,
    Option,
    check_answer,
    explain,
    is_right,
    quiz_items,
    shuffled,
    written,
)
from lorakit.terms import NOTEBOOKS


def options(*right: str, of: str = "abcd") -> tuple[Option, ...]:
    return tuple(Option(text=text, why=f"why {text}", right=text in right) for text in of)


def made(kind: str, **fields) -> Item:
    fields = {"key": "k", "topic": "t", "page": "02", "question": "?", "kind": kind, **fields}
    return Item(**fields)


CHOICE = made("choice", options=options("b"))
SEVERAL = made("several", options=options("a", "d"))
ORDER = made("order", options=options())
NUMBER = made(
    "number",
    tolerance=0.05,
    unit="GB",
    otherwise="add up",
    options=(
        Option(text="10", value=10, why="half", right=False),
        Option(text="20", value=20, why="yes", right=True),
        Option(text="40", value=40, why="twice", right=False),
    ),
)


# The lesson's own


def test_there_are_enough_questions_of_every_kind_and_topic():
    items = quiz_items()
    assert len(items) >= 28
    assert Counter(item.kind for item in items).keys() == set(KINDS)
    assert min(Counter(item.topic for item in items).values()) >= 3


def test_a_topics_questions_stand_together():
    topics = [item.topic for item in quiz_items()]
    runs = [topic for n, topic in enumerate(topics) if n == 0 or topics[n - 1] != topic]
    assert len(runs) == len(set(runs))


@pytest.mark.parametrize("item", quiz_items(), ids=lambda item: item.key)
def test_every_option_of_every_question_says_why(item):
    assert len({option.why for option in item.options}) == len(item.options)
    assert all(len(option.why) > 3 and option.why.endswith(".") for option in item.options)
    assert item.kind != "number" or item.otherwise


@pytest.mark.parametrize("item", quiz_items(), ids=lambda item: item.key)
def test_every_questions_solution_is_right_and_explained(item):
    assert is_right(item, item.solution)
    remarks = explain(item, item.solution)
    assert all(remark.right for remark in remarks if remark.chosen)
    assert any(remark.chosen for remark in remarks)


@pytest.mark.parametrize(
    "item", [item for item in quiz_items() if item.kind in ("choice", "bug")], ids=lambda i: i.key
)
def test_no_other_option_is_right(item):
    right = [option.text for option in item.options if is_right(item, option.text)]
    assert right == [item.solution]


def test_the_place_of_the_right_option_tells_nothing():
    places = Counter(
        [option.right for option in item.options].index(True)
        for item in quiz_items()
        if item.kind == "choice"
    )
    assert len(places) == 4 and max(places.values()) <= 0.4 * sum(places.values())


def test_the_longest_option_is_not_the_right_one_as_a_rule():
    longest = [
        max(item.options, key=lambda option: len(option.text)).right
        for item in quiz_items()
        if item.kind == "choice"
    ]
    assert sum(longest) <= len(longest) / 2


@pytest.mark.parametrize("item", quiz_items(), ids=lambda item: item.key)
def test_a_question_names_a_page_of_the_lesson(item):
    assert item.page in {path.name[:2] for path in NOTEBOOKS.glob("*.ipynb")}


# Judging


@pytest.mark.parametrize(("answer", "right"), [("b", True), ("a", False), ("d", False)])
def test_a_choice_is_right_or_not(answer, right):
    assert is_right(CHOICE, answer) is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [(["a", "d"], True), (["d", "a"], True), (["a"], False), (["a", "b", "d"], False)],
)
def test_of_several_all_that_hold_are_wanted_and_no_other(answer, right):
    assert is_right(SEVERAL, answer) is right


@pytest.mark.parametrize(("answer", "right"), [(list("abcd"), True), (list("bacd"), False)])
def test_an_order_counts_as_a_whole(answer, right):
    assert is_right(ORDER, answer) is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (20, True),
        (19.01, True),
        (20.99, True),
        (18.9, False),
        (21.2, False),
        (-20, False),
        (0, False),
    ],
)
def test_a_number_is_right_within_the_tolerance(answer, right):
    assert is_right(NUMBER, answer) is right


def test_without_a_tolerance_a_number_is_right_exactly():
    item = next(item for item in quiz_items() if item.key == "lora/count")
    assert is_right(item, 3840) and is_right(item, 3840.0)
    assert not is_right(item, 3841)


@pytest.mark.parametrize(
    ("item", "answer", "message"),
    [
        (CHOICE, "e", "choose one"),
        (CHOICE, ["b"], "choose one"),
        (CHOICE, None, "choose one"),
        (SEVERAL, [], "at least one"),
        (SEVERAL, ["a", "e"], "at least one"),
        (SEVERAL, ["a", "a"], "at least one"),
        (SEVERAL, "ad", "several options are asked for"),
        (ORDER, ["a", "b"], "choose every one once"),
        (ORDER, list("aabc"), "choose every one once"),
        (NUMBER, "20", "a number is asked for"),
        (NUMBER, True, "a number is asked for"),
        (NUMBER, float("nan"), "a finite number"),
    ],
)
def test_what_is_no_answer_is_refused_with_what_to_do(item, answer, message):
    for function in (check_answer, is_right, explain):
        with pytest.raises(ValueError, match=message):
            function(item, answer)


# Explaining


def test_every_option_is_explained_and_the_answer_marked():
    remarks = explain(CHOICE, "a")
    assert [(r.text, r.why, r.right, r.chosen) for r in remarks] == [
        ("a", "why a", False, True),
        ("b", "why b", True, False),
        ("c", "why c", False, False),
        ("d", "why d", False, False),
    ]
    assert [r.chosen for r in explain(SEVERAL, ["b", "d"])] == [False, True, False, True]


def test_a_usual_mistake_in_a_number_is_called_by_its_name_and_then_the_right_one():
    assert [(r.text, r.why, r.chosen) for r in explain(NUMBER, 41)] == [
        ("40", "twice", True),
        ("20", "yes", False),
    ]
    assert [(r.text, r.why) for r in explain(NUMBER, 20.5)] == [("20", "yes")]


def test_an_unusual_number_gets_the_way_to_the_right_one():
    assert [(r.text, r.why, r.chosen) for r in explain(NUMBER, 1234.5)] == [
        ("1,234.5", "add up", True),
        ("20", "yes", False),
    ]


def test_an_order_is_explained_from_first_to_last_with_what_stood_in_its_place():
    remarks = explain(ORDER, list("bacd"))
    assert [remark.text for remark in remarks] == ["1. a", "2. b", "3. c", "4. d"]
    assert [remark.chosen for remark in remarks] == [False, False, True, True]


# Offering and writing


def test_an_order_is_offered_in_another_one_and_always_in_that():
    for item in [item for item in quiz_items() if item.kind == "order"] + [ORDER]:
        assert shuffled(item) == shuffled(item) != item.options
        assert set(shuffled(item)) == set(item.options)


@pytest.mark.parametrize(
    ("number", "text"), [(3840, "3,840"), (16.0, "16"), (0.39, "0.39"), (32.4566, "32.4566")]
)
def test_numbers_are_written_as_the_lesson_writes_them(number, text):
    assert written(number) == text


# Questions that are not well put


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("riddle", {"options": options("a")}, "kind must be one of choice"),
        ("choice", {"options": options("a", of="ab")}, "three options or more"),
        ("choice", {"options": options("a", of="abb")}, "three options or more"),
        ("choice", {"options": options("a", "b")}, "2 options are right, of a choice"),
        ("bug", {"options": options()}, "0 options are right, of a bug"),
        ("several", {"options": options(*"abcd")}, "4 options are right, of a several"),
        ("several", {"options": options()}, "0 options are right, of a several"),
        ("order", {"options": options("a")}, "1 options are right, of a order"),
        ("choice", {"options": (*options("a"), Option(text="e", why=""))}, "says why"),
        ("number", {"options": options("a"), "otherwise": "x"}, "a number has values"),
        ("number", {"options": NUMBER.options}, "says what of all others"),
        (
            "number",
            {"options": NUMBER.options, "otherwise": "x", "tolerance": 0.7},
            "too near to another",
        ),
    ],
)
def test_a_question_that_is_not_well_put_is_refused_by_its_key(kind, fields, message):
    with pytest.raises(ValueError, match=f"^k: .*{message}"):
        made(kind, **fields)
