"""PyTorch's CUDA caching allocator, followed without a GPU: what a list of tensors costs there.

A tensor gets a block, a whole number of 512 bytes. Blocks are cut from segments that the driver
gives: of 2 MiB for blocks up to 1 MiB, of 20 MiB for blocks under 10 MiB, else as large as needed
in steps of 2 MiB. The smallest free block that is large enough is taken, and its rest is split off
if it is worth it: from 512 bytes among small blocks, above 1 MiB among large ones; otherwise the
rest counts as taken. A freed block grows together with free neighbours. Segments are kept, until
a new one would exceed the device: then those that are wholly free go back to the driver first.
(PyTorch's c10/cuda/CUDACachingAllocator.cpp, with its defaults.)

Among free blocks of one size the one with the lowest address is taken, so it matters where the
driver puts a segment: in the lowest hole with room for it, else below all that is there, in whole
32 MiB, of which the rest becomes a hole. (Seen on an H100: the addresses of 123 steps, each in a
process of its own. A process that has held much before has other holes.)
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from typing import Any

KIB, MIB = 2**10, 2**20
CHUNK = 32 * MIB  # addresses that the driver opens at a time
# (address, size), lowest first: where a process has room when its libraries have been loaded.
HOLES = [(0, 4 * MIB), (302 * MIB, 310 * MIB), (688 * MIB, 20 * MIB)]
BOTTOM = -640 * MIB


class _Block:
    __slots__ = ("free", "next", "place", "previous", "segment", "size", "small")

    def __init__(self, segment: int, place: int, size: int, small: bool):
        self.segment, self.place, self.size, self.small = segment, place, size, small
        self.free = True
        self.previous: _Block | None = None
        self.next: _Block | None = None


class Allocator:
    """`allocated` and `reserved` bytes after each `malloc` and `release`.

    `malloc` raises MemoryError where more than `limit` bytes would be reserved.
    """

    def __init__(self, limit: int | None = None):
        self.limit = limit
        self.allocated = self.reserved = 0
        self._bottom = BOTTOM
        self._holes = list(HOLES)
        # Free blocks, smallest first, and the one with the lowest address first.
        self._pools: dict[bool, list[tuple[int, int, int, _Block]]] = {True: [], False: []}
        self._taken: dict[int, _Block] = {}

    def malloc(self, tensor: int, size: int) -> None:
        """Take memory for `size` bytes, in the name of `tensor`."""
        if size == 0:
            return
        size = -(-size // 512) * 512
        small = size <= MIB
        pool = self._pools[small]
        place = bisect_left(pool, (size,))
        block = pool.pop(place)[3] if place < len(pool) else self._segment(size, small)
        rest = block.size - size
        if rest >= 512 if small else rest > MIB:
            behind = _Block(block.segment, block.place + size, rest, small)
            behind.previous, behind.next = block, block.next
            if block.next is not None:
                block.next.previous = behind
            block.next, block.size = behind, size
            insort(pool, (rest, behind.segment, behind.place, behind))
        block.free = False
        self.allocated += block.size
        self._taken[tensor] = block

    def _segment(self, size: int, small: bool) -> _Block:
        if small:
            taken = 2 * MIB
        elif size < 10 * MIB:
            taken = 20 * MIB
        else:
            taken = -(-size // (2 * MIB)) * 2 * MIB
        if self.limit is not None and self.reserved + taken > self.limit:
            self._give_back()
            if self.reserved + taken > self.limit:
                raise MemoryError(
                    f"{self.reserved + taken:,} bytes would be reserved: more than {self.limit:,}"
                )
        self.reserved += taken
        return _Block(self._address(taken), 0, taken, small)

    def _address(self, size: int) -> int:
        """Where the driver puts a new segment."""
        for number, (address, room) in enumerate(self._holes):
            if room >= size:
                self._holes[number : number + 1] = (
                    [(address + size, room - size)] if room > size else []
                )
                return address
        chunk = -(-size // CHUNK) * CHUNK
        self._bottom -= chunk
        if chunk > size:
            self._holes.insert(0, (self._bottom + size, chunk - size))
        return self._bottom

    def _give_back(self) -> None:
        for pool in self._pools.values():
            for entry in [e for e in pool if e[3].previous is None and e[3].next is None]:
                pool.remove(entry)
                self.reserved -= entry[0]
                insort(self._holes, (entry[1], entry[0]))

    def release(self, tensor: int) -> None:
        """Give back what `tensor` took, if anything."""
        block = self._taken.pop(tensor, None)
        if block is None:
            return
        self.allocated -= block.size
        pool = self._pools[block.small]
        before, after = block.previous, block.next
        if before is not None and before.free:
            del pool[bisect_left(pool, (before.size, before.segment, before.place))]
            before.size += block.size
            before.next = after
            if after is not None:
                after.previous = before
            block = before
        if after is not None and after.free:
            del pool[bisect_left(pool, (after.size, after.segment, after.place))]
            block.size += after.size
            block.next = after.next
            if block.next is not None:
                block.next.previous = block
        block.free = True
        insort(pool, (block.size, block.segment, block.place, block))


def allocator_like(segments: Sequence[Mapping[str, Any]], tensors: Mapping[int, int]) -> Allocator:
    """One in the state that `torch.cuda.memory_snapshot()` tells.

    `tensors` are the numbers of those to be released later, by address.
    """
    allocator = Allocator()
    allocator._bottom = min((segment["address"] for segment in segments), default=0)
    allocator._holes = []  # where they are, a snapshot does not tell
    for segment in segments:
        allocator.reserved += segment["total_size"]
        before: _Block | None = None
        for told in segment["blocks"]:
            small = segment["segment_type"] == "small"
            place = told["address"] - segment["address"]
            block = _Block(segment["address"], place, told["size"], small)
            block.previous = before
            if before is not None:
                before.next = block
            block.free = told["state"] == "inactive"
            if block.free:
                insort(allocator._pools[small], (block.size, block.segment, place, block))
            else:
                allocator.allocated += block.size
                if told["address"] in tensors:
                    allocator._taken[tensors[told["address"]]] = block
            before = block
    return allocator


def follow(
    events: Sequence[int], sizes: Sequence[int], allocator: Allocator
) -> tuple[list[int], int]:
    """Allocated bytes after each event, and reserved ones at the end.

    An event is i + 1 for the birth of tensor i, of sizes[i] bytes, and -(i + 1) for its death.
    """
    allocated = []
    for event in events:
        if event > 0:
            allocator.malloc(event - 1, sizes[event - 1])
        else:
            allocator.release(-event - 1)
        allocated.append(allocator.allocated)
    return allocated, allocator.reserved
