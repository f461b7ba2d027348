"""SIGTERM, heard by a process that trains with others: all shall stop, or one of them is gone.

torchrun sends it, and kills 30 seconds later. Between them it is a request, which `told` keeps. A
process that waits on its GPU for one that is gone hears nothing: a thread beside it then breaks
the exchange off, and `broken` tells that what was exchanged is not whole.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE = 8.0  # seconds to end by itself

told = threading.Event()
broken = threading.Event()


@contextmanager
def heard(break_off: Callable[[], None] | None = None) -> Iterator[None]:
    """Within the block SIGTERM is a request; `break_off` ends a wait that outlasts it.

    After ConnectionError it stays one: that process is about to end, and says why first.
    """
    told.clear()
    broken.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)

    def listen() -> None:
        while signals := os.read(ear, 64):
            if signal.SIGTERM in signals and break_off and not over.wait(GRACE):
                broken.set()
                break_off()
                break
        os.close(ear)

    before = signal.signal(signal.SIGTERM, lambda number, frame: told.set())
    fd = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    except ConnectionError:
        raise
    except BaseException:
        signal.signal(signal.SIGTERM, before)
        raise
    else:
        signal.signal(signal.SIGTERM, before)
    finally:
        over.set()
        signal.set_wakeup_fd(fd)
        os.close(mouth)
