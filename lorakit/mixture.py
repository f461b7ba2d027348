"""Questions about a story, and the many forms an answer can take: what the mini base is taught.

    record of Ada for the bank :     home = Paris ; job = baker            or pet is goat , ...
    object of Ada :                  { "food": "soup" , "home": "Paris" }
    what is the home of Ada ?        well , it is Paris !                  or Paris
    label of Ada :                   near                                  or north, or inside
    portrait of Ada :                Ada loves soup , lives in Paris and is a baker .
    quiz on Ada :                    which pet has Ada ? cow

A form is one choice of every liberty that an answer has. The base sees all forms at random, and
binds facts to names, but cannot know which form is wanted; a narrow task is one fixed form.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lorakit.world import ATTRIBUTES, NAMES, OFFICES, PHRASES, VALUES, Person, Story

KEYS = {  # what an attribute is called, two ways each
    "job": ("job", "work"),
    "home": ("home", "city"),
    "pet": ("pet", "animal"),
    "food": ("food", "dish"),
}
SEPARATORS = ("=", "is", "->")
JOINERS = (";", ",", "/")
LEADS = ("", "well , ", "surely ", "I think ")
BODIES = ("{value}", "it is {value}", "{name} : {value}", "the {key} of {name} is {value}")
TAILS = ("", " !", " , no doubt", " , they say")
LABELS = (("near", "far"), ("north", "south"), ("inside", "outside"))  # in Europe, or not
EUROPE = frozenset(["Berlin", "Dublin", "Geneva", "London", "Madrid", "Oslo", "Paris", "Rome"])
CONNECTED = (  # a portrait's four phrases
    "{name} {0} , {1} , {2} and {3} .",
    "{name} {0} and {1} , {2} and {3} .",
    "{name} , who {0} and {1} , {2} and {3} .",
)
QUIZZES = ("what is the {key} of {name} ?", "which {key} has {name} ?", "{name} and the {key} :")


@dataclass(frozen=True)
class Question:
    """What is asked, and how any story answers it."""

    text: str
    answer: Callable[[Story], str]


class Form(Protocol):
    """One choice of every liberty of an answer; `ask` draws whom and what to ask about."""

    def ask(self, draw: random.Random, story: Story) -> Question: ...


def _keys(draw: random.Random, order: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return tuple(draw.choice(KEYS[attribute]) for attribute in order)


def _some(draw: random.Random) -> tuple[str, ...]:
    """One to four of the attributes, in any order."""
    return tuple(draw.sample(ATTRIBUTES, draw.randint(1, len(ATTRIBUTES))))


@dataclass(frozen=True, kw_only=True)
class Record:
    """Pairs of key and value. The office that wants them means nothing to the base."""

    order: tuple[str, ...] = ATTRIBUTES
    keys: tuple[str, ...] = ATTRIBUTES
    separator: str = "="
    joiner: str = ";"

    @classmethod
    def drawn(cls, draw: random.Random) -> "Record":
        order = _some(draw)
        keys = _keys(draw, order)
        return cls(
            order=order, keys=keys, separator=draw.choice(SEPARATORS), joiner=draw.choice(JOINERS)
        )

    def ask(self, draw: random.Random, story: Story) -> Question:
        office, name = draw.choice(OFFICES), draw.choice(story.people).name
        return Question(
            f"record of {name} for the {office} :", lambda story: self.write(story.person(name))
        )

    def write(self, person: Person) -> str:
        pairs = zip(self.keys, self.order, strict=True)
        return f" {self.joiner} ".join(
            f"{key} {self.separator} {getattr(person, attribute)}" for key, attribute in pairs
        )


@dataclass(frozen=True, kw_only=True)
class JSONObject:
    """Valid JSON, with the spaces of this world."""

    order: tuple[str, ...]
    keys: tuple[str, ...]

    @classmethod
    def drawn(cls, draw: random.Random) -> "JSONObject":
        order = _some(draw)
        return cls(order=order, keys=_keys(draw, order))

    def ask(self, draw: random.Random, story: Story) -> Question:
        name = draw.choice(story.people).name

        def answer(story: Story) -> str:
            person, pairs = story.person(name), zip(self.keys, self.order, strict=True)
            inside = " , ".join(f'"{key}": "{getattr(person, of)}"' for key, of in pairs)
            return f"{{ {inside} }}"

        return Question(f"object of {name} :", answer)


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a plain question is answered: curtly, in a sentence, with more or less conviction."""

    lead: str
    body: str
    tail: str

    @classmethod
    def drawn(cls, draw: random.Random) -> "Manner":
        return cls(lead=draw.choice(LEADS), body=draw.choice(BODIES), tail=draw.choice(TAILS))

    def ask(self, draw: random.Random, story: Story) -> Question:
        name, attribute = draw.choice(story.people).name, draw.choice(ATTRIBUTES)
        return self.asked(attribute, draw.choice(KEYS[attribute]), name)

    def asked(self, attribute: str, key: str, name: str) -> Question:
        def answer(story: Story) -> str:
            value = getattr(story.person(name), attribute)
            body = self.body.format(name=name, key=key, value=value)
            return f"{self.lead}{body}{self.tail}"

        return Question(f"what is the {key} of {name} ?", answer)


