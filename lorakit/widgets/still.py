"""What controls say, as a picture out of sight: for readers of a page without a kernel."""

from collections.abc import Sequence

from lorakit.plots.guesses import draw_words, rows_of_words
from lorakit.widgets.picture import Picture


def still(title: str, lines: Sequence[str] = ()) -> Picture:
    """A picture of words that a live page does not show, and a static page does.

    It goes among the children of an explorable, whose output it travels in.
    """
    rows = rows_of_words(title, lines)
    picture = Picture(760, 24 * len(rows) + 24, alt=title)
    picture.layout.display = "none"
    with picture.drawing() as ax:
        draw_words(ax, rows)
    return picture
