"""The quiz explorable: answers are explained, kept, asked again until right, and found again."""

import json
from collections.abc import Iterator

import pytest
from ipywidgets import Widget

from lorakit.answers import Answers, kept
from lorakit.quiz import Item, Option, quiz_items
from lorakit.quiz_score import describe, scores
from lorakit.widgets import QuizExplorer
from lorakit.widgets.glossary import page_link


def item(key: str, topic: str, kind: str = "choice", **fields) -> Item:
    options = tuple(
        Option(text=f"{key} {word}", why=f"{key}: {word} <&>.", right=word == "yes")
        for word in ("no", "yes", "oh")
    )
    made = {"key": key, "topic": topic, "kind": kind, "page": "02", "question": f"{key} <?>"}
    return Item(**{**made, "options": options, **fields})


ITEMS = (item("a", "LoRA"), item("b", "LoRA", "several"), item("c", "memory"))


@pytest.fixture(autouse=True)
def answers() -> Iterator[Answers]:
    kept.cache_clear()
    yield kept()
    kept.cache_clear()


@pytest.fixture
def quiz(answers) -> QuizExplorer:
    return QuizExplorer(ITEMS)


def choose(quiz: QuizExplorer, word: str) -> None:
    """Answer the question on show by its controls and the button."""
    text = f"{quiz.item.key} {word}"
    for control in quiz.question.controls:
        control.value = control.description == text if quiz.item.kind == "several" else text
    quiz.check.click()


# Asking and explaining


def test_the_first_question_is_asked_first(quiz):
    assert quiz.item.key == "a"
    assert "1 of 3: LoRA" in quiz.asked.value and "a &lt;?&gt;" in quiz.asked.value
    assert quiz.said.value == ""
    assert not quiz.check.disabled


def test_a_right_answer_is_told_with_all_explanations_and_the_page(quiz):
    choose(quiz, "yes")
    said = quiz.said.value
    assert "Right." in said and "comes back" not in said
    assert "<b>a yes</b> (right, your answer \N{CHECK MARK}): a: yes &lt;&amp;&gt;." in said
    assert "<b>a no</b> (wrong): a: no" in said and "<b>a oh</b> (wrong)" in said
    assert page_link("02") in said
    assert quiz.check.disabled and quiz.question.controls[0].disabled


def test_a_wrong_answer_is_told_with_what_was_right(quiz):
    choose(quiz, "no")
    assert "Not right. The question comes back" in quiz.said.value
    assert "<b>a no</b> (wrong, your answer)" in quiz.said.value
    assert "<b>a yes</b> (right): " in quiz.said.value


def test_what_is_said_is_spoken(quiz):
    choose(quiz, "no")
    assert quiz.said.value.startswith('<div role="status"')


def test_nothing_chosen_is_said_and_nothing_kept(quiz, answers):
    quiz.check.click()
    assert "choose one of the options" in quiz.said.value
    assert answers.keys() == [] and not quiz.check.disabled
    assert quiz.error.value == ""


def test_none_of_several_is_said_and_not_kept(quiz, answers):
    quiz.show("b")
    quiz.check.click()
    assert "choose at least one" in quiz.said.value
    assert answers.keys() == []


def test_an_order_is_told_by_places():
    order = item("o", "t", "order", options=tuple(Option(text=x, why=f"{x}!") for x in "xyz"))
    quiz = QuizExplorer((order,))
    assert not quiz.answer(["y", "x", "z"])
    assert "<b>1. x</b> (you had it elsewhere): x!" in quiz.said.value
    assert "<b>3. z</b> (in its place \N{CHECK MARK}): z!" in quiz.said.value


def test_a_line_of_code_is_told_as_code(answers):
    bug = item("k", "t", "bug")
    quiz = QuizExplorer((bug,))
    quiz.answer("k no")
    assert "<b><code>k no</code></b> (nothing wrong here, your answer): k: no" in quiz.said.value
    assert "<b><code>k yes</code></b> (the line to find): k: yes" in quiz.said.value


def test_several_are_told_by_what_holds(quiz):
    quiz.show("b")
    quiz.answer(["b oh", "b yes"])
    assert "<b>b yes</b> (holds, your answer \N{CHECK MARK}): b: yes" in quiz.said.value
    assert "<b>b oh</b> (does not hold, your answer): b: oh" in quiz.said.value
    assert "<b>b no</b> (does not hold): b: no" in quiz.said.value


