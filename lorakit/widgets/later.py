"""Work that is too slow for a slider that moves, and waits until it rests."""

import asyncio
import os
from collections.abc import Callable


class Later:
    """Calls `work` when nobody has asked for it anew for some seconds, in the kernel's own thread.

    Where nothing could call later, outside of a kernel, it does so at once; and under test.
    """

    def __init__(self, work: Callable[[], object], seconds: float = 0.4):
        self.work, self.seconds = work, seconds
        self._timer: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        """Call `work` later; what was asked for before is forgotten."""
        self.cancel()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is None or os.environ.get("LORAKIT_TEST") == "1":
            self.work()
        else:
            self._timer = loop.call_later(self.seconds, self.work)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
