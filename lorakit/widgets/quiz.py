"""The quiz: one question at a time, an explanation for every option, and a score by topic.

What is answered is kept at once, and found again after a reload or a restart.
"""

import html
import json
from typing import Any

import ipywidgets

from lorakit.answers import where
from lorakit.plots import draw_topics
from lorakit.quiz import (
    Answer,
    Item,
    Remark,
    check_answer,
    explain,
    is_right,
    quiz_items,
    written,
)
from lorakit.quiz_score import PREFIX, TopicScore, describe, known, scores, upcoming
from lorakit.widgets.answering import Answering
from lorakit.widgets.explorable import close_whole, shown
from lorakit.widgets.glossary import page_link
from lorakit.widgets.picture import Picture
from lorakit.widgets.question import Question
from lorakit.widgets.still import still

# ipywidgets cuts long options off, and gives each the height of one line. Beside the label of a
# number it leaves no room to read the number.
LINES = """<style>
.lorakit-quiz .widget-radio-box label, .lorakit-quiz .widget-checkbox label {
    height: auto; max-width: 100%; white-space: normal; line-height: 1.5; font-size: 15px }
.lorakit-quiz .widget-radio-box, .lorakit-quiz .widget-radio, .lorakit-quiz .widget-checkbox {
    height: auto; margin-bottom: 0 !important }
.lorakit-quiz .widget-radio, .lorakit-quiz .widget-checkbox { width: 100%; max-width: 860px }
.lorakit-quiz .widget-text { width: max-content; max-width: 100% }
.lorakit-quiz .widget-text input { min-width: 160px }
.lorakit-quiz :focus-visible { outline: 2px solid var(--jp-brand-color1, #0072b2) }
</style>"""


