"""What a training step holds in memory, in bytes, by purpose: one type, estimated or measured.

weights        every parameter and buffer, tied ones once
gradients      from their making in backward to the end of the step
optimizer      what it remembers from step to step: AdamW's two moments of whatever trains
activations    what forward leaves behind for backward, the batch itself included
temporaries    all else that is alive: an operation's results that nobody keeps; with gradient
               checkpointing also what backward computes again
overhead       what a GPU's allocator takes on top: rounding, rests of blocks, and with
               measured numbers whatever else lives on the device
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

PHASES = ("forward", "backward", "optimizer")


@dataclass(frozen=True, kw_only=True)
class MemoryBreakdown:
    """Bytes by purpose."""

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations: int = 0
    temporaries: int = 0
    overhead: int = 0

    @property
    def tensors(self) -> int:
        """Bytes held by tensors: all but the allocator's overhead."""
        return self.total - self.overhead

    @property
    def total(self) -> int:
        """All of it; at a peak, that is the allocator's peak."""
        return sum(getattr(self, part) for part in PARTS)


PARTS = tuple(part.name for part in fields(MemoryBreakdown))


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """One training step's memory: at its peak, at each phase's peak, and from instant to instant.

    `reserved` is what the allocator holds of the device at the end of the step, and `device` what
    is gone from the device: that and the driver's context. On a CPU both are the peak's total.
    """

    source: str  # "measured on ...", "estimated for CUDA"
    phases: Mapping[str, MemoryBreakdown]  # at the highest instant of forward, backward, optimizer
    most: MemoryBreakdown  # of each part, the most there was; not all at once, so no sum
    reserved: int
    device: int
    # (instants, parts): of many neighbouring instants the highest; where each phase starts
    timeline: np.ndarray = field(repr=False, compare=False)
    starts: Mapping[str, int] = field(repr=False, compare=False)

    @property
    def phase(self) -> str:
        """The phase in which the peak falls."""
        return max(self.phases, key=lambda name: self.phases[name].total)

    @property
    def peak(self) -> MemoryBreakdown:
        """What there is at the step's highest instant."""
        return self.phases[self.phase]

    def to_json(self) -> dict[str, Any]:
        """Everything but the timeline."""

        def parts(held: MemoryBreakdown) -> dict[str, int]:
            return {part: getattr(held, part) for part in PARTS}

        return {
            "source": self.source,
            "peak": parts(self.peak) | {"total": self.peak.total, "tensors": self.peak.tensors},
            "peak_phase": self.phase,
            "phases": {
                name: parts(held) | {"total": held.total} for name, held in self.phases.items()
            },
            "most": parts(self.most),
            "reserved": self.reserved,
            "device": self.device,
        }
