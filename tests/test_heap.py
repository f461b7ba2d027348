"""What a step frees is there for the next one, and is given back after the last."""

import pytest
import torch

from lorakit import heap
from lorakit.heap import LARGEST, PLENTY, kept_heap

needs_glibc = pytest.mark.skipif(heap._glibc() is None, reason="needs glibc's malloc")


@pytest.fixture
def told(monkeypatch) -> list:
    """What a C library of the test's own has been told."""
    calls: list = []

    class Libc:
        def mallopt(self, what, value):
            calls.append((what, value))

        def malloc_trim(self, pad):
            calls.append(("trim", pad))

    monkeypatch.setattr(heap, "_glibc", Libc)
    return calls


KEEP = [(heap.MMAP_THRESHOLD, LARGEST), (heap.TRIM_THRESHOLD, PLENTY)]
LET_GO = [(heap.TRIM_THRESHOLD, 2 * LARGEST), ("trim", 2 * LARGEST)]


@needs_glibc
def test_memory_freed_within_is_not_asked_for_again_and_is_given_back():
    resource = pytest.importorskip("resource")

    def faults() -> int:
        """Pages that the system had to clear for a step that frees all it takes."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        taken = [torch.ones(2**20) for _ in range(32)]  # 4 MB each
        del taken
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with kept_heap():
        pass  # nothing is left of what other tests have freed
    with kept_heap():
        first = faults()
        within = min(faults() for _ in range(3))
    after = faults()
    assert within < first / 10 and within < after / 10


def test_an_error_within_ends_it_as_well(told):
    with pytest.raises(KeyError), kept_heap():
        assert told == KEEP
        raise KeyError
    assert told == KEEP + LET_GO


def test_it_lasts_until_the_last_one_leaves(told):
    first, second = kept_heap(), kept_heap()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert told == KEEP
    second.__exit__(None, None, None)
    assert told == KEEP + LET_GO


def test_where_there_is_no_glibc_or_it_is_told_otherwise_nothing_is_done(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1")
    assert heap._glibc.__wrapped__() is None
    monkeypatch.setattr(heap, "_glibc", lambda: None)
    with kept_heap():
        assert heap._within == 0
