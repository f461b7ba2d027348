"""Where the answers are kept; a way to take them along, to bring them back, to forget them.

The kernel keeps them in a file. On a machine that is lent for a session the page keeps a copy as
well, if anywidget is there: `browser_copy.py`.
"""

import base64
import html
import importlib.util
from collections.abc import Callable

import ipywidgets

from lorakit.answers import Answers, temporary, where
from lorakit.widgets.answering import Answering
from lorakit.widgets.explorable import shown
from lorakit.widgets.still import still

NAME = "lorakit-answers.json"  # of what is exported


class Keeping(Answering):
    """Export, Import and Reset, and in words where the answers are.

    `browser` says whether the page keeps a copy; by default where the machine, or the memory of
    the kernel, is all there is.
    """

    def __init__(self, *, browser: bool | None = None):
        self.place = ipywidgets.HTML()
        self.link = ipywidgets.HTML()
        self.upload = ipywidgets.FileUpload(accept=".json", description="Import")
        self.ask = ipywidgets.Button(description="Reset", icon="trash")
        self.forget = ipywidgets.Button(description="Forget them all", icon="trash")
        self.stay = ipywidgets.Button(description="Keep them")
        self.question = ipywidgets.Label()
        self.sure = ipywidgets.HBox([self.question, self.forget, self.stay])
        self.line = ipywidgets.HTML()
        if browser is None:
            browser = temporary() is not None or self.answers.path is None
        copy = copy_in_browser(self.answers, self._tell_place) if browser else None
        row = ipywidgets.HBox([self.link, self.upload, self.ask])
        children = [self.place, row, self.sure, self.line, *filter(None, [copy])]
        words = still("the answers of this lesson", [where()])
        super().__init__([*children, words], alt="explorable: where answers are kept")
        self.upload.observe(self._import, names="value")
        self.ask.on_click(self._ask)
        self.forget.on_click(self._forget)
        self.stay.on_click(self._rest)
        self._tell_place(
            "" if copy or not browser else "anywidget is not there: no copy in the browser"
        )
        self._rest()
        self.follow()

    @shown
    def refresh(self) -> None:
        """Make the link anew: what it exports is in the link itself."""
        data = base64.b64encode(self.answers.export().encode()).decode("ascii")
        self.link.value = (
            f'<a class="jupyter-button widget-button" download="{NAME}" '
            f'href="data:application/json;base64,{data}">Export</a>'
        )

    @shown
    def _import(self, change=None) -> None:
        files = self.upload.value  # ipywidgets 7 has them by their names
        if not files:
            return
        self._tell("")  # what is told of an earlier one is not of this
        (file,) = files.values() if isinstance(files, dict) else files
        self.upload.set_trait("value", type(files)())  # the same file can come again
        text = bytes(file["content"]).decode("utf-8", "replace")
        came = self.answers.restore(text)
        self._tell(f"answers that came: {came}; those that were here stay as they were")

    @shown
    def _ask(self, button=None) -> None:
        count = len(self.answers.keys())
        self.question.value = f"Forget all {count} answers? There is no way back."
        self.sure.layout.display = "flex"

    @shown
    def _forget(self, button=None) -> None:
        self._rest()
        self._tell(f"forgotten: {self.answers.reset()}")

    def _rest(self, button=None) -> None:
        self.sure.layout.display = "none"
        self._tell("")

    def _tell(self, words: str) -> None:
        self.line.value = f'<span role="status">{html.escape(words)}</span>'

    def _tell_place(self, more: str) -> None:
        self.place.value = html.escape("; ".join(filter(None, [where(), more])))


def copy_in_browser(answers: Answers, told: Callable[[str], None]) -> ipywidgets.DOMWidget | None:
    """The copy that the page keeps; None without anywidget, and everything else works."""
    if importlib.util.find_spec("anywidget") is None:
        return None
    from lorakit.widgets.browser_copy import BrowserCopy

    return BrowserCopy(answers, told)
