"""What to fine-tune on, by name: orders for a real base, the mini base's tasks, or one's own file.

    {"prompt": "...", "response": "..."}        one example a line

What the named tasks ask is written in orders.py and mini_tasks.py.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from lorakit.files import replacing
from lorakit.mini_tasks import COUNTS, MINI_TASKS, RECORDS, examples, is_mini_task
from lorakit.orders import FORMS, orders
from lorakit.text import Example

LEAST = 5  # examples that a file must have, so that one in five can be held out

TASKS = (
    f"one of {', '.join(FORMS)}, the path of a JSONL file, or, for the mini base, one of "
    f"{', '.join(MINI_TASKS)} and record-0 to record-{RECORDS - 1}"
)


@dataclass(frozen=True)
class Task:
    """Examples to train on, others to be judged by, and, where there are, others to choose by."""

    name: str
    train: tuple[Example, ...]
    heldout: tuple[Example, ...]
    validation: tuple[Example, ...] = ()

    @property
    def splits(self) -> tuple[tuple[Example, ...], ...]:
        return self.train, self.validation, self.heldout


def load_task(name: str, train: int | None = None) -> Task:
    """The task called `name` ("orders", "json", ...), or the one in a JSONL file, every fifth line
    held out. One of the mini base has as many as `train` training examples, if that is more.

    Raises ValueError for a name that is neither, or a file with a bad line, by its number.
    """
    if name in FORMS:
        return Task(name, orders(name, "train"), orders(name, "heldout"))
    if is_mini_task(name):
        return mini_task(name, train)
    path = Path(name)
    if not path.is_file():
        if path.suffix or path.name != name:
            raise ValueError(f"there is no file {name}: a task is {TASKS}")
        raise ValueError(f"task {name!r} is not known: it is {TASKS}")
    lines = read_examples(path)
    if len(lines) < LEAST:
        raise ValueError(
            f"{path} has {len(lines)} examples: at least {LEAST} are needed, as one in five is "
            "held out to judge by"
        )
    return Task(
        path.stem,
        tuple(example for i, example in enumerate(lines) if i % 5 != 4),
        tuple(lines[4::5]),
    )


def mini_task(name: str, train: int | None = None) -> Task:
    """A task of the mini base, in its three splits, with `train` training examples or more."""
    return _mini_task(name, max(train or 0, COUNTS["train"]))


@lru_cache(maxsize=32)
def _mini_task(name: str, train: int) -> Task:
    counts = COUNTS | {"train": train}
    return Task(name, **{split: examples(name, split, count) for split, count in counts.items()})


def read_examples(path: Path | str) -> list[Example]:
    """The examples of a JSONL file; empty lines are passed over.

    Raises ValueError naming the file, the line (from 1) and what is wrong with it.
    """
    examples = []
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        if line.strip():
            try:
                examples.append(_read_example(line))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    return examples


def _read_example(line: bytes) -> Example:
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError('not an object like {"prompt": "...", "response": "..."}')
    for key in ("prompt", "response"):
        if key not in value:
            raise ValueError(
                f"there is no {key!r}, only {', '.join(map(repr, value)) or 'nothing'}"
            )
        if not isinstance(value[key], str) or not value[key].strip():
            raise ValueError(f"{key!r} must be a text that is not empty, got {value[key]!r}")
    return Example(value["prompt"], value["response"])


def write_examples(path: Path | str, examples: Sequence[Example]) -> None:
    """One example a line, as `read_examples` reads them."""
    lines = [json.dumps(asdict(example), ensure_ascii=False) + "\n" for example in examples]
    with replacing(path) as fresh:
        fresh.write_text("".join(lines), encoding="utf-8")
