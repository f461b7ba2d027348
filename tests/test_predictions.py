"""Guess and result in words: numbers by their factor, curves by points, choices right or not."""

import json
import math

import pytest

from lorakit.answers import Answers
from lorakit.predictions import Prediction, how_far, how_far_apart, in_words, read, summary


def prediction(guess=None, result=None, **fields) -> Prediction:
    return Prediction(question="how many?", guess=guess, result=result, **fields)


# In words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"),
        (835456.0, "835,456"),
        (1234.6, "1,235"),
        (-1234.6, "-1,235"),
        (432.25, "432"),
        (0.03125, "0.0312"),
        (3e20, "3e+20"),
        ("both, at once", "both, at once"),
        ((("1", 0.5), ("all", 2000.0)), "1: 0.5, all: 2,000"),
    ],
)
def test_values_are_told_in_as_many_digits_as_they_deserve(value, words):
    assert in_words(value) == words


def test_a_unit_stands_behind_each_number():
    assert in_words(40.0, "MB") == "40 MB"
    assert in_words((("1", 0.5), ("2", 3.0)), "s") == "1: 0.5 s, 2: 3 s"


@pytest.mark.parametrize(
    ("guess", "result", "words"),
    [
        (40.0, 40.0, "right"),
        (0.0, 0.0, "right"),
        (40.0, 10.0, "4.0 times too high"),
        (10.0, 40.0, "4.0 times too low"),
        (1.0, 1.05, "right, within a factor of 1.05"),
        (1.05, 1.0, "right, within a factor of 1.05"),
        (1.06, 1.0, "1.1 times too high"),
        (9.94, 1.0, "9.9 times too high"),
        (9.96, 1.0, "10 times too high"),
        (1.0, 1234.4, "1,234 times too low"),
        (1.0, 3e9, "3.0e+09 times too low"),
        (0.0, 5.0, "5 MB too low"),
        (5.0, -1.0, "6 MB too high"),
        (-4.0, -2.0, "2 MB too low"),
    ],
)
def test_a_number_is_off_by_a_factor_or_by_a_difference_where_there_is_none(guess, result, words):
    assert how_far(guess, result, "MB") == words


def curve(*values: float) -> tuple:
    return tuple((str(place), float(value)) for place, value in enumerate(values))


def test_curves_are_off_by_their_median_difference_and_their_largest():
    assert how_far_apart(curve(0, 1, 5, 2), curve(1, 1, 1, 2)) == (
        "off by 0.5 (median of 4 points), by 4 at 2; "
        "from 0 to 3 yours rises by 2, the result rises by 1"
    )


def test_curves_on_a_log_axis_are_off_by_factors():
    assert how_far_apart(curve(1, 2, 1), curve(1, 1, 8), log=True) == (
        "off by 2.0 times (median of 3 points), by 8.0 times at 2; "
        "from 0 to 2 yours stays level, the result rises 8.0 times"
    )


def test_curves_meet_only_where_both_have_points():
    assert how_far_apart(curve(1, 2, 3), curve(1, 5)) == (
        "off by 1.5 (median of 2 points), by 3 at 1; "
        "from 0 to 1 yours rises by 1, the result rises by 4"
    )
    falls = how_far_apart(curve(3, 2, 0.3), curve(1, 1, 0.1 + 0.2 + 0.7))
    assert falls.endswith("from 0 to 2 yours falls by 2.7, the result stays level")
    near = how_far_apart(curve(4, 1), curve(0.056, 0.0561), log=True)
    assert near.endswith("from 0 to 1 yours falls 4.0 times, the result stays level")
    assert how_far_apart(curve(1), curve(3, 5)) == "off by 2 (median of 1 points), by 2 at 0"
    assert how_far_apart(curve(1), (("other", 2.0),)) == ""
    assert how_far_apart(curve(0, 2), curve(1, 2), log=True) == "right"
    assert how_far_apart(curve(0), curve(1), log=True) == ""


def test_a_curve_that_was_guessed_exactly_is_right():
    assert how_far_apart(curve(1, 2), curve(1, 2)) == "right"


