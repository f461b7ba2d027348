"""A guess beside what came out."""

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from lorakit.plots.style import COLORS, EDGE, LARGE, SMALL, dress, frame, log_limits, log_y
from lorakit.predictions import in_words

# Told apart by shape as well as by colour, with an edge that shows on black and on white.
GUESS: dict[str, Any] = {"marker": "o", "markerfacecolor": COLORS["expected"]}
RESULT: dict[str, Any] = {"marker": "D", "markerfacecolor": COLORS["own"]}
MARK: dict[str, Any] = {"markersize": 11, "markeredgecolor": "black", "markeredgewidth": 1}
YOURS, CAME_OUT = "your guess", "result"
LETTERS = 84  # in a line of words as wide as the picture


def draw_guessed_option(
    ax: Axes, options: Sequence[str], guess: str | None, right: str | None
) -> None:
    """The options, which of them was guessed, if any, and which one is right, once known."""
    beside = int(guess == right)  # its mark stands in the same row
    marks = [(YOURS, guess, GUESS, "normal", 0), ("right", right, RESULT, "bold", beside)]
    for name, option, style, weight, column in marks:
        if option is None:
            continue
        place = column, options.index(option)
        ax.plot(*place, linestyle="", **MARK, **style)
        ax.annotate(name, place, (11, 0), textcoords="offset points", va="center", fontsize=SMALL,
                    weight=weight)  # fmt: skip
    ax.set_yticks(
        range(len(options)), [textwrap.fill(option, 48) for option in options], parse_math=False
    )
    ax.set_ylim(len(options) - 0.4, -0.6)
    ax.set_xlim(-0.2, 2)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    dress(ax, x="")


def draw_guessed_number(
    ax: Axes, guess: float | None, result: float, *, unit: str = "", log: bool = False
) -> None:
    """A guess, if there is one, and the result on one axis; with `log` both are above zero."""
    marks = [(YOURS, guess, GUESS), (CAME_OUT, result, RESULT)]
    seen = [value for _, value, _ in marks if value is not None]
    low, high = min(0, *seen), max(0, *seen)
    if log:
        low, high = min(seen) / 10, max(seen) * 10
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    room = 0.25 * (high - low or 1)
    ax.set_xlim((low, high) if log else (low - room * (low < 0), high + room))
    for row, (name, value, style) in enumerate(marks):
        if value is None:
            continue
        ax.plot([value], [row], linestyle="", clip_on=False, **MARK, **style)
        side, shift = ("left", -6) if not log and value < room / 2 else ("center", 0)
        text = f"{name} {in_words(value)}"
        ax.annotate(text, (value, row), (shift, 11), textcoords="offset points", ha=side,
                    fontsize=SMALL)  # fmt: skip
    ax.set_ylim(1.5, -0.9)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    dress(ax, x=f"{unit} (log scale)".strip() if log else unit)


def draw_guessed_curve(
    ax: Axes,
    places: Sequence[str],
    guess: Sequence[float] | None,
    result: Sequence[float] | None,
    *,
    bounds: tuple[float, float],
    x: str = "",
    y: str = "",
    log: bool = False,
) -> None:
    """The curve that was guessed, if any, and the result, over evenly spaced places.

    The y axis has `bounds`, or wider ones where a point lies outside.
    """
    seen = [*bounds, *(guess or ()), *(result or ())]
    limits = log_limits(seen) if log else (min(seen), max(seen))
    with frame(ax, tuple(places), limits, x, y, log) as bare:
        if bare:
            ax.set_xlim(-0.5, len(places) - 0.5)
            ax.set_xticks(range(len(places)), places)
            if log:
                log_y(ax, *limits)
            else:
                room = 0.04 * (limits[1] - limits[0])
                ax.set_ylim(limits[0] - room, limits[1] + room)
            ax.grid(axis="y", color="#e8e8e8")
            ax.set_axisbelow(True)
            dress(ax, x=x, y=f"{y} (log scale)" if log else y)
    drawn = [(YOURS, guess, GUESS, "--"), (CAME_OUT, result, RESULT, "-")]
    for name, values, style, line in drawn:
        if values is not None:
            ax.plot(range(len(places)), values, line, color=EDGE, label=name, **MARK, **style)
    if guess is not None or result is not None:
        ax.legend(frameon=False, fontsize=SMALL, loc="best")


def rows_of_words(title: str, lines: Sequence[str]) -> list[tuple[str, int]]:
    """A title and lines below it, cut into rows for `draw_words`, each with its size in points."""
    rows = [(row, LARGE) for row in textwrap.wrap(title, LETTERS - 12)]
    for line in lines:
        rows += [(row, SMALL) for row in textwrap.wrap(line, LETTERS, subsequent_indent="    ")]
    return rows


def draw_words(ax: Axes, rows: Sequence[tuple[str, int]]) -> None:
    """What controls say, for readers of a page that has none."""
    ax.set_axis_off()
    ax.set_ylim(len(rows), 0)
    for place, (row, points) in enumerate(rows):
        ax.text(0, place + 0.5, row, fontsize=points, va="center", parse_math=False)
