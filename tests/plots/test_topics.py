"""The quiz's score by topic: each question once, its state in hatches and words as in colours."""

import pytest
from drawings import texts

from lorakit.plots import draw_topics
from lorakit.plots.topics import STATES
from lorakit.quiz_score import TopicScore

SCORES = (
    TopicScore(topic="LoRA", items=6, first=2, later=1, wrong=1),
    TopicScore(topic="memory", items=3, first=3),
)


@pytest.mark.parametrize(
    ("state", "widths"),
    [
        ("right at first", [2, 3]),
        ("right later", [1, 0]),
        ("to come back", [1, 0]),
        ("not asked yet", [2, 0]),
    ],
)
def test_a_topics_questions_lie_in_a_bar_by_their_state(ax, state, widths):
    draw_topics(ax, SCORES)
    (bars,) = [bars for bars in ax.containers if bars.get_label() == state]
    assert [bar.get_width() for bar in bars] == widths


def test_a_bar_is_as_long_as_a_topic_has_questions(ax):
    draw_topics(ax, SCORES)
    ends = [max(bars[n].get_x() + bars[n].get_width() for bars in ax.containers) for n in (0, 1)]
    assert ends == [6, 3]


def test_what_is_right_is_written_beside_the_bar(ax):
    draw_topics(ax, SCORES)
    assert {" 3 of 6 right", " 3 of 3 right", *STATES} <= set(texts(ax))


def test_states_differ_without_colours():
    looks = [(look.get("hatch"), look["facecolor"] == "white") for look in STATES.values()]
    plain = [look["facecolor"] for look in STATES.values() if not look.get("hatch")]
    assert len(set(looks)) == 3 and len(set(plain)) == 2  # the plain ones: dark, and light grey


def test_the_first_topic_is_uppermost(ax):
    draw_topics(ax, SCORES)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
