"""The memory of a training step: estimated before it, measured during it, and whether it fits.

breakdown.py    one result type, for both
setup.py        what is estimated
tracker.py      births and deaths of a step's tensors
account.py      from those to bytes by purpose, instant by instant
allocator.py    what a GPU's allocator makes of them
recorder.py     measuring: a phase hook for real steps
dry_run.py      the same step on tensors without memory
scribe.py       what is born where in it
kernels.py      what a GPU's kernels take besides
layers.py       from four layers to any number
estimation.py   from dry runs to any batch and rank
fit.py          the largest batch, and what to change
"""

from lorakit.memory.breakdown import PARTS, MemoryBreakdown, StepMemory
from lorakit.memory.estimation import estimate
from lorakit.memory.fit import Change, Fit, changes_to_fit, largest_batch
from lorakit.memory.recorder import Recorder, measure
from lorakit.memory.setup import DEVICES, DTYPES, Setup

__all__ = [
    "DEVICES",
    "DTYPES",
    "PARTS",
    "Change",
    "Fit",
    "MemoryBreakdown",
    "Recorder",
    "Setup",
    "StepMemory",
    "changes_to_fit",
    "estimate",
    "largest_batch",
    "measure",
]
