"""Guess and result are told apart by shape, by colour and by words, and nothing leaves the axes."""

import pytest
from drawings import drawn, inked, texts

from lorakit.plots import figure
from lorakit.plots.guesses import (
    draw_guessed_curve,
    draw_guessed_number,
    draw_guessed_option,
    draw_words,
    rows_of_words,
)

OPTIONS = ("A", "B", "both $at$ once")


@pytest.fixture
def ax():
    return figure(760, 200)[1]


def marks(ax) -> dict[str, list]:
    """The places of round marks and of diamonds."""
    return {line.get_marker(): [*zip(*line.get_data(), strict=True)] for line in ax.lines}


@pytest.mark.parametrize(
    ("guess", "right", "found"),
    [
        (None, None, {}),
        ("A", None, {"o": [(0, 0)]}),
        ("A", "B", {"o": [(0, 0)], "D": [(0, 1)]}),
        ("B", "B", {"o": [(0, 1)], "D": [(1, 1)]}),
        (None, "B", {"D": [(0, 1)]}),
    ],
)
def test_the_guessed_option_and_the_right_one_are_marked_in_their_rows(ax, guess, right, found):
    draw_guessed_option(ax, OPTIONS, guess, right)
    assert marks(ax) == found
    words = {"o": "your guess", "D": "right"}
    assert [text.get_text() for text in ax.texts] == [words[mark] for mark in found]
    low, high = ax.get_ylim()
    assert low > high, "the first option is the uppermost"
    assert [label.get_text() for label in ax.get_yticklabels()] == [*OPTIONS]


def test_a_dollar_is_a_dollar():
    for draw in (
        lambda ax: draw_guessed_option(ax, ("$_{$", "B"), None, None),
        lambda ax: draw_words(ax, rows_of_words("$_{$", ["$^{$"])),
    ):
        assert drawn(draw)


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("values", [(400, 432), (1, 835456), (0.001, 0.2)])
def test_a_guessed_number_and_its_result_are_at_their_places(ax, values, log):
    draw_guessed_number(ax, *values, unit="MB", log=log)
    found = marks(ax)
    assert (found["o"], found["D"]) == ([(values[0], 0)], [(values[1], 1)])
    low, high = ax.get_xlim()
    assert low < min(values) and max(values) < high
    assert ax.get_xscale() == ("log" if log else "linear")
    assert ax.get_xlabel() == ("MB (log scale)" if log else "MB")


@pytest.mark.parametrize("values", [(0, 5), (-3, 5), (-3, -1), (0, 0)])
def test_numbers_that_are_not_positive_have_a_place_too(ax, values):
    draw_guessed_number(ax, *values)
    low, high = ax.get_xlim()
    assert low <= min(0, *values) and max(0, *values) < high


def test_without_a_guess_there_is_the_result_alone(ax):
    draw_guessed_number(ax, None, 835456)
    assert [*marks(ax)] == ["D"]
    assert [text.get_text() for text in ax.texts] == ["result 835,456"]


def test_a_guessed_curve_and_the_measured_one_are_at_their_places(ax):
    draw_guessed_curve(ax, ["1", "8"], [0.2, 0.4], [0.5, 0.9], bounds=(0, 1), x="rank", y="match")
    assert marks(ax) == {"o": [(0, 0.2), (1, 0.4)], "D": [(0, 0.5), (1, 0.9)]}
    assert {"1", "8", "rank", "match", "your guess", "result"} <= set(texts(ax))


@pytest.mark.parametrize("log", [True, False])
def test_a_curve_s_axis_stretches_to_what_lies_outside_its_bounds(ax, log):
    draw_guessed_curve(ax, ["1", "8"], [0.2, 0.4], [0.005, 30], bounds=(0.1, 1), log=log)
    low, high = ax.get_ylim()
    assert low < 0.005 and high > 30
    assert ax.get_yscale() == ("log" if log else "linear")


def test_a_curve_s_axes_stand_still_while_it_moves(ax):
    for height in (0.2, 0.9):
        draw_guessed_curve(ax, ["1", "8"], [height, 0.4], None, bounds=(0, 1))
        assert marks(ax) == {"o": [(0, height), (1, 0.4)]}


def test_guess_and_result_have_the_colours_of_what_was_expected_and_of_what_was_found():
    png = drawn(lambda ax: draw_guessed_number(ax, 1, 2))
    assert inked(png, "expected") > 30 and inked(png, "own") > 30


# Words


def test_words_are_cut_into_rows_and_none_is_lost():
    title, line = "what is it? " * 20, "a long answer of many words " * 20
    rows = rows_of_words(title, [line])
    assert " ".join(" ".join(row.split()) for row, _ in rows).split() == (title + line).split()
    assert max(len(row) for row, _ in rows) <= 84
    assert rows[0][1] > rows[-1][1]


def test_words_stand_one_below_the_other_within_the_axes(ax):
    rows = rows_of_words("title", ["one", "two"])
    draw_words(ax, rows)
    heights = [text.get_position()[1] for text in ax.texts]
    assert heights == sorted(set(heights))
    low, high = sorted(ax.get_ylim())
    assert low < min(heights) and max(heights) < high