# What is next


def test_next_goes_on_and_wrong_ones_come_back_until_right(quiz):
    asked = []
    for word in ("no", "yes", "yes", "no", "yes"):
        asked.append(quiz.item.key)
        choose(quiz, word)
        quiz.next.click()
    assert asked == ["a", "b", "c", "a", "a"]
    assert "all are right" in quiz.said.value


def test_wrong_ones_take_turns(quiz):
    for word in ("no", "yes", "no"):
        choose(quiz, word)
        quiz.next.click()
    assert quiz.item.key == "a"
    choose(quiz, "no")
    quiz.next.click()
    assert quiz.item.key == "c"
    assert quiz.error.value == ""  # what a press of a button raises is seen here alone


def test_a_question_that_comes_back_is_asked_anew_with_what_was_said(quiz):
    choose(quiz, "no")
    quiz.show("c")
    quiz.show("a")
    assert "asked again. Your answer before: a no" in quiz.said.value
    assert quiz.question.controls[0].value is None and not quiz.check.disabled


@pytest.mark.parametrize(
    ("key", "answer", "words"),
    [
        ("full/bytes", 4.0, "4"),
        ("lora/count", 45056.0, "45,056"),
        ("lora/bug-optimizer", "    loss.backward()", "line 7"),
        ("lora/starts", ["A zero, B random", "A zero, B zero"], "A zero, B random; A zero, B zero"),
    ],
)
def test_what_was_said_before_is_told_as_the_page_shows_it(answers, key, answer, words):
    answers.set(f"quiz/{key}", [answer])
    quiz = QuizExplorer()
    quiz.show(key)
    assert f"Your answer before: {words}<" in quiz.said.value


def test_a_question_answered_right_is_shown_with_its_answer(quiz):
    choose(quiz, "yes")
    explained = quiz.said.value
    quiz.next.click()
    quiz.which.value = "a"
    assert quiz.question.controls[0].value == "a yes" and quiz.check.disabled
    assert quiz.said.value == explained


def test_next_without_an_answer_asks_the_same_again(quiz):
    quiz.next.click()
    assert quiz.item.key == "a"


# Keeping


def test_each_answer_is_kept_at_once_with_all_tries(quiz, answers):
    choose(quiz, "no")
    assert answers.get("quiz/a") == ["a no"]
    quiz.show("b")
    choose(quiz, "yes")
    assert answers.get("quiz/b") == [["b yes"]]
    quiz.show("a")
    choose(quiz, "yes")
    assert answers.get("quiz/a") == ["a no", "a yes"]


def test_another_kernel_over_the_same_file_goes_on_where_this_one_was(tmp_path, monkeypatch):
    def opened() -> QuizExplorer:
        found = Answers(tmp_path / "kept.json")
        monkeypatch.setattr("lorakit.widgets.answering.kept", lambda: found)
        return QuizExplorer(ITEMS)

    quiz = opened()
    choose(quiz, "yes")
    again = opened()
    assert again.item.key == "b"
    assert again.picture.text == quiz.picture.text
    again.show("a")
    assert again.question.controls[0].value == "a yes"


def test_all_answered_it_opens_with_the_last_question_answered(answers):
    for key in "ac":
        answers.set(f"quiz/{key}", [f"{key} yes"])
    answers.set("quiz/b", [["b yes"]])
    quiz = QuizExplorer(ITEMS)
    assert quiz.item.key == "c" and "Right." in quiz.said.value


@pytest.mark.parametrize("damaged", ["a yes", {"a": 1}, [["a yes"]], ["gone"], None])
def test_what_is_kept_and_no_answer_is_asked_again(answers, damaged):
    answers.set("quiz/a", damaged)
    quiz = QuizExplorer(ITEMS)
    assert quiz.item.key == "a" and quiz.said.value == ""
    choose(quiz, "yes")
    assert answers.get("quiz/a") == ["a yes"]


def test_other_answers_are_left_alone(quiz, answers):
    answers.set("predict/a", 3)
    choose(quiz, "yes")
    quiz.over.click()
    quiz.sure.click()
    assert json.loads(answers.export()) == {"predict/a": 3}


