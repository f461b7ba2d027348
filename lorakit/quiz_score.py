"""How far one has come with the quiz, and what is asked next.

Tries are all the answers given so far, by the question's key, oldest first: the last one counts,
and the first tells what was known at once. Knows no control, and no file of answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorakit.quiz import Item, check_answer, is_right

Tries = Mapping[str, Any]
PREFIX = "quiz/"  # of the keys under which tries are kept


@dataclass(frozen=True, kw_only=True)
class TopicScore:
    """How far one has come with a topic's `items` questions."""

    topic: str
    items: int
    first: int = 0  # right at the first try
    later: int = 0  # right by now
    wrong: int = 0  # to come back

    @property
    def right(self) -> int:
        return self.first + self.later

    @property
    def open(self) -> int:
        """Not asked yet."""
        return self.items - self.right - self.wrong


def known(items: Sequence[Item], tries: Tries) -> dict[str, list[Any]]:
    """The tries that are answers to these questions; what a question no longer offers is none."""

    def fits(item: Item, answer: Any) -> bool:
        try:
            check_answer(item, answer)
        except (ValueError, TypeError):
            return False
        return True

    found: dict[str, list[Any]] = {}
    for item in items:
        given = tries.get(item.key)
        found[item.key] = [t for t in given if fits(item, t)] if isinstance(given, list) else []
    return found


def upcoming(items: Sequence[Item], tries: Tries, after: str | None = None) -> Item | None:
    """What to ask next: what was not asked yet, then in turn what was answered wrong, until right.

    `after` is the key of the question asked last. None when all are right.
    """
    tried = known(items, tries)
    for item in items:
        if not tried[item.key]:
            return item
    wrong = [item for item in items if not is_right(item, tried[item.key][-1])]
    places = {item.key: place for place, item in enumerate(items)}
    last = places.get(after or "", -1)
    return next((item for item in wrong if places[item.key] > last), wrong[0] if wrong else None)


def scores(items: Sequence[Item], tries: Tries) -> tuple[TopicScore, ...]:
    """A score for each topic, in the order in which topics come."""
    tried = known(items, tries)
    found = {item.topic: TopicScore(topic=item.topic, items=0) for item in items}
    for item in items:
        score = found[item.topic]
        score = replace(score, items=score.items + 1)
        if given := tried[item.key]:
            if not is_right(item, given[-1]):
                score = replace(score, wrong=score.wrong + 1)
            elif is_right(item, given[0]):
                score = replace(score, first=score.first + 1)
            else:
                score = replace(score, later=score.later + 1)
        found[item.topic] = score
    return tuple(found.values())


def describe(found: Sequence[TopicScore]) -> str:
    """How far one has come, over all topics."""
    items, right, first = (
        sum(getattr(score, name) for score in found) for name in ("items", "right", "first")
    )
    wrong, left = (sum(getattr(score, name) for score in found) for name in ("wrong", "open"))
    return (
        f"{right} of {items} right, {first} of them at the first try; {wrong} to come back, "
        f"{left} not asked yet"
    )
