"""What all explorables share: a box of controls and pictures, and a line that shows errors.

    class MemoryExplorer(Explorable):
        def __init__(self):
            self.rank = ipywidgets.IntSlider(8, min=1, max=64)
            self.picture = Picture(700, 220, alt="memory of a training step")
            super().__init__([self.rank, self.picture], alt="memory of a training step by rank")
            self.rank.observe(self.refresh, names="value")
            self.refresh()

        @shown
        def refresh(self, change=None): ...

Jupyter drops what a callback raises; `shown` puts it where it was caused. With LORAKIT_TEST=1 in
the environment the error is raised as well, so that no test passes over it.
"""

import html
import os
import threading
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ClassVar, TypeVar

import ipywidgets

from lorakit.widgets.cells import Cell, current_cell
from lorakit.widgets.picture import Picture, with_still

Callback = TypeVar("Callback", bound=Callable[..., Any])


class Explorable(ipywidgets.VBox):
    """Controls and pictures in one box, errors in a line above the first picture.

    `alt` says what it is, in words that never change. Without a kernel it shows its pictures, one
    under the other. A cell that runs again closes the explorables that it made before.
    """

    _made: ClassVar[dict[str, list[tuple[Cell, "Explorable"]]]] = {}  # by the name of the cell

    def __init__(self, children: Sequence[ipywidgets.Widget], *, alt: str):
        self.alt = alt
        # Empty or not, the line is there: an error near the controls that caused it moves nothing.
        self.error = ipywidgets.HTML(layout=ipywidgets.Layout(min_height="28px"))
        first = next((i for i, child in enumerate(children) if _pictures(child)), len(children))
        super().__init__([*children[:first], self.error, *children[first:]])
        if cell := current_cell():
            made = self._made.setdefault(cell.name, [])
            for earlier in [old for when, old in made if when != cell]:
                earlier.retire()
            made[:] = [(when, old) for when, old in made if when == cell]
            made.append((cell, self))

    def retire(self) -> None:
        """Make way for another: close, and leave nothing at work."""
        self.close()

    def close(self) -> None:
        """Take it off the page, with all that is in it; what it holds is let go."""
        for made in self._made.values():
            made[:] = [(cell, other) for cell, other in made if other is not self]
        for child in self.children:
            close_whole(child)
        super().close()
        _close_dress(self)

    @property
    def pictures(self) -> list[Picture]:
        """Every picture in the box, boxes within it included, from top to bottom."""
        return _pictures(self)

    def show_error(self, error: Exception) -> None:
        """Show an error in words; its traceback unfolds on a click. No frame is kept alive."""
        what = html.escape(f"{type(error).__name__}: {error}")
        where = html.escape("".join(traceback.format_exception(error)))
        self.error.value = (
            '<div role="alert" style="color: var(--jp-error-color1, #b00020); font-size: 15px">'
            f"<details><summary>{what}</summary><pre>{where}</pre></details></div>"
        )

    _ipython_display_ = None  # ipywidgets 7 has one, which goes before a mime bundle

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return with_still(self, self.alt, self.pictures)


_running = threading.local()  # .callback: this thread is inside a shown callback


def shown(callback: Callback) -> Callback:
    """Decorate a method of an explorable: what it raises is shown, until the next call.

    A callback that sets off another in the same thread is the one that shows both their errors.
    """

    @wraps(callback)
    def call(self: Explorable, *args: Any, **kwargs: Any) -> Any:
        if getattr(_running, "callback", False):
            return callback(self, *args, **kwargs)
        _running.callback = True
        try:
            # Before, not after: what the callback started in a thread may have failed by then.
            self.error.value = ""
            return callback(self, *args, **kwargs)
        except Exception as error:
            self.show_error(error)
            if os.environ.get("LORAKIT_TEST") == "1":
                raise
        finally:
            _running.callback = False

    return call  # type: ignore[return-value]


def close_whole(widget: ipywidgets.Widget) -> None:
    """Close a widget with all that is in it; by itself Jupyter would keep what it holds."""
    for child in getattr(widget, "children", ()):
        close_whole(child)
    widget.close()
    _close_dress(widget)


def _close_dress(widget: ipywidgets.Widget) -> None:
    """Layout and style are widgets too, which Jupyter would keep."""
    for name in ("layout", "style"):
        if isinstance(dress := getattr(widget, name, None), ipywidgets.Widget):
            dress.close()


def _pictures(widget: ipywidgets.Widget) -> list[Picture]:
    if isinstance(widget, Picture):
        return [widget]
    return [found for child in getattr(widget, "children", ()) for found in _pictures(child)]
