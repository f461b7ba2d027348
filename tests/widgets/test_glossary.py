"""The glossary follows what is typed, and shows every word to those without a kernel."""

import re

import pytest

from lorakit.terms import notebook, terms
from lorakit.widgets import Explorable, Glossary
from lorakit.widgets.glossary import entries, page_link


def listed(html: str) -> list[str]:
    return re.findall(r"<dt[^>]*><b>(.*?)</b>", html)


@pytest.fixture
def glossary() -> Glossary:
    return Glossary()


def test_at_first_all_words_are_on_show(glossary):
    assert listed(glossary.entries.value) == [term.word for term in terms()]
    assert f"{len(terms())} of {len(terms())} words" in glossary.count.value


def test_what_is_typed_filters_there_and_back(glossary):
    before = glossary.entries.value
    glossary.search.value = "intruder"
    assert listed(glossary.entries.value) == ["intruder"]
    assert f"1 of {len(terms())} words" in glossary.count.value
    glossary.search.value = ""
    assert glossary.entries.value == before


def test_definitions_are_searched_too(glossary):
    glossary.search.value = "normal distribution"
    assert listed(glossary.entries.value) == ["NF4"]


def test_nothing_found_is_said(glossary):
    glossary.search.value = "zebra <b>"
    assert listed(glossary.entries.value) == []
    assert "none of" in glossary.count.value and "shorter" in glossary.count.value


def test_it_speaks_as_one_types_and_has_a_label(glossary):
    assert glossary.search.continuous_update
    assert glossary.search.description == "search the words"
    assert 'role="status"' in glossary.count.value


@pytest.mark.parametrize("term", terms(), ids=lambda term: term.word)
def test_an_entry_has_its_definition_its_page_and_what_shows_it(term):
    html = entries((term,))
    assert f'href="{notebook(term.page)}"' in html
    assert f"page {term.page}" in html
    assert html.count("<dt ") == html.count("<dd ") == html.count("float: none") / 2 == 1


def test_a_page_that_is_not_there_has_no_link():
    assert page_link("99") == "page 99"


def test_without_a_kernel_all_words_are_read_whatever_was_typed(glossary):
    glossary.search.value = "rank"
    bundle = glossary._repr_mimebundle_()
    assert listed(bundle["text/html"]) == [term.word for term in terms()]
    assert bundle["text/plain"] == "explorable: the lesson's words"
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_no_word_of_the_lesson_becomes_html(glossary):
    assert "&lt;" not in glossary.entries.value or "<script" not in glossary.entries.value
    assert re.fullmatch(r"<dl>.*</dl>", glossary.entries.value, re.DOTALL)


def test_an_error_is_on_the_page(glossary, monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST", raising=False)
    monkeypatch.setattr("lorakit.widgets.glossary.search", lambda text, among: 1 / 0)
    glossary.search.value = "x"
    assert "ZeroDivisionError" in glossary.error.value
    assert isinstance(glossary, Explorable)
