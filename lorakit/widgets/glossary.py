"""The lesson's words, with a box to search them: what each means, and where it is shown."""

import html
from typing import Any

import ipywidgets

from lorakit.terms import Term, notebook, search, terms
from lorakit.widgets.explorable import Explorable, shown

STYLE = {"description_width": "initial"}
# JupyterLab floats the words of a list beside their definitions, and a long one pushes others on.
BLOCK = "float: none; width: auto"
# JupyterLab shows a link in a widget as it shows any word.
LINK = 'style="text-decoration: underline; color: var(--jp-content-link-color, #1565c0)"'


class Glossary(Explorable):
    """A text -> `search` -> the entries that have it, as one types.

    Without a kernel a page shows all entries.
    """

    def __init__(self):
        self.search = ipywidgets.Text(
            description="search the words",
            placeholder="a word, or a piece of a definition",
            layout=ipywidgets.Layout(width="520px"),
            style=STYLE,
        )
        self.found: tuple[Term, ...] = ()
        self.count = ipywidgets.HTML()
        self.entries = ipywidgets.HTML(
            layout=ipywidgets.Layout(max_height="480px", overflow="auto")
        )
        super().__init__(
            [self.search, self.count, self.entries], alt="explorable: the lesson's words"
        )
        self.search.observe(self.refresh, names="value")
        self.refresh()

    @shown
    def refresh(self, change=None) -> None:
        self.found = search(self.search.value, terms())
        self.count.value = f'<div role="status">{describe(len(self.found), len(terms()))}</div>'
        self.entries.value = entries(self.found)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return {**super()._repr_mimebundle_(**kwargs), "text/html": entries(terms())}


def describe(found: int, of: int) -> str:
    """How many entries are on show."""
    return f"{found} of {of} words" if found else f"none of {of} words: try a shorter piece"


def entries(found: tuple[Term, ...]) -> str:
    """A list of definitions, as HTML."""
    return f"<dl>{''.join(_entry(term) for term in found)}</dl>"


def _entry(term: Term) -> str:
    also = f" <i>({html.escape(', '.join(term.also))})</i>" if term.also else ""
    return (
        f'<dt style="{BLOCK}"><b>{html.escape(term.word)}</b>{also}</dt>'
        f'<dd style="{BLOCK}">{html.escape(term.meaning)}<br>'
        f"{page_link(term.page)}: <code>{html.escape(term.shown)}</code></dd>"
    )


def page_link(page: str) -> str:
    """A link to the page of that number, as HTML; the number alone if there is no such page.

    It is relative, to a file beside the page that it stands on, and opens in a tab of its own: this
    page and its kernel stay.
    """
    name = notebook(page)
    if name is None:
        return f"page {html.escape(page)}"
    title = name.removesuffix(".ipynb").replace("_", " ")
    return f'<a href="{html.escape(name)}" target="_blank" {LINK}>page {html.escape(title)}</a>'
