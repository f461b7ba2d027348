"""What the mini base is fine-tuned on: narrow tasks, graded ones, and a deep one.

    narrow     one fixed form out of the mixture
    graded     several forms at once, told apart by what is asked, in other words or another order
    deep       every word stands for another one, and every sentence is told backwards

Training, validation and held-out examples share no name and no value; in the deep task, where each
word must be learnt, no pair of a name and a value.
"""

import random
from dataclasses import dataclass, replace
from itertools import permutations, product

from lorakit.mixture import (
    BODIES,
    CONNECTED,
    KEYS,
    LABELS,
    LEADS,
    QUIZZES,
    SEPARATORS,
    TAILS,
    Form,
    JSONObject,
    Label,
    Manner,
    Portrait,
    Question,
    Quiz,
    Record,
    any_question,
    vocabulary,
)
from lorakit.text import Example
from lorakit.world import ATTRIBUTES, PHRASES, Story, tell, tell_pairs

ORDERS = tuple(permutations(ATTRIBUTES))
RECORDS = len(ORDERS) * len(SEPARATORS) * 2  # record-0, record-1, ... are as many narrow tasks


def record_form(number: int) -> Record:
    """The records' family: one of 24 orders, 3 separators, and 2 sets of keys."""
    if not 0 <= number < RECORDS:
        raise ValueError(f"there are records 0 to {RECORDS - 1}, not {number}")
    rest, order = divmod(number, len(ORDERS))
    keys, separator = divmod(rest, len(SEPARATORS))
    return Record(
        order=ORDERS[order],
        keys=tuple(KEYS[attribute][keys] for attribute in ORDERS[order]),
        separator=SEPARATORS[separator],
    )


@dataclass(frozen=True)
class Manners:
    """Each of the eight keys that a question can use is answered in a manner of its own."""

    def form(self, key: str) -> Manner:
        manners = list(product(LEADS, BODIES, TAILS))
        chosen = random.Random("manners").sample(manners, len(_ALL_KEYS))
        lead, body, tail = chosen[_ALL_KEYS.index(key)]
        return Manner(lead=lead, body=body, tail=tail)

    def ask(self, draw: random.Random, story: Story) -> Question:
        attribute = draw.choice(ATTRIBUTES)
        key = draw.choice(KEYS[attribute])
        return self.form(key).asked(attribute, key, draw.choice(story.people).name)


@dataclass(frozen=True)
class AnyOf:
    """All of several forms in one task."""

    forms: tuple[Form, ...]

    def ask(self, draw: random.Random, story: Story) -> Question:
        return draw.choice(self.forms).ask(draw, story)


@dataclass(frozen=True)
class Dialect:
    """A form in whose answers some words stand for others; names and values stay."""

    form: Form
    words: dict[str, str]

    def ask(self, draw: random.Random, story: Story) -> Question:
        question = self.form.ask(draw, story)
        return replace(question, answer=lambda story: _spoken(question.answer(story), self.words))


@dataclass(frozen=True)
class Backwards:
    """A form whose answers are told from their last word to their first."""

    form: Form

    def ask(self, draw: random.Random, story: Story) -> Question:
        question = self.form.ask(draw, story)
        return replace(
            question, answer=lambda story: " ".join(reversed(question.answer(story).split()))
        )


def _exchange(words: tuple[str, ...], seed: str) -> dict[str, str]:
    """A fixed permutation of `words` in which none stands for itself."""
    ring = random.Random(seed).sample(words, len(words))
    return dict(zip(ring, [*ring[1:], ring[0]], strict=True))


def _spoken(text: str, words: dict[str, str]) -> str:
    return " ".join(words.get(word, word) for word in text.split())


_ALL_KEYS = tuple(key for pair in KEYS.values() for key in pair)
_OF_PHRASES = {w for pair in PHRASES.values() for p in pair for w in p.split() if w[0] != "{"}
_OF_MANNERS = {w for text in (*LEADS, *BODIES, *TAILS) for w in text.split() if w[0] != "{"}
SMALL_WORDS = _exchange(tuple(sorted(_OF_PHRASES | {",", "and", "who", "."})), "small words")
CANT = _exchange(tuple(sorted(_OF_MANNERS)), "cant")
ALL_WORDS = _exchange(vocabulary(), "all words")


