"""A record for any number of layers, from the log of four.

Layers are alike, but for the first and the last.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby

import numpy as np

from lorakit.memory.account import KINDS
from lorakit.memory.scribe import Log, Name

LAYERS = 4  # a first, a last, and two between that are neighbours

Event = tuple[int | None, bool, Name]  # as in `Log`


class Blueprint:
    """Events, purposes and marks of building a model and of its second step, at `layers` layers.

    `log` has as many layers, or `LAYERS` of them.

    events (n,) and kinds by storage are as `account` takes them; `names` are the dry run's own, by
    storage: what its bytes are, any dry run of the same step can tell.
    """

    def __init__(self, log: Log, log_layers: int, layers: int):
        events: list[int] = []
        self.names: list[Name] = []
        self.marks: list[tuple[str, int]] = []
        alive: dict[Name, int] = {}

        def add(phase: str) -> None:
            for birth, name, origin in _repeated(log.phases[phase], log_layers, layers):
                if birth:
                    alive[name] = len(self.names)
                    self.names.append(origin)
                    events.append(len(self.names))
                else:
                    events.append(-(alive.pop(name) + 1))

        micro_batches = [p for p in log.phases if p.startswith(("forward", "backward"))]
        for phase in ("build", "batch", "start", *micro_batches, "optimizer", "start"):
            add(phase)
        for phase in (*micro_batches, "optimizer again"):
            self.marks.append((phase.split()[0], len(events)))
            add(phase)
        self.events = np.array(events)
        self.kinds = np.array([KINDS[log.kinds[name]] for name in self.names])

    def sizes(self, log: Log, otherwise: Log | None = None) -> np.ndarray:
        """Bytes by storage, as `log` has them; what it lacks is taken from `otherwise`."""
        if otherwise is None:
            return np.array([log.sizes[name] for name in self.names])
        left_out = ("optimizer", "optimizer again")  # no other phase may lack a name
        return np.array(
            [(otherwise if name.phase in left_out else log).sizes[name] for name in self.names]
        )


def _repeated(
    events: Iterable[Event], log_layers: int, layers: int
) -> Iterator[tuple[bool, Name, Name]]:
    """A phase's events, with those of a middle layer again for every other one in the middle.

    Each comes with its storage's name among `layers` layers, and in the dry run. Going up, it is
    the third layer that stands for all behind it but the last: its neighbour below is a middle
    layer as well. Going down it is the second.
    """
    if layers == log_layers:
        yield from ((birth, name, name) for _, birth, name in events)
        return
    last, more = LAYERS - 1, layers - LAYERS
    before: int | None = None
    for layer, group in groupby(_in_order(events), key=_layer):
        run = [(birth, name) for _, birth, name in group]
        down = before is not None and layer is not None and layer < before
        if layer == (1 if down else 2):
            shifts = range(more, -1, -1) if down else range(more + 1)
        else:
            above = layer == last or (down and layer == 2)
            shifts = range(more, more + 1) if above else range(1)
        for shift in shifts:
            for birth, name in run:
                yield birth, name if name.layer is None else name.moved(name.layer + shift), name
        before = layer


def _in_order(events: Iterable[Event]) -> Iterator[Event]:
    """The events, with what dies outside of all layers sorted by layer.

    Where autocast ends it lets its copies of the weights go in any order.
    """
    for sort, group in groupby(events, key=lambda event: event[0] is None and not event[1]):
        run = list(group)
        yield from sorted(run, key=lambda event: event[2].layer or 0) if sort else run


def _layer(event: Event) -> int | None:
    """The layer at work; outside of all, the one whose storage is born or dies."""
    layer, _, name = event
    return name.layer if layer is None else layer
