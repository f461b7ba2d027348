"""How far somebody has come with the quiz, topic by topic."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lorakit.plots.style import COLORS, EDGE, SMALL, STILL, dress
from lorakit.quiz_score import TopicScore

# What is meant stands in hatches and in words as well as in colours.
STATES: dict[str, dict[str, Any]] = {
    "right at first": {"facecolor": COLORS["own"]},
    "right later": {"facecolor": "white", "hatch": "///"},
    "to come back": {"facecolor": "white", "hatch": "xx"},
    "not asked yet": {"facecolor": STILL},
}


def draw_topics(ax: Axes, scores: Sequence[TopicScore]) -> None:
    """One bar a topic, from the top: its questions by how they were answered."""
    names = [score.topic for score in scores]
    left = [0] * len(scores)
    for state, look in STATES.items():
        widths = [
            {
                "right at first": score.first,
                "right later": score.later,
                "to come back": score.wrong,
                "not asked yet": score.open,
            }[state]
            for score in scores
        ]
        edge = COLORS["own"] if state.startswith("right") else EDGE
        ax.barh(names, widths, left=left, label=state, edgecolor=edge, **look)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    for place, score in enumerate(scores):
        told = f" {score.right} of {score.items} right"
        ax.text(score.items, place, told, va="center", fontsize=SMALL)
    ax.set_xlim(0, 1.3 * max(score.items for score in scores))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.invert_yaxis()
    dress(ax, x="questions", loc="upper center", bbox_to_anchor=(0.45, -0.14), ncols=len(STATES))
