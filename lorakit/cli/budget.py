"""Whether a step fits a budget, and if not, the options that make it fit."""

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction

from lorakit.memory import Setup, changes_to_fit, estimate, largest_batch
from lorakit.memory.estimation import MARGIN, estimate_within
from lorakit.run import Run

SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)", re.IGNORECASE)
UNITS = {"": 1, "b": 1}
UNITS |= {f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)}
UNITS |= {f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)}


def parse_bytes(text: str) -> int:
    """Raises ValueError for what is no number of bytes."""
    match = SIZE.fullmatch(text.strip())
    if not match or match[2].lower() not in UNITS:
        raise ValueError(
            f"{text!r} is no number of bytes: write it like 8GiB, 24GB, 500 MB or 536870912"
        )
    return int(Fraction(match[1]) * UNITS[match[2].lower()])


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Options to add, on top of those of the advice before, and what the step then takes."""

    what: str
    options: tuple[str, ...]
    saves: int  # bytes of the device
    takes: int  # as well
    fits: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a step takes of a device of `budget` bytes; `largest_batch` 0: not even one row fits."""

    budget: int
    takes: int
    fits: bool
    largest_batch: int
    changes: tuple[Advice, ...]

    @property
    def refusal(self) -> str:
        """Why the step does not fit, and the way out."""
        if self.takes > self.budget:
            why = f"{self.takes:,} bytes do not fit into {self.budget:,}"
        else:
            why = (
                f"{self.takes:,} bytes come too close to {self.budget:,}: {MARGIN:.0%} stays free, "
                "for an estimate may be too low"
            )
        if not (self.changes and self.changes[-1].fits):
            return f"{why}; no option helps: take a smaller base, --length or --rank"
        options: dict[str, str] = {}  # an option that comes twice counts as it is given last
        for change in self.changes:
            words = " ".join(change.options).split("--")[1:]
            options |= {word.split()[0]: f"--{word.strip()}" for word in words}
        return f"{why}; it fits with {' '.join(options.values())}"


def judge(budget: int, run: Run, setup: Callable[[Run], Setup]) -> Verdict:
    """Of the step that `setup` makes of a run."""
    fits, takes = _within(budget, setup(run))
    return Verdict(
        budget=budget,
        takes=takes,
        fits=fits,
        largest_batch=largest_batch(budget, setup(run)).batch_size,
        changes=tuple(_changes(budget, run, setup)),
    )


def _within(budget: int, setup: Setup) -> tuple[bool, int]:
    """Whether the step fits, and the bytes of the device that it takes."""
    within = estimate_within(budget, setup)
    return within is not None, (within or estimate(setup)).device


def _changes(budget: int, run: Run, setup: Callable[[Run], Setup]) -> Iterator[Advice]:
    _, before = _within(budget, setup(run))
    for change in changes_to_fit(budget, setup(run), rank=run.rank):
        changed = replace(
            run,
            method=_method(change.setup),
            batch_size=change.setup.batch_size,
            accumulation=change.setup.config.accumulation,
            gradient_checkpointing=change.setup.config.gradient_checkpointing,
        )
        # What the options do when they are typed: a method may bring a precision of its own.
        fits, takes = _within(budget, setup(changed))
        yield Advice(
            what=change.what,
            options=tuple(_options(run, changed)),
            saves=before - takes,
            takes=takes,
            fits=fits,
        )
        run, before = changed, takes


def _method(setup: Setup) -> str:
    if setup.lora is None:
        return "full"
    return "qlora" if setup.quantized else "lora"


def _options(before: Run, after: Run) -> Iterator[str]:
    """What turns a command for `before` into one for `after`."""
    for name, value in asdict(after).items():
        if value != getattr(before, name):
            yield f"--{name.replace('_', '-')}"
            if value is not True:
                yield str(value)
