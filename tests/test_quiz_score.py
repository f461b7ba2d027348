"""How far one has come: what is asked next, what comes back, and the score by topic."""

import pytest

from lorakit.quiz import Item, Option
from lorakit.quiz_score import TopicScore, describe, known, scores, upcoming

OPTIONS = tuple(Option(text=text, why=text, right=text == "yes") for text in ("yes", "no", "oh"))


def item(key: str, topic: str = "t") -> Item:
    return Item(key=key, topic=topic, kind="choice", page="02", question="?", options=OPTIONS)


ITEMS = (item("a"), item("b"), item("c", "u"), item("d", "u"))
YES, NO = ["yes"], ["no"]


def next_key(tries, after=None) -> str | None:
    found = upcoming(ITEMS, tries, after)
    return found.key if found else None


def test_questions_are_asked_in_their_order():
    assert next_key({}) == "a"
    assert next_key({"a": YES}, "a") == "b"
    assert next_key({"b": YES}) == "a"


def test_a_wrong_one_comes_back_only_after_all_others():
    assert next_key({"a": NO}, "a") == "b"
    assert next_key({"a": NO, "b": YES, "c": YES}, "c") == "d"
    assert next_key({"a": NO, "b": YES, "c": YES, "d": YES}, "d") == "a"


def test_wrong_ones_come_back_in_turn():
    tries = {"a": NO, "b": NO, "c": YES, "d": NO}
    assert [next_key(tries, after) for after in ("d", "a", "b", "c")] == ["a", "b", "d", "d"]


def test_a_wrong_one_comes_back_until_it_is_right_alone_too():
    rest = {"b": YES, "c": YES, "d": YES}
    assert next_key({"a": ["no", "no"], **rest}, "a") == "a"
    assert next_key({"a": ["no", "no", "yes"], **rest}, "a") is None


def test_the_last_answer_counts():
    rest = {"b": YES, "c": YES, "d": YES}
    assert next_key({"a": ["yes", "no"], **rest}) == "a"


def test_the_score_of_a_topic_tells_first_later_wrong_and_open():
    tries = {"a": YES, "b": ["no", "yes"], "c": ["yes", "no"]}
    assert scores(ITEMS, tries) == (
        TopicScore(topic="t", items=2, first=1, later=1, wrong=0),
        TopicScore(topic="u", items=2, first=0, later=0, wrong=1),
    )
    first, second = scores(ITEMS, tries)
    assert (first.right, first.open) == (2, 0)
    assert (second.right, second.open) == (0, 1)


def test_the_score_in_words_adds_up_all_topics():
    tries = {"a": YES, "b": ["no", "yes"], "c": NO}
    assert describe(scores(ITEMS, tries)) == (
        "2 of 4 right, 1 of them at the first try; 1 to come back, 1 not asked yet"
    )


@pytest.mark.parametrize("damaged", [None, "yes", {"yes": 1}, 3, [], ["maybe"], [["yes"]], [None]])
def test_what_was_kept_and_is_no_answer_is_passed_over(damaged):
    assert known(ITEMS, {"a": damaged})["a"] == []
    assert next_key({"a": damaged}) == "a"
    assert scores(ITEMS, {"a": damaged}) == scores(ITEMS, {})


def test_an_option_that_is_gone_leaves_the_other_tries():
    assert known(ITEMS, {"a": ["no", "maybe", "yes"], "z": YES}) == {
        "a": ["no", "yes"],
        "b": [],
        "c": [],
        "d": [],
    }