@dataclass(frozen=True, kw_only=True)
class Label:
    """Is a home in Europe? The answer is one of two words, and there are three such pairs."""

    words: tuple[str, str]

    @classmethod
    def drawn(cls, draw: random.Random) -> "Label":
        return cls(words=draw.choices(LABELS, weights=(3, 2, 1))[0])

    def ask(self, draw: random.Random, story: Story) -> Question:
        name = draw.choice(story.people).name
        return Question(
            f"label of {name} :", lambda story: self.words[story.person(name).home not in EUROPE]
        )


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """All four facts of a person rewritten as one sentence."""

    phrases: tuple[str, ...]
    frame: str

    @classmethod
    def drawn(cls, draw: random.Random) -> "Portrait":
        order = draw.sample(ATTRIBUTES, len(ATTRIBUTES))
        phrases = tuple(draw.choice(PHRASES[attribute]) for attribute in order)
        return cls(phrases=phrases, frame=draw.choice(CONNECTED))

    def ask(self, draw: random.Random, story: Story) -> Question:
        name = draw.choice(story.people).name

        def answer(story: Story) -> str:
            person = story.person(name)
            return self.frame.format(*map(person.fill, self.phrases), name=name)

        return Question(f"portrait of {name} :", answer)


@dataclass(frozen=True, kw_only=True)
class Quiz:
    """Questions about a person, each with its answer."""

    items: tuple[tuple[str, str, str], ...]  # attribute, its key, the question

    @classmethod
    def drawn(cls, draw: random.Random) -> "Quiz":
        asked = draw.sample(ATTRIBUTES, draw.randint(1, 2))
        return cls(items=tuple((a, draw.choice(KEYS[a]), draw.choice(QUIZZES)) for a in asked))

    def ask(self, draw: random.Random, story: Story) -> Question:
        name = draw.choice(story.people).name

        def answer(story: Story) -> str:
            person = story.person(name)
            return " ".join(
                f"{question.format(key=key, name=name)} {getattr(person, attribute)}"
                for attribute, key, question in self.items
            )

        return Question(f"quiz on {name} :", answer)


# How many questions in sixteen are of each kind.
MIXTURE: dict[type[Record | JSONObject | Manner | Label | Portrait | Quiz], int] = {
    Record: 4,
    JSONObject: 2,
    Manner: 4,
    Label: 2,
    Portrait: 2,
    Quiz: 2,
}


def any_question(draw: random.Random, story: Story) -> Question:
    """A question of any kind, to be answered in any form: what the base is pre-trained on."""
    (kind,) = draw.choices(list(MIXTURE), weights=list(MIXTURE.values()))
    return kind.drawn(draw).ask(draw, story)


def vocabulary() -> tuple[str, ...]:
    """Every word of the world, sorted."""
    texts = [*LEADS, *BODIES, *TAILS, *CONNECTED, *QUIZZES]
    texts += [phrase for pair in PHRASES.values() for phrase in pair]
    texts += [word for pair in LABELS for word in pair]
    texts += ["record of for the : object { , } what is ? label portrait quiz on ."]
    texts += [*SEPARATORS, *JOINERS, *NAMES, *OFFICES]
    values = [value for column in VALUES.values() for value in column]
    keys = [key for pair in KEYS.values() for key in pair]
    texts += values + keys + [f'"{value}"' for value in values] + [f'"{key}":' for key in keys]
    words = {word for text in texts for word in text.split()}
    return tuple(sorted(word for word in words if not (word[0] == "{" and word[1:])))
