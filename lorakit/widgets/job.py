"""Work that a notebook starts and need not wait for: Start, Stop, a bar, and a line in words.

The work runs in a thread of its own, so that the cell returns at once and the page stays alive.
Only one runs at a time: two on the same cores would each take more than twice as long.
"""

import os
import threading
import time
from collections.abc import Sequence
from typing import ClassVar

import ipywidgets

from lorakit.run import Progress
from lorakit.widgets.explorable import Explorable, shown

_ONE_AT_A_TIME = threading.Lock()  # held by the job that is alive


class Job(Explorable):
    """An explorable with work to do: `work`, which listens to `stopping` and speaks by `show`."""

    redraw: ClassVar[float] = 0.5  # seconds between two live pictures

    def __init__(
        self,
        controls: Sequence[ipywidgets.Widget],
        results: Sequence[ipywidgets.Widget],
        *,
        alt: str,
    ):
        self.start = ipywidgets.Button(description="Start", button_style="primary", icon="play")
        self.stop = ipywidgets.Button(description="Stop", icon="stop", disabled=True)
        self.stop.add_class("job-stop")
        self.bar = ipywidgets.IntProgress(layout=ipywidgets.Layout(width="300px"))
        self.line = ipywidgets.Label("not started", layout=ipywidgets.Layout(width="100%"))
        self.line.add_class("job-line")
        buttons = ipywidgets.HBox([self.start, self.stop, self.bar])
        super().__init__([*controls, buttons, self.line, *results], alt=alt)
        self._error: Exception | None = None
        self._drawn = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread()
        self.start.on_click(self._on_start)
        self.stop.on_click(lambda button: self._stopping.set())

    def work(self) -> str:
        """Do it, and say in a line how it ended. Returns early once `stopping()` is true."""
        raise NotImplementedError

    def stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @shown
    def _on_start(self, button) -> None:
        # Under test a click does its work before it returns.
        self.go(wait=os.environ.get("LORAKIT_TEST") == "1")

    def go(self, *, wait: bool = False) -> None:
        """Start the work; with `wait`, do it here, or wait for its end if it is alive already.

        With `wait` what the work raises is raised here, and another's work is waited for; without,
        another that is alive makes this raise RuntimeError.
        """
        if wait and self.running:
            self._thread.join()
            if self._error is not None:
                raise self._error
            return
        if not _ONE_AT_A_TIME.acquire(blocking=wait):
            raise RuntimeError("a run is alive: press its Stop, or wait for its end")
        try:
            self._error = None
            self._stopping.clear()
            self._drawn = time.monotonic()
            self.start.disabled, self.stop.disabled = True, False
            if not wait:
                self._thread = threading.Thread(target=self._in_thread, daemon=True)
                self._thread.start()
        except BaseException:
            self._end()
            raise
        if wait:
            self._do()

    def _in_thread(self) -> None:
        try:
            self._do_apart()
        finally:
            if self._error is not None:  # shown by now; its frames would keep the model alive
                self._error.__traceback__ = None

    @shown
    def _do_apart(self) -> None:
        try:
            self._do()
        except Exception as error:
            self._error = error
            raise

    def _do(self) -> None:
        try:
            self.line.value = "starting"
            self.line.value = self.work()
            if not self.stopping():
                self.bar.value = self.bar.max
        except BaseException as error:
            interrupted = isinstance(error, KeyboardInterrupt)
            self.line.value = "interrupted" if interrupted else "ended by an error"
            raise
        finally:
            self._end()

    def _end(self) -> None:
        try:
            self.start.disabled, self.stop.disabled = False, True
        finally:
            _ONE_AT_A_TIME.release()

    def due(self) -> bool:
        """Whether it is time for another live picture; then the clock starts anew."""
        now = time.monotonic()
        due = now - self._drawn > self.redraw
        if due:
            self._drawn = now
        return due

    def show(self, progress: Progress) -> None:
        """Move the bar, and say in words how far the work is."""
        self.bar.max, self.bar.value = progress.total, progress.done
        line = f"{progress.stage}: {progress.done} of {progress.total}"
        if progress.total == 1:
            line = progress.stage
        if progress.seconds_left is not None:
            line += f", {progress.seconds_left:.0f} s left"
        self.line.value = line

    def advance(self, stage: str, done: int, total: int, *, began: float) -> None:
        """Show how far a stage of equal steps is, and what is left of it.

        `began` is the `time.monotonic()` of its beginning; at least one step is done.
        """
        left = (time.monotonic() - began) / done * (total - done)
        self.show(Progress(stage=stage, done=done, total=total, seconds_left=left))

    def retire(self) -> None:
        """Make way for another: the work is stopped, and waited for, so that it may start."""
        super().retire()
        if self.running:
            self._thread.join(60)

    def close(self) -> None:
        """Take it off the page; work that is alive is stopped."""
        if hasattr(self, "_stopping"):  # one that was refused in its making has none
            self._stopping.set()
        super().close()
