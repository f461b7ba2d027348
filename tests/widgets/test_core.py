"""Every explorable is made of core ipywidgets: what else is installed may only add to it."""

import subprocess
import sys

import ipywidgets
import pytest

from lorakit.widgets import Glossary, Keeping, Predictions, QuizExplorer

CORE = {"@jupyter-widgets/base", "@jupyter-widgets/controls"}

# None of it can be imported: what draws in other ways, and the servers that show pages.
BARE = """
import sys
for name in ("anywidget", "psygnal", "ipympl", "bqplot", "plotly", "matplotlib.pyplot",
             "matplotlib_inline.backend_inline", "jupyterlab", "notebook", "voila"):
    sys.modules[name] = None
"""
EVERY_MODULE = """
import importlib, pkgutil
import lorakit.widgets
names = {module.name for module in pkgutil.iter_modules(lorakit.widgets.__path__)}
assert len(names) > 30 and "handshake" in names
for name in names - {"browser_copy"}:
    importlib.import_module(f"lorakit.widgets.{name}")
"""
SOME_EXPLORABLES = """
from lorakit import widgets
hand = widgets.Handshake()
before = hand.picture.value
hand.number.value += 1
assert before and hand.picture.value != before
others = (widgets.ParametersExplorer("mini"), widgets.AdapterFileExplorer("mini"),
          widgets.QuizExplorer(), widgets.Keeping(browser=True))
for explorable in (hand, *others):
    assert explorable._repr_mimebundle_()["image/png"]
    assert not explorable.error.value
"""


@pytest.mark.parametrize("code", [EVERY_MODULE, SOME_EXPLORABLES], ids=["modules", "explorables"])
def test_with_nothing_but_core_ipywidgets_it_works(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BARE + code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_only_module_that_needs_more_is_the_copy_in_the_browser(tmp_path):
    code = BARE + "import lorakit.widgets.browser_copy"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert "ModuleNotFoundError: import of anywidget halted" in done.stderr


def modules(widget: ipywidgets.Widget) -> set[str]:
    """Where the page finds the scripts of a widget and of all that is in it."""
    inside = [modules(child) for child in getattr(widget, "children", ())]
    return set().union({widget._model_module, widget._view_module}, *inside)


@pytest.mark.parametrize(
    "name",
    [
        *("parameters", "adapter file", "estimate", "spectrum", "truncation", "merge", "quantize"),
        *("overlap", "step", "handshake", "finetune", "starts", "budget", "live"),
    ],
)
def test_all_that_an_explorable_shows_is_core(make, name):
    assert modules(make(name)) <= CORE


@pytest.mark.parametrize("kind", [Glossary, Predictions, QuizExplorer])
def test_all_that_it_shows_is_core(kind):
    assert modules(kind()) <= CORE


def test_answers_kept_on_a_machine_that_stays_show_core_alone():
    assert modules(Keeping(browser=False)) <= CORE
    assert not modules(Keeping(browser=True)) <= CORE
