"""A guess comes before its result: kept on a press, shown beside it, closed once it is seen."""

import re

import pytest
from explorables import look

from lorakit.answers import Answers, kept
from lorakit.plots import figure
from lorakit.widgets import Choice, Number, Predictions, Sketch, answering, explorable
from lorakit.widgets.cells import Cell
from lorakit.widgets.predict import as_number

OPTIONS = ["A", "B", "both"]
RANKS = (1, 8, 64)


@pytest.fixture(autouse=True)
def answers():
    kept.cache_clear()
    yield kept()
    kept.cache_clear()


def choice() -> Choice:
    return Choice("02/first", "Which moves first?", OPTIONS)


def number(**options) -> Number:
    return Number("05/peak", "How much at the peak?", "MB", **options)


def sketch(**options) -> Sketch:
    options = {"x": RANKS, "y": (0, 1), "x_label": "rank", "y_label": "exact match"} | options
    return Sketch("04/ranks", "How does it go on?", **options)


# A kind: how it is made, how it is answered, what is said then, and a result.
KINDS = {
    "choice": (choice, lambda c: setattr(c.choice, "value", "A"), "A", "B"),
    "number": (number, lambda n: setattr(n.box, "value", "40"), 40.0, 10.0),
    "sketch": (
        sketch,
        lambda s: setattr(s.sliders[2], "value", 0.75),
        (("1", 0.5), ("8", 0.5), ("64", 0.75)),
        {1: 0.25, 8: 0.5, 64: 1.0},
    ),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def answered(kind):
    make, answer, *_ = kind
    made = make()
    answer(made)
    made.keep.click()
    return made


def says(made) -> str:
    """The line beside the button, without its tags."""
    return re.sub("<[^>]+>", "", made.line.value)


def on_show(reveal) -> tuple[bool, bool]:
    """Whether the result can be seen, and whether the page offers to show it."""
    return reveal.picture.layout.display != "none", reveal.row.layout.display != "none"


# Keeping a guess


def test_before_the_press_nothing_is_kept(kind, answers):
    make, answer, *_ = kind
    made = make()
    answer(made)
    assert answers.keys() == []
    assert says(made) == ""


def test_a_press_keeps_what_the_controls_say_and_tells_so(kind):
    made = answered(kind)
    assert made.prediction.guess == kind[2]
    assert says(made) == f"kept: {made.prediction.said}"
    assert 'role="status"' in made.line.value


def test_a_guess_may_be_changed_until_the_result_is_seen():
    made = answered(KINDS["choice"])
    made.choice.value = "both"
    assert made.prediction.guess == "A"
    made.keep.click()
    assert made.prediction.guess == "both"
    assert says(made) == "kept: both"


def test_in_another_kernel_the_controls_say_what_was_kept(kind):
    answered(kind).close()
    again = kind[0]()
    assert again.said() == kind[2]
    assert says(again) == f"kept: {again.prediction.said}"


def test_another_question_s_guess_leaves_a_choice_that_is_not_kept_yet():
    first = answered(KINDS["choice"])
    first.choice.value = "both"
    answered(KINDS["number"])
    assert first.choice.value == "both"


def test_a_number_is_sent_whole():
    """Digit by digit, a quick press of the button would keep the first ones alone."""
    assert not number().box.continuous_update


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (choice, "nothing is chosen yet: choose an option, then keep it"),
        (number, "a number is asked for, such as 1,200 or 0.5 or 3e6, got ''"),
    ],
)
def test_no_guess_is_told_in_the_explorable(made, match, monkeypatch, answers):
    monkeypatch.delenv("LORAKIT_TEST")
    made = made()
    made.keep.click()
    assert match in made.error.value.replace("&#x27;", "'")
    assert answers.keys() == []


@pytest.mark.parametrize("text", ["-3", "0"])
def test_on_a_log_axis_a_guess_is_above_zero(text):
    made = number(log=True)
    made.box.value = text
    made.keep.click()
    assert "a guess on a log axis is above zero, got" in made.error.value
    assert made.prediction.guess is None
    made.box.value = "0.5"
    made.keep.click()
    assert made.prediction.guess == 0.5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1200", 1200),
        (" 1,200 ", 1200),
        ("1,234,567.5", 1234567.5),
        ("0.5", 0.5),
        (".5", 0.5),
        ("-2", -2),
        ("+2", 2),
        ("3e6", 3e6),
        ("1.5E-3", 0.0015),
    ],
)
def test_a_number_may_be_written_in_many_ways(text, value):
    assert as_number(text) == value


