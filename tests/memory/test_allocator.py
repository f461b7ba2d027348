"""The allocator's rules, one by one, with bytes counted by hand."""

import pytest

from lorakit.memory.allocator import MIB, Allocator, allocator_like, follow


@pytest.mark.parametrize(("asked", "taken"), [(1, 512), (512, 512), (513, 1024), (MIB, MIB)])
def test_a_block_is_a_whole_number_of_512_bytes(asked, taken):
    allocator = Allocator()
    allocator.malloc(0, asked)
    assert allocator.allocated == taken


def test_nothing_takes_nothing():
    allocator = Allocator()
    allocator.malloc(0, 0)
    allocator.release(0)
    assert allocator.allocated == allocator.reserved == 0


@pytest.mark.parametrize(
    ("asked", "segment"),
    [(MIB, 2), (MIB + 1, 20), (10 * MIB - 512, 20), (10 * MIB, 10), (11 * MIB + 1, 12)],
)
def test_a_segment_depends_on_the_block(asked, segment):
    allocator = Allocator()
    allocator.malloc(0, asked)
    assert allocator.reserved == segment * MIB


def test_the_rest_of_a_segment_serves_the_next_block():
    allocator = Allocator()
    for number in range(4):
        allocator.malloc(number, 5 * MIB)
    assert (allocator.allocated, allocator.reserved) == (20 * MIB, 20 * MIB)


def test_a_rest_of_a_mebibyte_among_large_blocks_counts_as_taken():
    allocator = Allocator()
    allocator.malloc(0, 19 * MIB)  # a segment of its own, of 20 MiB
    assert (allocator.allocated, allocator.reserved) == (20 * MIB, 20 * MIB)
    allocator.malloc(1, 19 * MIB + 512)
    assert allocator.allocated == 20 * MIB + 20 * MIB


def test_neighbours_that_are_free_are_one_block():
    allocator = Allocator()
    for number in range(4):
        allocator.malloc(number, 5 * MIB)
    for number in (0, 2, 1):
        allocator.release(number)
    allocator.malloc(9, 9 * MIB)
    assert allocator.reserved == 20 * MIB


def test_the_smallest_block_that_suffices_is_taken():
    allocator = Allocator()
    for number, size in enumerate((14, 12, 16)):
        allocator.malloc(number, size * MIB)
    for number in range(3):
        allocator.release(number)
    allocator.malloc(9, 12 * MIB)
    allocator.malloc(10, 16 * MIB)
    allocator.malloc(11, 14 * MIB)
    assert allocator.reserved == 42 * MIB


def test_what_is_freed_stays_reserved():
    allocated, reserved = follow([1, -1], [40 * MIB], Allocator())
    assert (allocated, reserved) == ([40 * MIB, 0], 40 * MIB)


def test_at_a_limit_free_segments_go_back_before_it_fails():
    allocator = Allocator(limit=50 * MIB)
    allocator.malloc(0, 40 * MIB)
    allocator.release(0)
    allocator.malloc(1, 44 * MIB)
    assert allocator.reserved == 44 * MIB
    with pytest.raises(MemoryError, match=r"56,623,104 bytes would be reserved: more than 52,4"):
        allocator.malloc(2, 10 * MIB)


def test_it_goes_on_from_a_snapshot():
    block = {"address": 1000, "size": 5 * MIB, "state": "active_allocated"}
    rest = {"address": 1000 + 5 * MIB, "size": 15 * MIB, "state": "inactive"}
    segment = {
        "address": 1000,
        "total_size": 20 * MIB,
        "segment_type": "large",
        "blocks": [block, rest],
    }
    allocator = allocator_like([segment], {1000: 7})
    assert (allocator.allocated, allocator.reserved) == (5 * MIB, 20 * MIB)
    allocator.malloc(8, 9 * MIB)
    allocator.release(7)
    assert (allocator.allocated, allocator.reserved) == (9 * MIB, 20 * MIB)
    allocator.malloc(9, 5 * MIB)
    assert allocator.reserved == 20 * MIB


def segments(allocator: Allocator) -> list[int]:
    """Where the segments are that hold something, by the number of what they hold."""
    return [block.segment for _, block in sorted(allocator._taken.items())]


def test_a_segment_stands_in_the_lowest_hole_else_below_all_and_what_is_left_of_32_mib_is_a_hole():
    allocator = Allocator()
    allocator._holes = [(100 * MIB, 14 * MIB)]
    for number, size in enumerate((12, 20, 10, 14)):
        allocator.malloc(number, size * MIB)
    first, second, third, fourth = segments(allocator)
    assert first == 100 * MIB
    assert second == allocator._bottom + 32 * MIB  # and a chunk was opened below it since
    assert third == second + 20 * MIB
    assert fourth == allocator._bottom


def test_among_free_blocks_of_a_size_the_lowest_address_is_taken_whichever_was_first():
    allocator = Allocator()
    allocator._holes = []
    for number in range(2):
        allocator.malloc(number, 32 * MIB)
    high, low = segments(allocator)
    assert low < high
    for number in range(2):
        allocator.release(number)
    allocator.malloc(5, 32 * MIB)
    assert segments(allocator) == [low]


def test_after_a_snapshot_a_new_segment_is_below_what_there_was():
    block = {"address": 2**40, "size": 20 * MIB, "state": "active_allocated"}
    segment = {
        "address": 2**40,
        "total_size": 20 * MIB,
        "segment_type": "large",
        "blocks": [block],
    }
    allocator = allocator_like([segment], {2**40: 0})
    allocator.malloc(1, 12 * MIB)
    kept, new = segments(allocator)
    assert new < kept == 2**40
