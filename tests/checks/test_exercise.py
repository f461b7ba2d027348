"""How an answer is judged, on an exercise of two numbers."""

from dataclasses import replace

import pytest

from lorakit.checks.exercise import Exercise, Mistake, Wrong


def look(pair):
    yield "the first", pair(3)[0]
    yield "the second", pair(3)[1]


TOY = Exercise(
    key="toy",
    page="02",
    prompt="",
    imports="import math",
    starter="def pair(n):\n    return ...",
    solution="def pair(n):\n    return math.prod([2, n]), n + 1",
    answers=("pair",),
    observe=look,
    first="Begin",
    hints=("one", "two"),
    example="pair(5)",
    right="Both",
    mistakes=(
        Mistake("not doubled", "Twice?", {"math.prod([2, n])": "n"}),
        Mistake("halved and no successor", "Really?", {"math.prod([2, n])": "n", "n + 1": "n"}),
        Mistake("one too few", "Next?", {"n + 1": "n"}),
        Mistake("divided", "By what?", {"n + 1": "n / 0"}),
    ),
)


def test_an_answer_with_two_mistakes_hears_of_the_first_and_then_of_the_second():
    assert TOY.judge(lambda n: (n, 99)).name == "not doubled"
    assert TOY.judge(lambda n: (2 * n, n)).name == "one too few"


def test_of_two_mistakes_that_begin_alike_the_more_similar_one_is_named():
    assert TOY.judge(lambda n: (n, n)).name == "halved and no successor"
    assert TOY.judge(lambda n: (n, n + 1)).name == "not doubled"


def test_a_mistake_whose_second_symptom_is_missing_is_not_named():
    only = replace(TOY, mistakes=TOY.mistakes[1:2])
    assert only.judge(lambda n: (n, n)).name == "halved and no successor"
    assert only.judge(lambda n: (n, n + 1)).kind == "unknown"


def test_an_error_is_recognised_by_its_kind_and_not_by_its_words():
    def pair(n):
        return 2 * n, [][n]

    def divided(n):
        raise ZeroDivisionError("other words")

    assert TOY.judge(pair).text == "looking at it raised IndexError: list index out of range"
    # It raises at the first facet, the mistake at the first too: both are made in one call.
    assert TOY.judge(divided).name == "divided"


def test_an_unknown_answer_is_told_where_and_how_far_off_without_the_number():
    verdict = TOY.judge(lambda n: (24, 4))
    assert (verdict.kind, verdict.name) == ("unknown", None)
    assert verdict.text == "the first: too large by about 4 times"
    assert "6" not in verdict.text


@pytest.mark.parametrize(
    "answer",
    [
        lambda n: ...,
        lambda n: (..., 4),
        lambda n: (2 * n, ...),
        lambda n: (2 * n, ... + 1),
        lambda n: (2 * n, None),
        None,
        ...,
    ],
    ids=["nothing", "first", "second", "in a sum", "none", "None", "dots"],
)
def test_dots_anywhere_are_no_answer_yet(answer):
    verdict = TOY.judge(answer)
    assert (verdict.kind, verdict.text) == ("open", "not answered yet. Begin")


def test_an_answer_that_does_what_the_starter_does_is_none_yet_but_an_error_is_one():
    idle = replace(TOY, starter="def pair(n):\n    return 0, 0")
    assert idle.judge(lambda n: (0, 0)).kind == "open"
    broken = replace(TOY, starter="def pair(n):\n    raise IndexError")
    assert broken.judge(lambda n: [][n]).kind == "unknown"


@pytest.mark.parametrize("answer", [(), (1, 2)], ids=["too few", "too many"])
def test_another_number_of_answers_is_told_and_not_raised(answer):
    assert TOY.judge(*answer).text == "give me pair, nothing else"


def test_strict_raises_for_what_is_wrong_and_for_what_is_not_there(capsys):
    for answer in (lambda n: (24, 4), ...):
        with pytest.raises(Wrong) as error:
            TOY(answer, strict=True)
        assert error.value.name is None
    TOY(lambda n: (2 * n, n + 1), strict=True)
    assert capsys.readouterr().out == "toy: right. Both\n"


def test_a_stop_is_not_taken_for_an_answer():
    def stopped(n):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TOY.judge(stopped)


@pytest.mark.parametrize(("old", "times"), [("nothing", 0), ("n", 4)])
def test_an_edit_must_fit_at_one_place(old, times):
    bad = Mistake("bad", "?", {old: "x"})
    with pytest.raises(ValueError, match=f"toy, bad: '{old}' is {times} times in the solution"):
        TOY.wrong(bad)


def test_a_source_runs_in_a_namespace_of_its_own():
    names = TOY.run("n = 1\nm = math.pi")
    assert names["n"] == 1
    assert "n" not in TOY.run("m = 2")