# A prediction


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (prediction("A", "B"), "you said A, the result is B: not right"),
        (prediction("B", "B"), "you said B, the result is B: right"),
        (prediction(None, "B"), "no guess was made, the result is B"),
        (prediction("A"), "you said A, the result is not seen yet"),
        (prediction(4.0, 1.0, unit="MB"), "you said 4 MB, the result is 1 MB: 4.0 times too high"),
        (
            prediction(curve(1, 2), curve(1, 4), unit="s", log=True),
            "you said 0: 1 s, 1: 2 s, the result is 0: 1 s, 1: 4 s: "
            "off by 1.4 times (median of 2 points), by 2.0 times at 1; "
            "from 0 to 1 yours rises 2.0 times, the result rises 4.0 times",
        ),
        (
            prediction(curve(1, 2), curve(1, 4), unit="s"),
            "you said 0: 1 s, 1: 2 s, the result is 0: 1 s, 1: 4 s: "
            "off by 1 s (median of 2 points), by 2 s at 1; "
            "from 0 to 1 yours rises by 1 s, the result rises by 3 s",
        ),
        (prediction("A", 1.0), "you said A, the result is 1"),
    ],
)
def test_guess_result_and_verdict_are_one_sentence(given, sentence):
    assert given.sentence == sentence


@pytest.mark.parametrize(
    "given",
    [
        prediction(),
        prediction("A"),
        prediction(4.0, 1.0, unit="MB"),
        prediction(curve(1, 2), log=True),
    ],
    ids=["open", "option", "number", "curve"],
)
def test_it_comes_back_from_json_as_it_was(given):
    assert Prediction.from_json(json.loads(json.dumps(given.to_json()))) == given


@pytest.mark.parametrize(
    "found",
    [
        None,
        3,
        "rank 8",
        [],
        {},
        {"question": "q", "guess": 1},
        {"question": 1, "guess": None, "result": None},
        {"question": "q", "guess": True, "result": None},
        {"question": "q", "guess": [1, 2], "result": None},
        {"question": "q", "guess": [["a", "b"]], "result": None},
        {"question": "q", "guess": {}, "result": None},
        {"question": "q", "guess": None, "result": None, "unit": 3},
        {"question": "q", "guess": None, "result": None, "log": "no"},
        {"question": "q", "guess": None, "result": None, "of": "another kind"},
    ],
)
def test_what_is_no_prediction_is_none(found):
    assert Prediction.from_json(found) is None


# Many


def test_predictions_are_read_by_the_beginning_of_their_keys_and_nothing_else_is():
    answers = Answers()
    for key in ("predict/02/b", "predict/02/a", "predict/03/a", "quiz/02/a"):
        answers.set(key, prediction(key).to_json())
    answers.set("predict/02/c", "no prediction")
    found = read(answers, "predict/02/")
    assert [*found] == ["predict/02/a", "predict/02/b"]
    assert found["predict/02/a"].guess == "predict/02/a"


def counted(*given: Prediction) -> str:
    return summary({str(number): p for number, p in enumerate(given)})


def test_the_summary_counts_what_was_guessed_before_it_was_seen():
    assert counted() == "no prediction is kept yet"
    assert counted(prediction("A"), prediction(None, 3.0), prediction(None, "B")) == (
        "0 of 2 results guessed before they were seen, 1 still without a result"
    )
    assert counted(prediction("A", "B"), prediction("B", "B"), prediction(curve(1), curve(1))) == (
        "3 of 3 results guessed before they were seen, 1 of 2 choices right"
    )


@pytest.mark.parametrize(
    ("guess", "result", "near"),
    [
        (2.0, 1.0, 1),
        (1.0, 2.0, 1),
        (1.0, math.nextafter(2.0, 3), 0),
        (0.0, 0.0, 1),
        (0.0, 1.0, 0),
        (-1.0, -1.5, 0),
    ],
)
def test_a_number_is_near_within_a_factor_of_two(guess, result, near):
    assert f"{near} of 1 numbers within a factor of 2" in counted(prediction(guess, result))