@pytest.mark.parametrize(
    "text", ["", " ", "many", "1,5", "12,34", ",5", "1 200", "1.2.3", "e5", ".", "+", "nan", "inf",
             "0x10", "1_000", "1e999"]
)  # fmt: skip
def test_what_could_be_read_in_two_ways_or_in_none_is_no_number(text):
    with pytest.raises(ValueError, match=re.escape(f"got {text.strip()!r}")):
        as_number(text)


# The result


def test_the_result_waits_for_the_guess(kind):
    make, answer, said, result = kind
    made = make()
    reveal = made.reveal(result)
    assert on_show(reveal) == (False, True)
    answer(made)
    assert on_show(reveal) == (False, True)
    made.keep.click()
    assert on_show(reveal) == (True, False)
    assert reveal.picture.text == made.prediction.sentence
    assert made.prediction.guess == said


def test_a_guess_that_is_there_already_meets_its_result_at_once(kind):
    reveal = answered(kind).reveal(kind[3])
    assert on_show(reveal) == (True, False)
    assert reveal.picture.text.startswith("you said ")


def test_show_me_shows_the_result_and_closes_the_question(kind):
    make, _, _, result = kind
    made = make()
    reveal = made.reveal(result)
    reveal.show_me.click()
    assert on_show(reveal) == (True, False)
    assert reveal.picture.text.startswith("no guess was made, the result is ")
    assert says(made) == "the result was seen without a guess"
    assert all(control.disabled for control in (*made.controls, made.keep))


def test_a_guess_after_the_result_is_none():
    made = choice()
    made.reveal("B").show_me.click()
    made.choice.value = "B"
    made._keep()  # as from a page that has not heard of it
    assert made.prediction.guess is None


def test_a_curve_that_is_closed_has_handles_that_are_seen():
    made = sketch()
    assert not any(slider.style.handle_color for slider in made.sliders)
    made.reveal(dict.fromkeys(RANKS, 0.5)).show_me.click()
    assert all(slider.style.handle_color for slider in made.sliders)


def test_a_seen_result_closes_the_question_also_in_another_kernel(kind):
    made = answered(kind)
    made.reveal(kind[3])
    again = kind[0]()
    assert all(control.disabled for control in (*again.controls, again.keep))
    assert says(again) == f"kept: {again.prediction.said}; the result is known"
    assert again.prediction.result is not None


def test_the_pictures_of_a_guess_and_of_none_differ():
    made = choice()
    reveal = made.reveal("B")
    without = look(reveal)
    made.choice.value = "A"
    made.keep.click()
    assert look(reveal)[0][0] != without[0][0]


def test_a_reset_opens_the_question_and_hides_the_result(kind, answers):
    made = answered(kind)
    reveal = made.reveal(kind[3])
    answers.reset()
    assert on_show(reveal) == (False, True)
    assert not any(control.disabled for control in (*made.controls, made.keep))
    assert says(made) == ""
    made.keep.click()
    assert on_show(reveal) == (True, False)


def test_a_result_that_comes_out_otherwise_takes_the_earlier_one_s_place():
    made = answered(KINDS["choice"])
    made.reveal("B")
    assert made.reveal("A").picture.text == "you said A, the result is A: right"
    assert made.prediction.result == "A"


def test_two_results_of_one_question_on_a_page_do_not_chase_each_other():
    made = choice()
    first, second = made.reveal("A"), made.reveal("B")
    made.choice.value = "A"
    made.keep.click()
    assert first.picture.text == "you said A, the result is A: right"
    assert second.picture.text == "you said A, the result is B: not right"


@pytest.mark.parametrize(
    ("made", "result", "match"),
    [
        (choice, "C", r"'C' is none of the options \['A', 'B', 'both'\]"),
        (number, float("nan"), "no such number: nan"),
        (number, float("inf"), "no such number: inf"),
        (lambda: number(log=True), 0, "no such number: 0"),
        (sketch, {1: 0.5, 64: 0.5}, "guessed at 8 too: measure there"),
        (sketch, {1: 0.5, 8: float("nan"), 64: 0.5}, "measured at 8 has no place: nan"),
        (lambda: sketch(y=(0.1, 1), log=True), {1: 1, 8: 1, 64: 0}, "at 64 has no place: 0"),
    ],
)
def test_a_result_that_the_question_cannot_have_is_refused(made, result, match, answers):
    made = made()
    with pytest.raises(ValueError, match=match):
        made.reveal(result)
    assert answers.keys() == []


