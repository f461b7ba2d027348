"""The teacher's screen without a browser: frames, the room's counts, what is hidden at first."""

import re
import time
from dataclasses import replace

import pytest

from lorakit.answers import Answers
from lorakit.widgets import Handshake, Job
from lorakit.widgets.stage import Frame, Stage
from lorakit.widgets.stage_page import KEYS, STYLE

FRAME = Frame(
    key="one",
    page="01",
    question="How many < all?",
    options=("a few", "half", "all & more"),
    right=1,
    answer="Half > none.",
    explorable=Handshake,
)


def frames(*explorables) -> list[Frame]:
    return [replace(FRAME, key=str(n), explorable=make) for n, make in enumerate(explorables)]


@pytest.fixture
def stage() -> Stage:
    return Stage(frames(Handshake, Handshake, Handshake))


def shown_text(view) -> str:
    return " ".join([*(bar.value for bar in view.bars), view.room.value, view.answer.value])


# A frame


@pytest.mark.parametrize("options", [(), ("one",), ("same", "same")])
def test_options_are_two_or_more_that_differ(options):
    with pytest.raises(ValueError, match="options must be two or more that differ, got"):
        replace(FRAME, options=options)


@pytest.mark.parametrize("right", [-1, 3])
def test_the_right_option_is_one_of_them(right):
    with pytest.raises(ValueError, match=f"one of 3 options, got {right}"):
        replace(FRAME, right=right)


# Guesses


def test_an_option_has_a_count_of_its_own_letter(stage):
    assert [count.description for count in stage.view.counts] == ["A", "B", "C"]


def test_bars_are_as_long_as_the_counts_and_the_longest_fills_its_place(stage):
    for count, guesses in zip(stage.view.counts, (5, 0, 20), strict=True):
        count.value = guesses
    widths = [re.search(r"width: ([\d.]+)%", bar.value)[1] for bar in stage.view.bars]
    assert widths == ["25.0", "0.0", "100.0"]


def test_counts_are_told_in_words(stage):
    assert stage.view.text == "no guesses yet"
    stage.view.counts[0].value, stage.view.counts[1].value = 5, 7
    assert stage.view.text == "12 guesses: A 5, B 7, C 0"


def test_questions_options_and_answers_are_letters_and_no_html(stage):
    stage.reveal.click()
    assert "all &amp; more" in stage.view.bars[2].value
    assert stage.view.answer.value == "<p>Half &gt; none.</p>"


def test_counts_and_the_frame_on_show_are_found_again_by_a_page_that_is_opened_anew(tmp_path):
    room = tmp_path / "room.json"
    stage = Stage(frames(Handshake, Handshake), Answers(room))
    stage.next.click()
    stage.view.counts[1].value = 7
    again = Stage(frames(Handshake, Handshake), Answers(room))
    assert again.place == 1
    assert [count.value for count in again.view.counts] == [0, 7, 0]
    assert again.view.text == "7 guesses: A 0, B 7, C 0"
    again.back.click()
    assert again.view.text == "no guesses yet"


@pytest.mark.parametrize("counts", [[1, 2], ["1", 2, 3], [[1], 2, 3], "123", 7, None, {"A": 1}])
def test_kept_counts_that_are_not_this_frame_s_are_none(counts):
    kept = Answers()
    kept.set("counts/0", counts)
    assert [count.value for count in Stage(frames(Handshake), kept).view.counts] == [0, 0, 0]


@pytest.mark.parametrize(
    ("place", "shown"), [(1, 1), (9, 2), (-4, 0), ("1", 0), (1.5, 0), ([1], 0), (None, 0)]
)
def test_a_kept_place_that_is_none_is_the_first(place, shown):
    kept = Answers()
    kept.set("place", place)
    assert Stage(frames(Handshake, Handshake, Handshake), kept).place == shown


def test_counts_that_cannot_be_kept_are_shown_and_the_stage_says_why(stage, monkeypatch):
    def full(key, value):
        raise OSError("no room")

    monkeypatch.setattr(stage._kept, "set", full)
    monkeypatch.delenv("LORAKIT_TEST")
    stage.view.counts[0].value = 3
    assert stage.view.text == "3 guesses: A 3, B 0, C 0"
    assert "no room" in stage.error.value


# Reveal


def test_nothing_tells_the_answer_before_it_is_revealed(stage):
    assert "right" not in shown_text(stage.view)
    assert "none" not in shown_text(stage.view)
    assert not [child for child in stage.view.pane.children if isinstance(child, Handshake)]


def test_revealed_the_right_option_alone_is_marked_in_words_and_by_a_line(stage):
    stage.reveal.click()
    marked = ["right" in bar.value for bar in stage.view.bars]
    assert marked == ["outline" in bar.value for bar in stage.view.bars] == [False, True, False]


def test_revealed_the_room_is_told_how_many_were_right(stage):
    stage.view.counts[0].value, stage.view.counts[1].value = 5, 7
    stage.reveal.click()
    assert stage.view.text == "12 guesses: A 5, B 7, C 0. B is right: 7 of 12"


def test_the_explorable_is_there_once_revealed_and_made_once(stage):
    stage.reveal.click()
    (explorable,) = stage.view.pane.children
    assert isinstance(explorable, Handshake)
    stage.reveal.click()
    stage.reveal.click()
    assert stage.view.pane.children == (explorable,)


