"""Work that a notebook starts and need not wait for: Start, Stop, a bar, and a line in words.

The work runs in a thread of its own, so that the cell returns at once and the page stays alive.
Only one runs at a time: two on the same cores would each take more than twice as long.
"""

import os
import threading
from collections.abc import Sequence

import ipywidgets

from lorakit.run import Progress
from lorakit.widgets.explorable import Explorable, shown

_ONE_AT_A_TIME = threading.Lock()  # held by the job that is alive


class Job(Explorable):
    """An explorable with work to do: `work`, which listens to `stopping` and speaks by `show`."""

    def __init__(
        self,
        controls: Sequence[ipywidgets.Widget],
        results: Sequence[ipywidgets.Widget],
        *,
        alt: str,
    ):
        self.start = ipywidgets.Button(description="Start", button_style="primary", icon="play")
        self.stop = ipywidgets.Button(description="Stop", icon="stop", disabled=True)
        self.bar = ipywidgets.IntProgress(layout=ipywidgets.Layout(width="300px"))
        self.line = ipywidgets.Label("not started")
        buttons = ipywidgets.HBox([self.start, self.stop, self.bar, self.line])
        super().__init__([*controls, buttons, *results], alt=alt)
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
            return
        if not _ONE_AT_A_TIME.acquire(blocking=wait):
            raise RuntimeError("a run is alive: press its Stop, or wait for its end")
        self._stopping.clear()
        self.start.disabled, self.stop.disabled = True, False
        if wait:
            self._do()
        else:
            self._thread = threading.Thread(target=self._do_apart, daemon=True)
            self._thread.start()

    @shown
    def _do_apart(self) -> None:
        self._do()

    def _do(self) -> None:
        try:
            self.line.value = "starting"
            self.line.value = self.work()
        except BaseException:
            self.line.value = "ended by an error"
            raise
        finally:
            self.start.disabled, self.stop.disabled = False, True
            _ONE_AT_A_TIME.release()

    def show(self, progress: Progress) -> None:
        """Move the bar, and say in words how far the work is."""
        self.bar.max, self.bar.value = progress.total, progress.done
        line = f"{progress.stage}: {progress.done} of {progress.total}"
        if progress.total == 1:
            line = progress.stage
        if progress.seconds_left is not None:
            line += f", {progress.seconds_left:.0f} s left"
        self.line.value = line

    def retire(self) -> None:
        """Make way for another: the work is stopped, and waited for, so that it may start."""
        super().retire()
        if self.running:
            self._thread.join(60)

    def close(self) -> None:
        """Take it off the page; work that is alive is stopped."""
        self._stopping.set()
        super().close()