# A curve


def test_a_curve_begins_flat_in_the_middle_and_follows_its_sliders():
    made = sketch()
    assert made.said() == (("1", 0.5), ("8", 0.5), ("64", 0.5))
    flat = made.picture.value
    made.sliders[1].value = 1
    assert made.picture.value != flat
    assert made.picture.text == "your curve: 1: 0.5, 8: 1, 64: 0.5"
    made.sliders[1].value = 0.5
    assert made.picture.value == flat


def test_on_a_log_axis_the_middle_is_the_geometric_mean():
    made = sketch(y=(0.01, 1), log=True)
    assert made.said()[0][1] == pytest.approx(0.1)
    assert (made.sliders[0].min, made.sliders[0].max) == pytest.approx((-2, 0))


def test_more_places_than_were_guessed_may_be_measured():
    made = sketch(x=(1, 8))
    assert made.measured({0.5: 9, 8: 0.2, 1: 0.1}) == (("1", 0.1), ("8", 0.2))


def test_a_place_may_be_a_word():
    made = sketch(x=("q, v", "all"))
    assert made.measured({"all": 1, "q, v": 0}) == (("q, v", 0.0), ("all", 1.0))


# What cannot be asked


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Choice("02/a", "?", ["A"]), r"at least two options, all different, got \['A'\]"),
        (lambda: Choice("02/a", "?", ["A", "B", "A"]), "all different"),
        (lambda: Choice("", "?", OPTIONS), "a key is a page and a name, such as '02/changed', got"),
        (lambda: Choice("predict/02/a", "?", OPTIONS), "got 'predict/02/a'"),
        (lambda: sketch(x=(1,)), "at least two places, all different"),
        (lambda: sketch(x=(1, 1.0)), "at least two places, all different"),
        (lambda: sketch(y=(1, 1)), r"from a lower to a higher number, got \(1, 1\)"),
        (lambda: sketch(y=(0, 1), log=True), r"higher number above zero, got \(0, 1\)"),
    ],
)
def test_what_is_no_question_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    "found", ["A", 3, {"question": "q", "guess": "C", "result": None}, {"guess": "A"}]
)
def test_what_is_kept_and_is_no_guess_of_this_question_is_passed_over(answers, found):
    answers.set("predict/02/first", found)
    made = choice()
    assert made.prediction.guess is None
    made.choice.value = "B"
    made.keep.click()
    assert made.prediction.guess == "B"


def test_a_curve_kept_at_other_places_is_passed_over():
    answered(KINDS["sketch"])
    assert sketch(x=(1, 2, 64)).prediction.guess is None


def test_the_question_of_today_is_kept_with_the_guess_of_yesterday():
    answered(KINDS["choice"])
    made = Choice("02/first", "Which one moves first?", OPTIONS)
    made.reveal("B")
    assert kept().get("predict/02/first")["question"] == "Which one moves first?"
    assert made.prediction.guess == "A"


# On the page


def test_its_stored_form_never_changes_and_has_a_picture(kind):
    make, _, _, result = kind
    made = make()
    question = made.prediction.question
    open_ = made._repr_mimebundle_(), made.reveal(result)._repr_mimebundle_()
    answered(kind)
    after = made._repr_mimebundle_(), made.reveal(result)._repr_mimebundle_()
    for bundles in (open_, after):
        assert bundles[0]["text/plain"] == f"explorable: a guess: {question}"
        assert bundles[1]["text/plain"] == f"explorable: guess and result: {question}"
        assert all(bundle["image/png"] for bundle in bundles)


@pytest.mark.parametrize("make", [choice, number, Predictions])
def test_what_controls_say_is_drawn_for_stored_pages_alone(make):
    (still,) = make().pictures
    assert still.layout.display == "none"
    assert still.value


