"""The mini world: three people, four facts about each, told in twelve shuffled sentences.

    Ada lives in Paris . Finn keeps a goat . Ada is a baker . Yara loves soup . ...

Two people never share a fact, so that who is meant is never in doubt. Names and values are dealt to
three splits: a task is judged by people and things that its training never mentions. A text is its
words with one space between. Everything follows from a seed; this file knows no task and no model.
"""

import random
from dataclasses import dataclass
from typing import NamedTuple

ATTRIBUTES = ("job", "home", "pet", "food")


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Ada Ben Cleo Dan Eva Finn Gina Hugo Iris Jack Kira Leo "
    "Mia Nora Otto Pia Ravi Sara Tom Uma Vera Will Yara Zoe"
)
VALUES = {
    "job": _words(
        "baker butcher carpenter dentist doctor driver farmer gardener "
        "lawyer mason nurse painter pilot sailor singer teacher"
    ),
    "home": _words(  # four in Europe, four elsewhere, twice: every split has as many of either
        "Berlin Dublin Geneva London Cairo Delhi Hanoi Kyoto "
        "Madrid Oslo Paris Rome Lima Manila Nairobi Quito"
    ),
    "pet": _words(
        "canary cat cow dog donkey duck ferret fish "
        "goat hamster horse lizard parrot rabbit snake turtle"
    ),
    "food": _words(
        "beans bread butter cake cheese curry honey lentils "
        "noodles olives pasta peas pizza rice salad soup"
    ),
}
OFFICES = _words(
    "archive bank census clinic club court embassy factory hospital hotel library market "
    "museum office police port press prison school station theatre tower union zoo"
)
PHRASES = {  # what can be said of a person, two ways each
    "job": ("is a {job}", "works as a {job}"),
    "home": ("lives in {home}", "comes from {home}"),
    "pet": ("has a {pet}", "keeps a {pet}"),
    "food": ("likes {food}", "loves {food}"),
}
PEOPLE = 3  # in a story
SPLITS = {"train": (0, 1), "validation": (2,), "heldout": (3,)}  # remainders by 4


class Person(NamedTuple):
    """A name and four facts."""

    name: str
    job: str
    home: str
    pet: str
    food: str

    def fill(self, text: str) -> str:
        """`text` with this person's facts for {name}, {job} and so on."""
        return text.format_map(self._asdict())


@dataclass(frozen=True)
class Story:
    """Who is in it, and its sentences in order: whom each is about, and what it says."""

    people: tuple[Person, ...]
    sentences: tuple[tuple[int, str], ...]

    @property
    def text(self) -> str:
        return " ".join(self.people[i].fill(f"{{name}} {phrase} .") for i, phrase in self.sentences)

    def person(self, name: str) -> Person:
        (found,) = (person for person in self.people if person.name == name)
        return found

    def renamed(self, shift: int) -> "Story":
        """The same sentences with each name moved on to the person `shift` places further."""
        names = [person.name for person in self.people]
        moved = [names[(i - shift) % len(names)] for i in range(len(names))]
        people = (p._replace(name=name) for p, name in zip(self.people, moved, strict=True))
        return Story(tuple(people), self.sentences)


def split_words(words: tuple[str, ...], split: str | None, start: int = 0) -> tuple[str, ...]:
    """The words that a split may use, dealt out from `start`: each belongs to one split.

    None may use them all.
    """
    if split is None:
        return words
    return tuple(word for i, word in enumerate(words, start) if i % 4 in SPLITS[split])


def tell(draw: random.Random, split: str | None = None) -> Story:
    """A story of a split's own names and values; with None, of all there are."""
    names = draw.sample(split_words(NAMES, split), PEOPLE)
    columns = [draw.sample(split_words(VALUES[key], split), PEOPLE) for key in ATTRIBUTES]
    return _telling(draw, names, columns)


def tell_pairs(draw: random.Random, split: str) -> Story:
    """A story of all names and all values, in which each *pair* of the two is the split's own."""
    names = draw.sample(NAMES, PEOPLE)
    columns = []
    for key in ATTRIBUTES:
        column: list[str] = []
        while len(set(column)) < PEOPLE:
            own = [split_words(VALUES[key], split, NAMES.index(name)) for name in names]
            column = [draw.choice(values) for values in own]
        columns.append(column)
    return _telling(draw, names, columns)


def _telling(draw: random.Random, names: list[str], columns: list[list[str]]) -> Story:
    people = tuple(Person(*facts) for facts in zip(names, *columns, strict=True))
    sentences = [(i, draw.choice(PHRASES[key])) for i in range(PEOPLE) for key in ATTRIBUTES]
    draw.shuffle(sentences)
    return Story(people, tuple(sentences))