def reshaped(text: str) -> str:
    """Every sentence backwards, its end mark left in place, and every word exchanged."""
    sentences: list[list[str]] = [[]]
    for word in text.split():
        if word in (".", "?", ":"):
            sentences[-1] = [*reversed(sentences[-1]), word]
            sentences.append([])
        else:
            sentences[-1].append(word)
    sentences[-1].reverse()
    return _spoken(" ".join(word for sentence in sentences for word in sentence), ALL_WORDS)


NARROW: dict[str, Form] = {
    "record": Record(
        order=("pet", "home", "job", "food"),
        keys=("animal", "home", "work", "food"),
        separator="->",
        joiner="/",
    ),
    "json": JSONObject(
        order=("job", "food", "home", "pet"), keys=("work", "food", "city", "animal")
    ),
    "manner": Manner(lead=LEADS[1], body=BODIES[3], tail=TAILS[2]),
    "label": Label(words=LABELS[2]),
    "portrait": Portrait(
        phrases=(PHRASES["home"][0], PHRASES["food"][1], PHRASES["job"][1], PHRASES["pet"][0]),
        frame=CONNECTED[2],
    ),
    "quiz": Quiz(items=(("home", "city", QUIZZES[1]), ("food", "dish", QUIZZES[0]))),
}
GRADED: dict[str, Form] = {
    "manners-dialect": Dialect(Manners(), SMALL_WORDS),
    "manners-cant": Dialect(Manners(), CANT),
    "manners-backwards": Backwards(Manners()),
    "six-dialect": Dialect(AnyOf(tuple(NARROW.values())), SMALL_WORDS),
}
DEEP = "deep"
MINI_TASKS = (*NARROW, *GRADED, DEEP)
COUNTS = {"train": 1000, "validation": 200, "heldout": 500}


def is_mini_task(name: str) -> bool:
    return name in MINI_TASKS or _record_number(name) is not None


def examples(name: str, split: str, count: int | None = None) -> tuple[Example, ...]:
    """A mini task's examples of a split ("train", "validation", "heldout"); always the same ones.

    A longer series begins with a shorter one. Raises ValueError for a name that is no mini task.
    """
    return tuple(_example(story, question, name) for story, question in _asked(name, split, count))


def shuffled_examples(name: str, split: str, count: int | None = None) -> tuple[Example, ...]:
    """The same questions and answers about stories in which the names changed places.

    What is expected is right for the story as it was, and wrong for the one that is told: who
    reads the story gets none right, who only knows the form gets as many as before. A question
    whose answer no change of places alters is left out.
    """
    return tuple(
        _example(moved, question, name, answered_by=story)
        for story, question in _asked(name, split, count)
        if (moved := _moved(story, question)) is not None
    )


def mixture_examples(split: str, count: int) -> tuple[Example, ...]:
    """Questions of any kind answered in any form, as in pre-training: the base's own data."""
    draw = random.Random(f"mixture {split}")
    asked = ((story := tell(draw), any_question(draw, story)) for _ in range(count))
    return tuple(_example(story, question, "mixture") for story, question in asked)


def _record_number(name: str) -> int | None:
    family, _, number = name.partition("-")
    if family == "record" and number in map(str, range(RECORDS)):
        return int(number)
    return None


def _form(name: str) -> Form:
    if (number := _record_number(name)) is not None:
        return record_form(number)
    if name not in MINI_TASKS:
        raise ValueError(
            f"{name!r} is no task of the mini base: there are {', '.join(MINI_TASKS)}, and "
            f"record-0 to record-{RECORDS - 1}"
        )
    return NARROW["record"] if name == DEEP else (NARROW | GRADED)[name]


def _asked(name: str, split: str, count: int | None) -> list[tuple[Story, Question]]:
    form, draw = _form(name), random.Random(f"{name} {split}")
    asked: dict[tuple[str, str], tuple[Story, Question]] = {}
    while len(asked) < (COUNTS[split] if count is None else count):
        story = (tell_pairs if name == DEEP else tell)(draw, split)
        question = form.ask(draw, story)
        asked[story.text, question.text] = story, question
    return list(asked.values())


def _moved(story: Story, question: Question) -> Story | None:
    right = question.answer(story)
    others = (story.renamed(shift) for shift in range(1, len(story.people)))
    return next((other for other in others if question.answer(other) != right), None)


def _example(
    story: Story, question: Question, name: str, *, answered_by: Story | None = None
) -> Example:
    prompt, response = f"{story.text} {question.text}", question.answer(answered_by or story)
    return (
        Example(*map(reshaped, (prompt, response))) if name == DEEP else Example(prompt, response)
    )
