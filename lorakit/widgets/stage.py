"""The teacher's screen: a frame a question, the room's guesses beside it, the answer on a key.

    Stage([Frame(key="changed", page="01", question="...", options=("half", "all"), right=1,
                 answer="...", explorable=lambda: StepExplorer(run)), ...])

A frame asks first. When it is revealed, the right option is marked and the explorable stands beside
it. Explorables are made in a thread, in the order of the frames, while the first question is asked.
Which frame is on show and what the room guessed outlive a reload of the page, where they are kept.
Knows nothing of the lesson.
"""

import html
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from string import ascii_uppercase

import ipywidgets

from lorakit.answers import Answers
from lorakit.plots.style import COLORS
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.job import Job
from lorakit.widgets.settings import explain
from lorakit.widgets.stage_page import STYLE

MOST = 999  # of a room
PLACE, COUNTS = "place", "counts/"  # keys of what is kept
ARROWS = "\N{LEFTWARDS ARROW} \N{RIGHTWARDS ARROW}"
KEYS_LINE = f"keys: {ARROWS} frames, A to D counts, R reveal, L run, S stop"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A question with options of which one is right, and what shows that it is.

    `answer` is said when it is revealed; `page` is the one that it belongs to, by its number.
    """

    key: str
    page: str
    question: str
    options: tuple[str, ...]
    right: int  # its place in `options`
    answer: str
    explorable: Callable[[], Explorable]

    def __post_init__(self):
        if len(set(self.options)) < max(2, len(self.options)):
            raise ValueError(f"options must be two or more that differ, got {self.options}")
        if not 0 <= self.right < len(self.options):
            raise ValueError(
                f"right must be the place of one of {len(self.options)} options, got {self.right}"
            )


class FrameView(ipywidgets.VBox):
    """A frame on show: its options with a count and a bar each, and what is hidden at first.

    `guesses` are the counts at the start; `keep` hears of them whenever one changes.
    """

    def __init__(self, frame: Frame, guesses: Sequence[int], keep: Callable[[list[int]], object]):
        self.frame, self._keep = frame, keep
        self.revealed = False
        self.counts = [
            ipywidgets.BoundedIntText(number, min=0, max=MOST, description=letter)
            for letter, number in zip(ascii_uppercase, guesses, strict=False)
        ]
        for count in self.counts:
            count.continuous_update = True  # a bar grows while its count is typed
            explain(count, f"how many guess {count.description}")
            count.add_class(f"stage-count-{count.description.lower()}")
            count.observe(self._count, names="value")
        self.bars = [ipywidgets.HTML() for _ in frame.options]
        self.room = ipywidgets.HTML()
        self.answer = ipywidgets.HTML()
        self.pane = ipywidgets.VBox([ipywidgets.Label("being made: a moment")])
        asked = ipywidgets.HTML(f"<h2>{html.escape(frame.question)}</h2>")
        rows = [ipywidgets.HBox(row) for row in zip(self.counts, self.bars, strict=True)]
        left = ipywidgets.VBox([asked, *rows, self.room, self.answer])
        super().__init__([ipywidgets.HBox([left, self.pane])])
        self.add_class("stage-frame")
        left.add_class("stage-asked")
        self.pane.add_class("stage-pane")
        self.refresh()

    @property
    def text(self) -> str:
        """What the room guesses, in words, and once it is revealed what is right."""
        numbers = [count.value for count in self.counts]
        guesses = ", ".join(f"{c.description} {c.value}" for c in self.counts)
        text = f"{sum(numbers)} guesses: {guesses}" if any(numbers) else "no guesses yet"
        if self.revealed:
            right = self.frame.right
            text += f". {ascii_uppercase[right]} is right"
            text += f": {numbers[right]} of {sum(numbers)}" if any(numbers) else ""
        return text

    def reveal(self, revealed: bool) -> None:
        """Show what is hidden, or hide it again."""
        self.revealed = revealed
        (self.add_class if revealed else self.remove_class)("stage-revealed")
        self.refresh()

    def _count(self, change=None) -> None:
        self.refresh()
        self._keep([count.value for count in self.counts])

    def refresh(self) -> None:
        most = max(count.value for count in self.counts) or 1
        for place, (count, bar) in enumerate(zip(self.counts, self.bars, strict=True)):
            marked = self.revealed and place == self.frame.right
            bar.value = _bar(self.frame.options[place], count.value / most, marked)
        self.room.value = html.escape(self.text)
        self.answer.value = f"<p>{html.escape(self.frame.answer)}</p>" if self.revealed else ""


def _bar(option: str, share: float, marked: bool) -> str:
    """An option, and below it the bar of its guesses; marked by a word as well as by a line."""
    mark = f' style="outline: 3px solid {COLORS["lora"]}"' if marked else ""
    words = html.escape(option) + (" <b>\N{CHECK MARK} right</b>" if marked else "")
    bar = f'<div class="stage-bar" style="width: {share:.1%}; background: {COLORS["expected"]}">'
    return f'<div class="stage-option"{mark}>{words}{bar}</div></div>'


class Stage(Explorable):
    """Frames -> one at a time: back, reveal and next by button or key (`stage_page.KEYS`).

    `kept` holds which frame is on show and what the room guessed; without it, memory does.
    """

    def __init__(self, frames: Sequence[Frame], kept: Answers | None = None):
        if not frames:
            raise ValueError("a stage needs a frame, got none")
        self.frames, self.place, self._kept = tuple(frames), 0, kept or Answers()
        self.views: dict[int, FrameView] = {}
        self.made: dict[int, Explorable] = {}
        self.failed: dict[int, Exception] = {}
        self.back = ipywidgets.Button(description="Back", icon="arrow-left")
        self.reveal = ipywidgets.Button(description="Reveal", icon="eye")
        self.next = ipywidgets.Button(description="Next", icon="arrow-right")
        self.where = ipywidgets.Label()
        self.window = ipywidgets.VBox()
        for name in ("back", "reveal", "next", "window"):
            getattr(self, name).add_class(f"stage-{name}")
        keys = ipywidgets.Label(KEYS_LINE)
        keys.add_class("stage-keys")
        self.bar = ipywidgets.HBox([self.back, self.reveal, self.next, self.where, keys])
        super().__init__(
            [ipywidgets.HTML(STYLE), self.bar, self.window], alt="explorable: the teacher's screen"
        )
        self.add_class("stage")
        self.back.on_click(lambda button: self.go(self.place - 1))
        self.next.on_click(lambda button: self.go(self.place + 1))
        self.reveal.on_click(self._on_reveal)
        self._closing = threading.Event()
        self._lock = threading.Lock()  # of `made` and of what is on show: the maker is a thread
        place = self._kept.get(PLACE)
        self.go(place if isinstance(place, int) else 0)
        self._maker = threading.Thread(target=self._make_all, daemon=True)
        if os.environ.get("LORAKIT_TEST") != "1":  # under test each is made when it is revealed
            self._maker.start()

    @property
    def view(self) -> FrameView:
        return self.views[self.place]

    @shown
    def go(self, place: int) -> None:
        """Show another frame, as it was left; beyond the first and the last there is none.

        A run of the one that is left is stopped: another could not start beside it.
        """
        if isinstance(left := self.made.get(self.place), Job):
            left.stop.click()
        self.place = min(max(place, 0), len(self.frames) - 1)
        if self.place not in self.views:
            frame = self.frames[self.place]
            keep = partial(self._keep_counts, COUNTS + frame.key)
            self.views[self.place] = FrameView(frame, self._guesses(frame), keep)
        self._kept.set(PLACE, self.place)
        self.window.children = (self.view,)
        self._tell()

    def _guesses(self, frame: Frame) -> list[int]:
        """What is kept of a frame's counts, if it is that: else none."""
        found = self._kept.get(COUNTS + frame.key)
        none = [0] * len(frame.options)
        whole = isinstance(found, list) and all(isinstance(number, int) for number in found)
        return found if whole and len(found) == len(none) else none

    @shown
    def _keep_counts(self, key: str, counts: list[int]) -> None:
        self._kept.set(key, counts)

    @shown
    def _on_reveal(self, button) -> None:
        view, place = self.view, self.place
        view.reveal(not view.revealed)
        self._tell()
        if place in self.failed:
            raise self.failed[place]
        if place not in self.made and not self._maker.is_alive():
            self.made[place] = self.frames[place].explorable()
        self._put(place)

    def _tell(self) -> None:
        last = len(self.frames)
        self.back.disabled, self.next.disabled = self.place == 0, self.place == last - 1
        self.reveal.description = "Hide" if self.view.revealed else "Reveal"
        self.where.value = f"{self.place + 1} of {last}, page {self.view.frame.page}"

    def _make_all(self) -> None:
        for place, frame in enumerate(self.frames):
            if self._closing.is_set():
                return
            try:
                self.made[place] = frame.explorable()
            except Exception as error:  # shown where it is asked for; the others go on
                self.failed[place] = error.with_traceback(None)
            self._put(place)

    def _put(self, place: int) -> None:
        """Hand an explorable to its view, once it is revealed: what is hidden costs no page."""
        with self._lock:
            view, explorable = self.views.get(place), self.made.get(place)
            if view is not None and explorable is not None and view.revealed:
                view.pane.children = (explorable,)

    def close(self) -> None:
        """Take it off the page, with every explorable that was made."""
        if hasattr(self, "_closing"):  # one that was refused in its making has none
            self._closing.set()
            for explorable in self.made.values():
                explorable.close()
            self.window.children = tuple(self.views.values())
        super().close()
