"""Questions on the whole lesson: what is right, and why.

    choice      one of the options            several     all that hold
    number      within a tolerance            order       all of them, from first to last
    bug         the one line of code that is wrong

The questions are in quiz.toml, in the order of the lesson. An answer is an option's text, a list of
texts, or a number. Knows no control, and nobody's answers.
"""

import math
import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("quiz.toml")
KINDS = ("choice", "several", "number", "order", "bug")

Answer = Any  # an option's text, a list of texts, or a number


@dataclass(frozen=True, kw_only=True)
class Option:
    """Something that may be answered, and why it is right or wrong; of a number, its `value`."""

    text: str
    why: str
    right: bool = False
    value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question. Options are shown as they stand; an order's stand in the right one.

    A bug's are the lines of its code. A number's name what is right, within a relative `tolerance`,
    and the usual mistakes; `otherwise` is said of all other numbers, which are in `unit`.
    """

    key: str
    topic: str
    kind: str
    page: str  # a notebook's number, as in "02"
    question: str
    options: tuple[Option, ...]
    tolerance: float = 0.0
    unit: str = ""
    otherwise: str = ""

    def __post_init__(self):
        texts = [option.text for option in self.options]
        right = sum(option.right for option in self.options)
        wanted = {"several": range(1, len(texts)), "order": range(1)}.get(self.kind, range(1, 2))
        if self.kind not in KINDS:
            raise ValueError(f"{self.key}: kind must be one of {', '.join(KINDS)}: {self.kind!r}")
        if len(texts) < 3 or len(set(texts)) < len(texts):
            raise ValueError(f"{self.key}: three options or more, each another: {texts}")
        if not all(option.why for option in self.options):
            raise ValueError(f"{self.key}: every option says why it is right or wrong")
        if right not in wanted:
            raise ValueError(f"{self.key}: {right} options are right, of a {self.kind}")
        if self.kind == "number":
            if not self.otherwise or any(option.value is None for option in self.options):
                raise ValueError(f"{self.key}: a number has values, and says what of all others")
            for option in self.options:
                if len(_named(self, option.value)) > 1:
                    raise ValueError(f"{self.key}: {option.text} is too near to another number")

    @property
    def solution(self) -> Answer:
        """What is right, as an answer."""
        right = [option for option in self.options if option.right]
        if self.kind == "order":
            return [option.text for option in self.options]
        if self.kind == "several":
            return sorted(option.text for option in right)
        return right[0].text if self.kind != "number" else right[0].value or 0.0


@dataclass(frozen=True, kw_only=True)
class Remark:
    """What is said of one option after an answer; `chosen` if it was answered, or stood there."""

    text: str
    why: str
    right: bool
    chosen: bool


@cache
def quiz_items() -> tuple[Item, ...]:
    """The lesson's questions, in their order. Raises ValueError for one that is not well put."""
    found = tomllib.loads(FILE.read_text(encoding="utf-8"))["item"]
    items = tuple(
        Item(**{**fields, "options": tuple(Option(**option) for option in fields["options"])})
        for fields in found
    )
    if len({item.key for item in items}) < len(items):
        raise ValueError(f"two questions have one key: {[item.key for item in items]}")
    return items


# One answer


def check_answer(item: Item, answer: Any) -> None:
    """Raises ValueError, saying what to do, for what is no answer to the question."""
    texts = [option.text for option in item.options]
    if item.kind == "number":
        if isinstance(answer, bool) or not isinstance(answer, (int, float)):
            raise ValueError(f"a number is asked for, got {answer!r}")
        if not math.isfinite(answer):
            raise ValueError(f"a finite number is asked for, got {answer!r}")
    elif item.kind in ("several", "order"):
        if isinstance(answer, str) or not isinstance(answer, Sequence):
            raise ValueError(f"several options are asked for, got {answer!r}")
        if item.kind == "order" and sorted(answer) != sorted(texts):
            raise ValueError("each of them has one place: choose every one once")
        if not answer or len(set(answer)) < len(answer) or not set(answer) <= set(texts):
            raise ValueError("choose at least one of the options")
    elif answer not in texts:
        raise ValueError("choose one of the options")


def is_right(item: Item, answer: Answer) -> bool:
    """Whether it is the solution; of a number, whether it is within the tolerance.

    Raises ValueError as `check_answer` does.
    """
    check_answer(item, answer)
    if item.kind == "number":
        found = _nearest(item, answer)
        return found is not None and found.right
    return (sorted(answer) if item.kind == "several" else answer) == item.solution


def explain(item: Item, answer: Answer) -> tuple[Remark, ...]:
    """What is to be said after an answer: of every option, what was answered marked.

    Of a number: of the right one, and before it of the mistake that was made. Raises ValueError as
    `check_answer` does.
    """
    check_answer(item, answer)
    if item.kind == "number":
        right = next(option for option in item.options if option.right)
        found = _nearest(item, answer) or Option(text=written(answer), why=item.otherwise)
        said = [found] if found is right else [found, right]
        return tuple(Remark(text=o.text, why=o.why, right=o.right, chosen=o is found) for o in said)
    if item.kind == "order":
        places = enumerate(zip(item.options, answer, strict=True))
        return tuple(
            Remark(text=f"{n + 1}. {o.text}", why=o.why, right=True, chosen=o.text == there)
            for n, (o, there) in places
        )
    chosen = [answer] if isinstance(answer, str) else answer
    return tuple(
        Remark(text=o.text, why=o.why, right=o.right, chosen=o.text in chosen) for o in item.options
    )


def written(number: Any) -> str:
    """As the lesson writes numbers: 3,840, 0.26."""
    return f"{number:,.0f}" if float(number).is_integer() else f"{number:,.6g}"


def shuffled(item: Item) -> tuple[Option, ...]:
    """An order's options as they are offered: the same each time, and never in the right order."""
    options = list(item.options)
    draw = random.Random(item.key)
    while tuple(options) == item.options:
        draw.shuffle(options)
    return tuple(options)


def _nearest(item: Item, number: Any) -> Option | None:
    """The option that a number is, within the tolerance."""
    named = _named(item, number)
    return min(named, key=lambda option: abs(number - (option.value or 0.0)), default=None)


def _named(item: Item, number: Any) -> list[Option]:
    """The options that a number may be meant for."""
    near = max(item.tolerance, 1e-9)
    return [o for o in item.options if math.isclose(number, o.value or 0.0, rel_tol=near)]
