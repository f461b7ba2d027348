"""From a record of births and deaths to bytes by purpose, instant by instant."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorakit.memory.allocator import Allocator, follow
from lorakit.memory.breakdown import PARTS, MemoryBreakdown, StepMemory

INSTANTS = 200  # of a phase, in a timeline
KINDS = {name: place for place, name in enumerate(PARTS)} | {"": PARTS.index("temporaries")}


@dataclass
class Gpu:
    """Where a step's tensors live, if not on a CPU: `allocator` as it is before the first event."""

    allocator: Allocator
    known: int = 0  # events, from the first one on, of tensors that are in the allocator already
    workspace: int = 0  # bytes that libraries keep in the allocator, if it does not hold them yet
    context: int = 0  # bytes of the device beyond the allocator: the driver's


def account(
    events: np.ndarray,
    sizes: np.ndarray,
    kinds: np.ndarray,
    marks: Sequence[tuple[str, int]],
    *,
    source: str,
    gpu: Gpu | None = None,
) -> StepMemory:
    """The memory of the step that `marks` name the phases of, each with its first event.

    events (n,) as in `tracker.Record`, sizes and kinds (places in `PARTS`) by storage. With
    `gpu` its allocator is followed; without, a tensor takes its bytes and nothing more.
    """
    storages = np.abs(events) - 1
    live = np.zeros((len(events), len(PARTS)), np.int64)
    live[np.arange(len(events)), kinds[storages]] = np.sign(events) * sizes[storages]
    live = live.cumsum(axis=0)
    if gpu is not None:
        allocated, reserved = follow(events[gpu.known :].tolist(), sizes.tolist(), gpu.allocator)
        overhead = np.array(allocated) + gpu.workspace - live[gpu.known :].sum(axis=1)
        live[gpu.known :, PARTS.index("overhead")] = overhead
        reserved += gpu.workspace
    total = live.sum(axis=1)
    peaks: dict[str, np.ndarray] = {}
    timeline: list[np.ndarray] = []
    starts: dict[str, int] = {}
    ends = [place for _, place in marks[1:]] + [len(events)]
    for (name, start), end in zip(marks, ends, strict=True):
        for places in np.array_split(np.arange(start, end), INSTANTS):
            if not len(places):
                continue
            highest = live[places[total[places].argmax()]]
            if name not in peaks or highest.sum() > peaks[name].sum():
                peaks[name] = highest
            starts.setdefault(name, len(timeline))
            timeline.append(highest)
    phases = {name: MemoryBreakdown(**_parts(peak)) for name, peak in peaks.items()}
    if gpu is None:
        reserved = device = max(held.total for held in phases.values())
    else:
        device = reserved + gpu.context
    return StepMemory(
        source=source,
        phases=phases,
        most=MemoryBreakdown(**_parts(live[marks[0][1] :].max(axis=0))),
        reserved=reserved,
        device=device,
        timeline=_frozen(np.array(timeline)),
        starts=starts,
    )


def _frozen(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)  # results are shared
    return array


def _parts(row: np.ndarray) -> dict[str, int]:
    return dict(zip(PARTS, row.tolist(), strict=True))
