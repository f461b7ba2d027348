"""The replay at the end of a page: every guess beside what came out, and how many were near."""

import html

import ipywidgets

from lorakit.predictions import Prediction, read, summary
from lorakit.widgets.answering import Answering
from lorakit.widgets.explorable import shown
from lorakit.widgets.guess import ROOM
from lorakit.widgets.still import still

COLUMNS = ("question", "your guess", "result", "how far off")


class Predictions(Answering):
    """The kept predictions whose keys begin with `prefix`, "02/" for a page's, as a table.

    They are those of the answers, so also those of other pages and of kernels that have ended. It
    follows what is kept while it is on show.
    """

    def __init__(self, prefix: str = ""):
        self.prefix = ROOM + prefix
        self.table, self.line = ipywidgets.HTML(), ipywidgets.Label()
        found = read(self.answers, self.prefix)
        lines = [line for p in found.values() for line in (p.question, f"- {p.sentence}")]
        words = still(summary(found), lines)
        super().__init__([self.table, self.line, words], alt="explorable: guesses and results")
        self.follow()

    @shown
    def refresh(self) -> None:
        found = read(self.answers, self.prefix)
        self.table.value = as_table([row(p) for p in found.values()])
        self.line.value = summary(found)


def row(prediction: Prediction) -> tuple[str, str, str, str]:
    """Question, guess, result, how far off: in words."""
    p = prediction
    return p.question, p.said, p.found, p.verdict


def as_table(rows: list[tuple[str, str, str, str]]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in COLUMNS)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells in rows
    )
    return (
        '<div class="jp-RenderedHTMLCommon"><table><caption>guesses and results</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
