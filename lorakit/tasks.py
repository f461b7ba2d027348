"""What to fine-tune on: the orders task (a sentence to JSON), or a JSONL file of one's own.

    {"prompt": "...", "response": "..."}        one example a line

Orders teach a form, not knowledge: the base knows every word and still gets none right. The
held-out examples have names and wordings that training never shows.
"""

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lorakit.files import replacing
from lorakit.text import Example

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ITEMS = (
    "lemon cakes",
    "rye loaves",
    "cheese rolls",
    "apple pies",
    "plum tarts",
    "butter biscuits",
    "seed buns",
    "honey muffins",
    "garlic flatbreads",
    "walnut brownies",
)
_FIRST_NAMES = {
    "train": (
        *("Anna", "Ben", "Chloe", "David", "Elena", "Farid", "Grace", "Hugo", "Ines", "Jack"),
        *("Karin", "Leo", "Mina", "Noah", "Olga", "Peter", "Ruth", "Simon", "Tina", "Victor"),
    ),
    "heldout": (
        *("Alice", "Bruno", "Clara", "Daniel", "Emma", "Frank", "Helen", "Ivan", "Julia", "Kevin"),
        *("Laura", "Martin", "Nina", "Oscar", "Rosa", "Sam", "Tara", "Vera", "Walter", "Yusuf"),
    ),
}
_LAST_NAMES = {
    "train": (
        *("Weber", "Carter", "Moreau", "Okoye", "Rossi", "Haddad", "Kim", "Lind", "Silva"),
        *("Turner", "Holm", "Novak", "Sato", "Fischer", "Petrov", "Young", "Walsh", "Reed"),
    ),
    "heldout": (
        *("Jansen", "Blake", "Delgado", "Foster", "Singh", "Murphy", "Kovacs", "Berg", "Torres"),
        *("Demir", "Hansen", "Cooper", "Lopez", "Meyer", "Brooks", "Costa", "Dunn", "Price"),
    ),
}
_WORDINGS = {
    "train": (
        "{name} would like {count} {item} for {day}.",
        "Please put down {count} {item} for {name}, to be collected on {day}.",
        "On {day}, {name} will pick up {count} {item}.",
        "Hi, this is {name}. Can I have {count} {item} on {day}?",
        "{count} {item} for {name}, {day} please.",
        "The customer is {name}: {count} {item}, needed on {day}.",
    ),
    "heldout": (
        "{name} called and asked for {count} {item} by {day}.",
        "We need {count} {item} ready on {day}; the name is {name}.",
        "Could {name} get {count} {item} this {day}?",
        "Reserve {count} {item} under {name} for {day}.",
        "For {day} we promised {name} {count} {item}.",
    ),
}
_COUNTS = {"train": 60, "heldout": 100}
LEAST = 5  # examples that a file must have, so that one in five can be held out


@dataclass(frozen=True)
class Task:
    """Examples to train on, and others to be judged by."""

    name: str
    train: tuple[Example, ...]
    heldout: tuple[Example, ...]


def orders(split: str) -> tuple[Example, ...]:
    """The orders task's "train" (60) or "heldout" (100) examples; always the same ones."""
    draw = random.Random(f"orders {split}")
    seen: dict[Example, None] = {}
    while len(seen) < _COUNTS[split]:
        name = f"{draw.choice(_FIRST_NAMES[split])} {draw.choice(_LAST_NAMES[split])}"
        item, day, count = draw.choice(_ITEMS), draw.choice(_DAYS), draw.randint(2, 30)
        wording = _WORDINGS[split][len(seen) % len(_WORDINGS[split])]
        sentence = wording.format(name=name, count=count, item=item, day=day)
        answer = {"customer": name, "item": item, "quantity": count, "day": day}
        seen[Example(f"Order as JSON: {sentence}", json.dumps(answer))] = None
    return tuple(seen)


def load_task(name: str) -> Task:
    """The task called `name` ("orders"), or the one in a JSONL file, every fifth line held out.

    Raises ValueError for a name that is neither, or a file with a bad line, by its number.
    """
    if name == "orders":
        return Task(name, orders("train"), orders("heldout"))
    path = Path(name)
    if not path.is_file():
        raise ValueError(f'task {name!r} is not known: it is "orders", or the path of a JSONL file')
    examples = read_examples(path)
    if len(examples) < LEAST:
        raise ValueError(
            f"{path} has {len(examples)} examples: at least {LEAST} are needed, as one in five is "
            "held out to judge by"
        )
    return Task(
        path.stem,
        tuple(example for i, example in enumerate(examples) if i % 5 != 4),
        tuple(examples[4::5]),
    )


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


if __name__ == "__main__":  # python -m lorakit.tasks data/tasks
    for split in _COUNTS:
        write_examples(Path(sys.argv[1]) / "orders" / f"{split}.jsonl", orders(split))