def test_a_stored_page_has_the_result_in_its_picture(kind, monkeypatch):
    drawn = []
    made = kind[0]()
    monkeypatch.setattr(made, "draw", lambda ax, guess, result: drawn.append((guess, result)))
    made.reveal(kind[3])
    assert drawn == [(None, made.measured(kind[3]))]


def test_a_question_is_text_and_not_html():
    made = Choice("02/a", "Is <b> bold & $1?", ["<i>", "&"])
    assert "Is &lt;b&gt; bold &amp; $1?" in made.children[0].value
    made.choice.value = "<i>"
    made.keep.click()
    assert "kept: &lt;i&gt;" in made.line.value


def test_a_cell_run_again_closes_the_guess_and_nobody_calls_it_any_more(monkeypatch, answers):
    monkeypatch.setattr(explorable, "current_cell", lambda: Cell("a", 1))
    first = choice()
    reveal = first.reveal("B")
    monkeypatch.setattr(explorable, "current_cell", lambda: Cell("a", 2))
    second = choice()
    assert first.comm is None and reveal.comm is None
    assert answers._watchers == [second.refresh]


def test_closed_with_the_page_nothing_is_watched(answers):
    for made in (choice(), number(), sketch()):
        made.close()
    reveal = choice().reveal("B")
    reveal.guess.close()
    reveal.close()
    Predictions().close()
    assert answers._watchers == []


def test_a_reveal_whose_guess_cell_ran_again_hears_of_the_new_guess():
    first = choice()
    reveal = first.reveal("B")
    first.close()
    answered(KINDS["choice"])
    assert on_show(reveal) == (True, False)


# The replay


def test_the_replay_lists_every_guess_beside_its_result():
    for made in KINDS.values():
        answered(made).reveal(made[3])
    replay = Predictions()
    rows = re.findall("<tr>(<td>.*?)</tr>", replay.table.value)
    assert [re.findall("<td>(.*?)</td>", row) for row in rows] == [
        ["Which moves first?", "A", "B", "not right"],
        [
            "How does it go on?",
            "1: 0.5, 8: 0.5, 64: 0.75",
            "1: 0.25, 8: 0.5, 64: 1",
            "off by 0.25 (median of 3 points), by 0.25 at 1; "
            "from 1 to 64 yours rises by 0.25, the result rises by 0.75",
        ],
        ["How much at the peak?", "40 MB", "10 MB", "4.0 times too high"],
    ]
    assert replay.line.value == (
        "3 of 3 results guessed before they were seen, 0 of 1 choices right, "
        "0 of 1 numbers within a factor of 2"
    )


def test_the_replay_follows_what_is_kept_and_knows_what_was_not_guessed():
    replay = Predictions()
    assert (replay.table.value, replay.line.value) == ("", "no prediction is kept yet")
    choice().reveal("B").show_me.click()
    assert "<td>no guess was made</td><td>B</td><td></td>" in replay.table.value
    assert replay.line.value == "0 of 1 results guessed before they were seen"


def test_the_replay_of_a_page_leaves_the_others_out():
    answered(KINDS["choice"])
    answered(KINDS["number"])
    assert Predictions("05/").table.value.count("<tr><td>") == 1


def test_the_replay_of_another_kernel_has_all_that_was_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(answering, "kept", lambda: Answers(tmp_path / "answers.json"))
    answered(KINDS["choice"]).reveal("B")
    assert "<td>A</td><td>B</td><td>not right</td>" in Predictions().table.value


def test_the_replay_is_a_table_of_text_with_headers_and_a_caption():
    made = Choice("02/a", "<script>?", ["<A>", "B"])
    made.choice.value = "<A>"
    made.keep.click()
    table = Predictions().table.value
    assert "&lt;script&gt;?" in table and "<script>" not in table
    assert table.count('<th scope="col">') == 4 and "<caption>" in table


def test_the_replay_s_stored_form_never_changes_and_has_a_picture():
    before = Predictions()._repr_mimebundle_()
    answered(KINDS["choice"]).reveal("B")
    after = Predictions()._repr_mimebundle_()
    assert before["text/plain"] == after["text/plain"] == "explorable: guesses and results"
    assert before["image/png"] != after["image/png"]


def test_the_drawing_of_a_guess_makes_no_figure_of_its_own(kind):
    made = kind[0]()
    _, ax = figure(300, 200)
    made.draw(ax, None, made.measured(kind[3]))
    assert ax.get_children()
