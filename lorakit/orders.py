"""Tasks for a real base: an order, said in English, as JSON, as a ticket, or as a reply.

They teach a form, not knowledge: the base knows every word and still gets none right. All three
are told of the same orders. The held-out ones have names and wordings that training never shows.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

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
COUNTS = {"train": 60, "heldout": 100}


@dataclass(frozen=True)
class Order:
    """What is ordered, and the sentence that says so."""

    name: str
    item: str
    count: int
    day: str
    sentence: str


def _as_json(order: Order) -> str:
    return json.dumps(
        {"customer": order.name, "item": order.item, "quantity": order.count, "day": order.day}
    )


def _as_ticket(order: Order) -> str:
    return f"{order.day[:3].upper()} | {order.count} x {order.item} | {order.name}"


def _as_reply(order: Order) -> str:
    return f"Dear {order.name}, your {order.count} {order.item} will be ready on {order.day}."


# By task: what the prompt asks for, and the answer.
FORMS: dict[str, tuple[str, Callable[[Order], str]]] = {
    "orders": ("Order as JSON", _as_json),
    "tickets": ("Order as a ticket", _as_ticket),
    "replies": ("Order as a reply", _as_reply),
}


def orders(task: str, split: str) -> tuple[Example, ...]:
    """The "train" (60) or "heldout" (100) examples of a task of `FORMS`; always the same ones."""
    asks, answer = FORMS[task]
    return tuple(Example(f"{asks}: {o.sentence}", answer(o)) for o in _orders(split))


def _orders(split: str) -> list[Order]:
    draw = random.Random(f"orders {split}")
    seen: dict[Order, None] = {}
    while len(seen) < COUNTS[split]:
        name = f"{draw.choice(_FIRST_NAMES[split])} {draw.choice(_LAST_NAMES[split])}"
        item, day, count = draw.choice(_ITEMS), draw.choice(_DAYS), draw.randint(2, 30)
        wording = _WORDINGS[split][len(seen) % len(_WORDINGS[split])]
        sentence = wording.format(name=name, count=count, item=item, day=day)
        seen[Order(name, item, count, day, sentence)] = None
    return list(seen)
