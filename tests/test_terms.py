"""The lesson's words: every word of every page has one definition, and every page is there."""

import re
from pathlib import Path

import nbformat
import pytest

from lorakit.terms import Term, notebook, search, terms

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PAGES = {path.name[:2]: path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))}


def sources(page: str, kind: str) -> list[str]:
    cells = nbformat.read(PAGES[page], as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == kind]


def words_of(page: str) -> list[str]:
    """What stands in italics after "Words of this page"."""
    found = "".join(sources(page, "markdown")).partition("**Words of this page:**")[2]
    return re.findall(r"\*([^*]+)\*", found)


@pytest.mark.parametrize("page", PAGES)
def test_every_word_of_a_page_has_its_definition(page):
    known = {word for term in terms() for word in term.words}
    assert [word for word in words_of(page) if word not in known] == []


def test_the_pages_do_have_words_of_their_own():
    assert sum(bool(words_of(page)) for page in PAGES) >= 7
    assert words_of("02")[:3] == ["adapter", "rank", "alpha"]


def test_every_terms_page_is_there_and_is_found_by_its_number():
    assert {term.page for term in terms()} <= PAGES.keys()
    assert {page: notebook(page) for page in PAGES} == {n: path.name for n, path in PAGES.items()}
    assert notebook("99") is None


@pytest.mark.parametrize("term", terms(), ids=lambda term: term.word)
def test_what_shows_a_term_stands_in_a_cell_of_its_page(term):
    assert any(term.shown in source for source in sources(term.page, "code"))


def test_no_word_and_no_definition_stands_twice():
    words = [word.casefold() for term in terms() for word in term.words]
    assert len(set(words)) == len(words)
    meanings = [term.meaning.casefold() for term in terms()]
    assert len(set(meanings)) == len(meanings)


@pytest.mark.parametrize("term", terms(), ids=lambda term: term.word)
def test_a_definition_is_one_or_two_short_sentences(term):
    sentences = re.split(r"(?<=\.) (?=[A-Z])", term.meaning)
    assert 1 <= len(sentences) <= 2
    assert term.meaning.endswith(".")
    assert len(term.meaning) <= 240


def test_terms_stand_in_the_order_of_the_alphabet():
    words = [term.word.casefold() for term in terms()]
    assert words == sorted(words) and len(words) > 50


# Searching

LOUD = Term(word="alpha", meaning="How loud.", page="02", shown="a")
RANK = Term(
    word="rank", also=("inner width",), meaning="Beside alpha it counts.", page="02", shown="b"
)
ALL = (LOUD, RANK)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ALL),
        ("  ", ALL),
        ("alpha", (LOUD, RANK)),
        ("rank", (RANK,)),
        ("RANK", (RANK,)),
        ("inner", (RANK,)),
        ("loud", (LOUD,)),
        ("width alpha", (RANK,)),
        ("nothing", ()),
    ],
)
def test_words_and_definitions_are_searched(text, found):
    assert search(text, ALL) == found


def test_terms_with_that_name_come_before_those_that_mention_it():
    assert search("alpha", (RANK, LOUD)) == (LOUD, RANK)
