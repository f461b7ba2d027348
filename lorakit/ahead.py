"""Values made ahead by another thread, while the one before is used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(make: Callable[[int], T], places: Iterable[int], depth: int = 2) -> Iterator[T]:
    """make(place) for each place, in order, up to `depth` of them before they are asked for.

    An error in `make` comes up where its value is asked for. Closing the iterator ends the thread.
    """
    with ThreadPoolExecutor(1, "ahead") as pool:
        waiting: deque = deque()
        try:
            for place in places:
                waiting.append(pool.submit(make, place))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
