"""The orders task: a sentence in English to JSON. It teaches a form, not knowledge.

The base knows every word and still gets none right. The held-out examples have names and wordings
that training never shows.
"""

import json
import random

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