class QuizExplorer(Answering):
    """An answer -> `explain` -> words and the score by topic; `upcoming` says what is next.

    A question answered right is shown with its answer; any other one is asked. All answers to a
    question are kept under its key. By default the questions are the lesson's.
    """

    def __init__(self, items: tuple[Item, ...] | None = None):
        self.items = quiz_items() if items is None else items
        self.which = ipywidgets.Dropdown(
            options=[(f"{n}. {item.topic}", item.key) for n, item in enumerate(self.items, 1)],
            description="question",
            style={"description_width": "initial"},
        )
        self.asked = ipywidgets.HTML()
        self.place = ipywidgets.VBox()
        self.check = _button("Check", "check")
        self.next = _button("Next question", "arrow-right")
        self.said = ipywidgets.HTML()
        self.over = _button("Start over", "undo")
        self.sure = _button("Yes, forget all my answers", "trash")
        self.no = _button("No, keep them", "")
        self.where = ipywidgets.HTML(html.escape(where()))
        self._drawn: tuple[TopicScore, ...] = ()
        self._given: list[Any] = []  # the tries at the question on show
        self.picture = Picture(760, 340, alt="the quiz's score by topic")
        super().__init__(
            [
                ipywidgets.HTML(LINES, layout=ipywidgets.Layout(display="none")),
                *(self.which, self.asked, self.place),
                ipywidgets.HBox([self.check, self.next]),
                *(self.said, self.picture),
                ipywidgets.HBox([self.over, self.sure, self.no]),
                self.where,
                still(self.items[0].question, [f"- {o.text}" for o in self.items[0].options]),
            ],
            alt="explorable: questions on the whole lesson",
        )
        self.add_class("lorakit-quiz")
        self._ask_to_forget(False)
        self.which.observe(self._choose, names="value")
        self.check.on_click(self._check)
        self.next.on_click(self._next)
        self.over.on_click(lambda _: self._ask_to_forget(True))
        self.no.on_click(lambda _: self._ask_to_forget(False))
        self.sure.on_click(self._forget)
        first = upcoming(self.items, self.tries()) or self.items[-1]
        self.show(first.key)
        self.follow()

    @property
    def item(self) -> Item:
        """The question on show."""
        return next(item for item in self.items if item.key == self.which.value)

    def tries(self) -> dict[str, list[Any]]:
        """All answers so far that these questions can have, oldest first, by the question's key."""
        everything = json.loads(self.answers.export())
        given = {k.removeprefix(PREFIX): v for k, v in everything.items() if k.startswith(PREFIX)}
        return known(self.items, given)

    def show(self, key: str) -> None:
        """Ask the question of that key, or show it with its answer if that was right."""
        if self.which.value == key:
            self._ask()
        self.which.value = key

    def answer(self, value: Answer) -> bool:
        """Answer the question on show, keep it, and say whether it is right.

        Raises ValueError, and keeps nothing, for what is no answer to it.
        """
        right = is_right(self.item, value)
        self._tell(value)
        self._given = [*self._given, value]
        self.answers.set(PREFIX + self.item.key, self._given)
        return right

    @shown
    def _choose(self, change=None) -> None:
        self._ask()

    def _ask(self) -> None:
        item = self.item
        for earlier in self.place.children:
            close_whole(earlier)
        self.question = Question(item)
        self.place.children = (self.question,)
        number = 1 + self.items.index(item)
        self.asked.value = (
            f"<h3>{number} of {len(self.items)}: {html.escape(item.topic)}</h3>"
            f'<p style="font-size: 16px; max-width: 860px">{html.escape(item.question)}</p>'
        )
        self.said.value = ""
        self.check.disabled = False
        self._given = given = self.tries()[item.key]
        if given and is_right(item, given[-1]):
            self._tell(given[-1])
        elif given:
            self.said.value = _status(f"asked again. Your answer before: {_words(item, given[-1])}")

    @shown
    def _check(self, button=None) -> None:
        try:
            check_answer(self.item, value := self.question.answer())
        except ValueError as error:  # nothing chosen, or no number: to be said, and no fault
            self.said.value = _status(str(error))
        else:
            self.answer(value)

    @shown
    def _next(self, button=None) -> None:
        item = upcoming(self.items, self.tries(), after=self.item.key)
        if item is None:
            self.said.value = _status(
                "all are right. Choose a question above to see its explanation again"
            )
        else:
            self.show(item.key)
            self.question.focus()

    def _tell(self, value: Answer) -> None:
        """Show an answer, and what is to be said of it."""
        item = self.item
        self.question.show(value)
        self.check.disabled = True
        right = is_right(item, value)
        head = "Right." if right else "Not right. The question comes back after the others."
        remarks = "".join(_remark(item, remark) for remark in explain(item, value))
        self.said.value = (
            f'{_status(head)}<ul style="max-width: 860px">{remarks}</ul>See {page_link(item.page)}.'
        )

    def _draw(self) -> None:
        found = scores(self.items, self.tries())
        if found == self._drawn:
            return  # another question, and the same score
        self._drawn = found
        with self.picture.drawing() as ax:
            draw_topics(ax, found)
        self.picture.text = describe(found)

    @shown
    def refresh(self) -> None:
        """The kept answers have changed, here or by another hand: show what they come to."""
        tries = self.tries()
        if tries[self.item.key] != self._given:
            # When all is forgotten, from the first one again.
            self.show(self.item.key if any(tries.values()) else self.items[0].key)
        self._draw()

    def _ask_to_forget(self, asking: bool) -> None:
        self.over.layout.display = "none" if asking else ""
        self.sure.layout.display = self.no.layout.display = "" if asking else "none"

    @shown
    def _forget(self, button=None) -> None:
        self.answers.reset(PREFIX)
        self._ask_to_forget(False)
        self.show(self.items[0].key)


def _button(name: str, icon: str) -> ipywidgets.Button:
    return ipywidgets.Button(
        description=name, icon=icon, layout=ipywidgets.Layout(width="max-content")
    )


def _status(text: str) -> str:
    """A line that a screen reader speaks when it comes."""
    return f'<div role="status" style="font-size: 16px"><b>{html.escape(text)}</b></div>'


def _words(item: Item, answer: Any) -> str:
    """An answer as the page shows it."""
    if item.kind == "number":
        return written(answer)
    if item.kind == "bug":
        return f"line {1 + [option.text for option in item.options].index(answer)}"
    return "; ".join(answer) if isinstance(answer, list) else answer


MARKS = {"bug": ("the line to find", "nothing wrong here"), "several": ("holds", "does not hold")}


def _remark(item: Item, remark: Remark) -> str:
    """One option, what it is worth and why: in words and a sign, as not everybody sees colours."""
    if item.kind == "order":
        mark = "in its place" if remark.chosen else "you had it elsewhere"
    else:
        right, wrong = MARKS.get(item.kind, ("right", "wrong"))
        mark = (right if remark.right else wrong) + (", your answer" if remark.chosen else "")
    sign = " \N{CHECK MARK}" if remark.right and remark.chosen else ""
    text = html.escape(remark.text)
    if item.kind == "bug":
        text = f"<code>{text.strip()}</code>"
    return f"<li><b>{text}</b> ({mark}{sign}): {html.escape(remark.why)}</li>"
