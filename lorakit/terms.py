"""The lesson's words: what each means, which page introduces it, and what there shows it.

The words themselves are in terms.toml, one definition each. Knows no control.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FILE = Path(__file__).with_name("terms.toml")
NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"  # beside the package


@dataclass(frozen=True, kw_only=True)
class Term:
    """A word, other words for the same, and one definition.

    `page` is a notebook's number, as in "02"; `shown` is the explorable, or the piece of a cell,
    that shows it there.
    """

    word: str
    meaning: str
    page: str
    shown: str
    also: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        return self.word, *self.also


@cache
def terms() -> tuple[Term, ...]:
    """Every word of the lesson, by the alphabet."""
    found = tomllib.loads(FILE.read_text(encoding="utf-8"))["term"]
    made = [Term(**{**fields, "also": tuple(fields.get("also", ()))}) for fields in found]
    return tuple(sorted(made, key=lambda term: term.word.casefold()))


def search(text: str, among: Sequence[Term]) -> tuple[Term, ...]:
    """The terms that have every word of `text` in them: those in whose words it stands come first.

    Upper and lower case are one; an empty text finds all.
    """
    wanted = text.casefold().split()
    found = [term for term in among if all(word in _all_of(term) for word in wanted)]
    named = [term for term in found if all(word in _words_of(term) for word in wanted)]
    return tuple(named + [term for term in found if term not in named])


@cache
def notebook(page: str) -> str | None:
    """The file name of the page of that number, as in "02"; None if there is none."""
    return next((path.name for path in sorted(NOTEBOOKS.glob(f"{page}_*.ipynb"))), None)


def _words_of(term: Term) -> str:
    return " / ".join(term.words).casefold()


def _all_of(term: Term) -> str:
    return f"{_words_of(term)} / {term.meaning}".casefold()
