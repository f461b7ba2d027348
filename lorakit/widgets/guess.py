"""A guess that is kept before its result shows, and the two side by side.

What each kind of question has in common is here; the kinds are in `predict.py`.

On a live page the result waits until there is a guess, or until somebody presses Show me: then the
question is closed, for what is said from then on is no guess. It hides nothing from whoever wants
to look: a stored page has the result in its picture, for readers without a kernel, and Run All goes
through with no guess at all. The result is kept beside the guess, for `Predictions`.
"""

import html
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ipywidgets
from matplotlib.axes import Axes

from lorakit.predictions import Prediction, Value
from lorakit.widgets.answering import Answering
from lorakit.widgets.explorable import shown
from lorakit.widgets.picture import Picture, caption
from lorakit.widgets.settings import rest

ROOM = "predict/"  # before each key, in the answers
WAITING = "the result shows here when you have kept your guess above, or now:"


class Guess(Answering):
    """A question, controls, and a button that keeps what they say; `Reveal` shows what came out.

    `key` is the page and a name, "02/changed". A kind of guess says how its controls are read
    (`said`), set (`put`) and put to rest (`controls`), and how guess and result are drawn (`draw`).
    """

    size = (760, 170)  # of the picture of guess and result, in pixels

    def __init__(
        self,
        key: str,
        question: str,
        controls: Sequence[ipywidgets.Widget],
        children: Sequence[ipywidgets.Widget],
        *,
        unit: str = "",
        log: bool = False,
    ):
        if not key or key.startswith(ROOM):
            raise ValueError(f"a key is a page and a name, such as '02/changed', got {key!r}")
        self.key = ROOM + key
        self._open = Prediction(question=question, unit=unit, log=log)
        self._shown: Prediction | None = None
        self.controls = controls
        self.keep = ipywidgets.Button(description="Keep my guess", icon="check")
        self.line = ipywidgets.HTML()
        asked = caption(f"<b>{html.escape(question)}</b>")
        row = ipywidgets.HBox([self.keep, self.line])
        super().__init__([asked, *children, row], alt=f"explorable: a guess: {question}")
        self.keep.on_click(self._keep)
        self.follow()

    # What a kind of guess says of itself

    def said(self) -> Value:
        """What the controls say. Raises ValueError if that is no guess."""
        raise NotImplementedError

    def put(self, value: Any) -> None:
        raise NotImplementedError

    def fits(self, value: Value) -> bool:
        """Whether a value that was kept is one that these controls can say."""
        raise NotImplementedError

    def measured(self, result: Any) -> Value:
        """The result as it is kept. Raises ValueError if it is none of this question's."""
        raise NotImplementedError

    def draw(self, ax: Axes, guess: Any, result: Any) -> None:
        raise NotImplementedError

    # What all do

    @property
    def prediction(self) -> Prediction:
        """The question with what is kept of guess and result."""
        found = Prediction.from_json(self.answers.get(self.key))
        if found is None or not all(
            value is None or self.fits(value) for value in (found.guess, found.result)
        ):
            return self._open
        return replace(self._open, guess=found.guess, result=found.result)

    def reveal(self, result: Any) -> "Reveal":
        """The result beside the guess; shown once there is a guess, or on a press of Show me.

        Raises ValueError for a result that the question cannot have.
        """
        return Reveal(self, self.measured(result))

    @shown
    def _keep(self, button: Any = None) -> None:
        if self.prediction.result is None:  # another page may have shown it
            self.answers.set(self.key, replace(self._open, guess=self.said()).to_json())
        self.refresh()

    @shown
    def refresh(self) -> None:
        """Show what is kept; a question whose result was seen takes no guess any more."""
        now = self.prediction
        if now == self._shown:
            return
        self._shown = now
        if now.guess is not None:
            self.put(now.guess)
        for control in (*self.controls, self.keep):
            rest(control, now.result is not None)
        parts = [] if now.guess is None else [f"kept: {now.said}"]
        if now.result is not None:
            parts.append("the result is known" if parts else "the result was seen without a guess")
        self.line.value = f'<span role="status">{html.escape("; ".join(parts))}</span>'


class Reveal(Answering):
    """A guess beside its result, as a picture and in words; out of sight until there is a guess."""

    def __init__(self, guess: Guess, result: Value):
        self.guess, self.result = guess, result
        question = guess.prediction.question
        self.waiting = ipywidgets.Label(WAITING)
        self.show_me = ipywidgets.Button(description="Show me", icon="eye")
        self.picture = Picture(*guess.size, alt=f"guess and result: {question}")
        row = ipywidgets.HBox([self.waiting, self.show_me])
        super().__init__([row, self.picture], alt=f"explorable: guess and result: {question}")
        self.row = row
        if guess.prediction.guess is not None or guess.prediction.result is not None:
            self._keep()  # it may be another than the last time
        self.show_me.on_click(self._keep)
        self.follow()

    @shown
    def _keep(self, button: Any = None) -> None:
        """Keep the result beside what was guessed, or beside nothing: from now on it is seen."""
        found = replace(self.guess.prediction, result=self.result)
        self.answers.set(self.guess.key, found.to_json())

    @shown
    def refresh(self) -> None:
        found = self.guess.prediction
        if found.guess is not None and found.result is None:
            self._keep()  # it comes back here
            return
        with self.picture.drawing() as ax:
            self.guess.draw(ax, found.guess, self.result)
        self.picture.text = replace(found, result=self.result).sentence
        seen = found.result is not None
        self.row.layout.display = "none" if seen else "flex"
        self.picture.layout.display = "flex" if seen else "none"