def test_reveal_hides_again(stage):
    stage.reveal.click()
    assert "stage-revealed" in stage.view._dom_classes
    stage.reveal.click()
    assert "stage-revealed" not in stage.view._dom_classes
    assert "right" not in shown_text(stage.view)


def test_an_explorable_that_fails_tells_why_and_the_next_frame_goes_on():
    stage = Stage(frames(lambda: 1 / 0, Handshake))
    stage.reveal.click()
    assert "ZeroDivisionError" in stage.error.value
    stage.next.click()
    assert stage.error.value == ""
    stage.reveal.click()
    assert isinstance(stage.view.pane.children[0], Handshake)


# Steps


def test_frames_are_stepped_through_there_and_back_and_end_at_the_ends(stage):
    stage.back.click()
    places = [stage.place]
    for button in (stage.next, stage.next, stage.next, stage.back):
        button.click()
        places.append(stage.place)
    assert places == [0, 1, 2, 2, 1]
    assert stage.where.value == "2 of 3, page 01"


def test_a_run_of_a_frame_that_is_left_is_stopped():
    stage = Stage(frames(lambda: Job([], [], alt="a run"), Handshake))
    stage.reveal.click()
    job = stage.made[0]
    assert not job.stopping()
    stage.next.click()
    assert job.stopping()


def test_the_ends_say_so(stage):
    assert (stage.back.disabled, stage.next.disabled) == (True, False)
    stage.go(2)
    assert (stage.back.disabled, stage.next.disabled) == (False, True)


def test_a_frame_is_found_as_it_was_left(stage):
    stage.view.counts[2].value = 9
    stage.reveal.click()
    left = shown_text(stage.view)
    stage.next.click()
    assert stage.reveal.description == "Reveal"
    stage.back.click()
    assert shown_text(stage.view) == left
    assert stage.reveal.description == "Hide"


def test_a_stage_without_frames_is_refused():
    with pytest.raises(ValueError, match="a stage needs a frame"):
        Stage([])


def test_closed_it_closes_what_it_made_and_every_view(stage):
    stage.reveal.click()
    views = [stage.view]
    stage.next.click()
    views.append(stage.view)
    explorable = stage.made[0]
    stage.close()
    assert explorable.comm is None
    assert all(view.comm is None and view.counts[0].comm is None for view in views)


# In a thread, as on a page


@pytest.fixture
def on_a_page(monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST")


def ended(stage: Stage) -> Stage:
    stage._maker.join(60)
    assert not stage._maker.is_alive()
    return stage


def test_every_explorable_is_made_ahead_in_the_order_of_the_frames(on_a_page):
    order = []
    makers = [lambda n=n: order.append(n) or Handshake() for n in range(3)]
    stage = ended(Stage(frames(*makers)))
    assert order == [*stage.made] == [0, 1, 2]
    assert stage.views[0].pane.children[0] is not stage.made[0], "hidden until it is revealed"


def test_what_is_revealed_before_it_is_made_is_shown_when_it_is(on_a_page):
    def slow():
        time.sleep(0.3)
        return Handshake()

    stage = Stage(frames(slow))
    stage.reveal.click()
    assert stage.made == {}
    ended(stage)
    assert stage.view.pane.children == (stage.made[0],)


def test_one_that_fails_ahead_is_told_where_it_is_revealed_and_stops_no_other(on_a_page):
    stage = ended(Stage(frames(lambda: 1 / 0, Handshake)))
    assert stage.error.value == ""
    assert [*stage.made] == [1]
    stage.reveal.click()
    assert "ZeroDivisionError" in stage.error.value


def test_closed_it_makes_no_more(on_a_page):
    made = []

    def slow():
        made.append(1)
        time.sleep(0.3)
        return Handshake()

    stage = Stage(frames(slow, slow, slow))
    stage.close()
    ended(stage)
    assert len(made) <= 1


# The page


def test_every_count_has_its_letter_as_a_key(stage):
    for letter, count in zip("abc", stage.view.counts, strict=True):
        assert f"stage-count-{letter}" in count._dom_classes
    assert ".stage-count-${CSS.escape(pressed)} input" in KEYS


def test_a_run_has_a_key_that_starts_it_and_one_that_stops_it():
    job = Job([], [], alt="a run")
    assert job.start.button_style == "primary"
    assert 'l: ".stage-revealed .stage-pane button.mod-primary"' in KEYS
    assert "job-stop" in job.stop._dom_classes
    assert 's: ".stage-revealed .stage-pane button.job-stop"' in KEYS


def test_the_keys_are_on_show(stage):
    (line,) = (child for child in stage.bar.children if "stage-keys" in child._dom_classes)
    for words in ("A to D counts", "R reveal", "L run", "S stop"):
        assert words in line.value


@pytest.mark.parametrize("name", ["next", "back", "reveal"])
def test_every_key_has_its_button(stage, name):
    assert f"stage-{name}" in getattr(stage, name)._dom_classes
    assert f'".stage-{name}"' in KEYS


def test_the_style_speaks_of_classes_that_are_there(stage):
    stage.reveal.click()
    used = set(re.findall(r"\.(stage[\w-]*)", STYLE))
    widgets = [stage, stage.window, stage.view, stage.view.pane]
    widgets += stage.view.children[0].children
    there = {name for widget in widgets for name in widget._dom_classes}
    there |= set(re.findall(r'class="([\w-]+)', stage.view.bars[0].value))
    there |= {name for child in stage.bar.children for name in child._dom_classes}
    assert used <= there