def test_answers_that_are_taken_in_elsewhere_move_the_score(quiz, answers):
    answers.restore(json.dumps({"quiz/c": ["c yes"]}))
    assert quiz.picture.text.startswith("1 of 3 right")


def test_an_answer_that_is_taken_in_elsewhere_shows_at_its_question(quiz, answers):
    answers.restore(json.dumps({"quiz/a": ["a yes"]}))
    assert quiz.question.controls[0].value == "a yes" and "Right." in quiz.said.value


def test_what_is_kept_for_another_question_leaves_a_choice_as_it_is(quiz, answers):
    choose(quiz, "no")
    quiz.show("a")
    quiz.question.controls[0].value = "a oh"
    answers.set("quiz/c", ["c yes"])
    assert quiz.question.controls[0].value == "a oh" and not quiz.check.disabled


def test_starting_over_asks_once_more_and_forgets(quiz, answers):
    choose(quiz, "yes")
    quiz.next.click()
    visible = lambda button: button.layout.display != "none"  # noqa: E731
    assert visible(quiz.over) and not visible(quiz.sure) and not visible(quiz.no)
    quiz.over.click()
    assert not visible(quiz.over) and visible(quiz.sure) and visible(quiz.no)
    quiz.no.click()
    assert answers.keys() == ["quiz/a"] and visible(quiz.over) and not visible(quiz.sure)
    quiz.over.click()
    quiz.sure.click()
    assert answers.keys() == []
    assert quiz.item.key == "a" and quiz.said.value == "" and not quiz.check.disabled
    assert quiz.picture.text.startswith("0 of 3 right")


def test_answers_forgotten_elsewhere_are_gone_from_the_page(quiz, answers):
    choose(quiz, "yes")
    answers.reset("quiz/")
    assert quiz.said.value == "" and not quiz.check.disabled
    assert quiz.question.controls[0].value is None


def test_when_all_answers_are_forgotten_elsewhere_the_first_question_is_asked(quiz, answers):
    quiz.show("c")
    choose(quiz, "yes")
    answers.reset()
    assert quiz.item.key == "a" and quiz.said.value == ""


# The picture, and its life


def test_the_picture_and_its_words_are_the_score(quiz):
    before = quiz.picture.value
    choose(quiz, "no")
    assert quiz.picture.value != before
    assert quiz.picture.text == describe(scores(ITEMS, {"a": ["a no"]}))
    now = quiz.picture.value
    quiz.show("c")
    assert quiz.picture.value == now


def test_the_lessons_own_questions_and_answers_are_there_by_default():
    quiz = QuizExplorer()
    assert quiz.items == quiz_items()
    assert len(quiz.which.options) == len(quiz_items())
    assert "answers are kept in memory" in quiz.where.value


def test_without_a_kernel_there_is_a_picture_and_words_that_never_change(quiz):
    bundle = quiz._repr_mimebundle_()
    choose(quiz, "yes")
    assert bundle["text/plain"] == quiz._repr_mimebundle_()["text/plain"]
    assert bundle["text/plain"] == "explorable: questions on the whole lesson"
    assert bundle["image/png"]


def test_without_a_kernel_the_first_question_can_be_read(quiz):
    score, question = quiz.pictures
    assert score is quiz.picture
    assert question.alt == "a <?>" and question.value
    assert question.layout.display == "none"  # on a live page


def test_a_question_that_makes_way_leaves_no_widget_behind(quiz):
    quiz.show("c")
    quiz.show("a")
    before = len(Widget.get_manager_state()["state"])
    for _ in range(3):
        quiz.show("c")
        quiz.show("a")
    assert len(Widget.get_manager_state()["state"]) == before


def test_closed_it_follows_no_answers_any_more(quiz, answers):
    quiz.close()
    answers.set("quiz/a", ["a yes"])
    assert answers._watchers == []


def test_an_error_is_shown_and_the_next_success_clears_it(quiz, answers, monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST", raising=False)
    quiz.question.controls[0].value = "a yes"
    with monkeypatch.context() as patch:
        patch.setattr(answers, "set", lambda key, value: 1 / 0)
        quiz.check.click()
    assert "ZeroDivisionError" in quiz.error.value
    quiz.show("c")
    assert quiz.error.value == ""


def test_every_button_has_words(quiz):
    for button in (quiz.check, quiz.next, quiz.over, quiz.sure, quiz.no):
        assert button.description
    assert quiz.which.description == "question"
