"""Answers go out, come in and are forgotten on request; a browser's copy and the kernel agree."""

import base64
import importlib.util
import json
import re
from datetime import UTC, datetime

import pytest

from lorakit.answers import Answers, kept
from lorakit.widgets import Keeping
from lorakit.widgets.browser_copy import BrowserCopy


@pytest.fixture(autouse=True)
def answers(tmp_path, monkeypatch):
    """The lesson's own, in a file, as on a learner's machine."""
    found = Answers(tmp_path / "answers.json")
    kept.cache_clear()
    monkeypatch.setattr("lorakit.answers.kept", lambda: found)
    monkeypatch.setattr("lorakit.widgets.answering.kept", lambda: found)
    return found


def exported(box: Keeping) -> dict:
    data = re.search('base64,([^"]*)"', box.link.value)[1]
    return json.loads(base64.b64decode(data))


def upload(box: Keeping, text: bytes) -> None:
    file = {"name": "a.json", "type": "", "size": len(text), "content": memoryview(text)}
    if isinstance(box.upload.value, dict):  # ipywidgets 7
        box.upload.set_trait("value", {"a.json": {"metadata": {}, "content": text}})
        return
    box.upload.value = ({**file, "last_modified": datetime.now(UTC)},)


def test_it_tells_where_answers_are_kept(answers):
    assert "beside the notebook" in Keeping().place.value


# Out


def test_the_link_exports_what_is_kept_now(answers):
    box = Keeping()
    answers.set("quiz/rank", "acht \N{MULTIPLICATION SIGN}")
    assert exported(box) == {"quiz/rank": "acht \N{MULTIPLICATION SIGN}"}
    assert 'download="lorakit-answers.json"' in box.link.value


# In


def test_an_exported_file_is_taken_in_once_and_again(answers):
    box = Keeping()
    upload(box, b'{"quiz/rank": 8, "quiz/alpha": 16}')
    assert answers.keys() == ["quiz/alpha", "quiz/rank"]
    assert "answers that came: 2" in box.line.value
    answers.remove("quiz/rank")
    upload(box, b'{"quiz/rank": 8, "quiz/alpha": 16}')
    assert "answers that came: 1" in box.line.value
    assert not box.upload.value


@pytest.mark.parametrize("text", [b"PK\x03\x04", b"\xff", b"[]", b'{"": 1}'])
def test_a_file_that_is_no_export_is_told_and_changes_nothing(answers, text, monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST")
    answers.set("quiz/rank", 1)
    box = Keeping()
    upload(box, text)
    assert "ValueError" in box.error.value
    assert answers.keys() == ["quiz/rank"]
    upload(box, b"{}")
    assert box.error.value == ""


# Away


def test_a_reset_asks_once_more(answers):
    answers.set("quiz/rank", 1)
    box = Keeping()
    assert box.sure.layout.display == "none"
    box.ask.click()
    assert box.sure.layout.display == "flex"
    assert box.question.value == "Forget all 1 answers? There is no way back."
    assert answers.keys() == ["quiz/rank"]
    box.forget.click()
    assert answers.keys() == []
    assert "forgotten: 1" in box.line.value
    assert box.sure.layout.display == "none"


def test_a_reset_can_be_thought_better_of(answers):
    answers.set("quiz/rank", 1)
    box = Keeping()
    box.ask.click()
    box.stay.click()
    assert answers.keys() == ["quiz/rank"]
    assert box.sure.layout.display == "none"


# The browser's copy


class Browser:
    """What the page does, in Python: it holds texts by key, speaks first, does as told."""

    def __init__(self, monkeypatch, **held):
        self.held = {key.replace("_", "/"): text for key, text in held.items()}
        self.told: list[dict] = []
        monkeypatch.setattr(BrowserCopy, "send", lambda copy, content: self.hear(content))

    def hear(self, content: dict) -> None:
        self.told.append(content)
        self.held.update(content["set"])
        for key in content["remove"]:
            del self.held[key]

    def show(self, box: Keeping) -> None:
        """The page shows the explorable: its copy's script runs."""
        copy_of(box)._handle_custom_msg({"held": dict(self.held)}, [])


def copy_of(box: Keeping) -> BrowserCopy:
    (found,) = [child for child in box.children if isinstance(child, BrowserCopy)]
    return found


def test_on_a_machine_that_stays_the_browser_keeps_nothing():
    assert not [child for child in Keeping().children if isinstance(child, BrowserCopy)]


def test_on_a_machine_for_a_session_the_browser_keeps_a_copy(monkeypatch):
    monkeypatch.setenv("BINDER_SERVICE_HOST", "")
    copy_of(Keeping())


def test_where_the_kernel_has_memory_alone_the_browser_keeps_a_copy(monkeypatch):
    memory = Answers()
    monkeypatch.setattr("lorakit.widgets.answering.kept", lambda: memory)
    copy_of(Keeping())


def test_what_is_kept_here_is_brought_to_the_browser(monkeypatch, answers):
    answers.set("quiz/rank", {"said": 8})
    browser = Browser(monkeypatch)
    browser.show(Keeping(browser=True))
    assert browser.held == {"quiz/rank": '{"said": 8}'}
    answers.set("quiz/alpha", 16)
    answers.remove("quiz/rank")
    assert browser.held == {"quiz/alpha": "16"}


def test_nothing_is_sent_before_the_browser_has_spoken_for_it_may_hold_more(monkeypatch, answers):
    browser = Browser(monkeypatch, quiz_rank="8")
    box = Keeping(browser=True)
    answers.set("quiz/alpha", 16)
    assert browser.told == []
    browser.show(box)
    assert browser.held == {"quiz/rank": "8", "quiz/alpha": "16"}


def test_what_the_browser_holds_is_found_by_a_kernel_that_knows_nothing(monkeypatch, answers):
    box = Keeping(browser=True)
    Browser(monkeypatch, quiz_rank="8", quiz_alpha='{"said": [1]}').show(box)
    assert (answers.get("quiz/rank"), answers.get("quiz/alpha")) == (8, {"said": [1]})
    assert "and in this browser, where more were found: 2" in box.place.value


def test_the_kernel_s_answer_is_the_newer_one_and_goes_to_the_browser(monkeypatch, answers):
    answers.set("quiz/rank", 1)
    browser = Browser(monkeypatch, quiz_rank="8")
    browser.show(Keeping(browser=True))
    assert answers.get("quiz/rank") == 1
    assert browser.held == {"quiz/rank": "1"}


def test_only_what_has_changed_is_sent(monkeypatch, answers):
    browser = Browser(monkeypatch, quiz_rank="8")
    box = Keeping(browser=True)
    browser.show(box)
    assert browser.told == []
    answers.set("quiz/alpha", 16)
    assert browser.told == [{"set": {"quiz/alpha": "16"}, "remove": []}]


def test_what_was_forgotten_while_the_page_did_not_look_stays_forgotten(monkeypatch, answers):
    browser = Browser(monkeypatch)
    box = Keeping(browser=True)
    browser.show(box)
    answers.set("quiz/rank", 8)
    answers.set("quiz/alpha", 16)
    monkeypatch.setattr(BrowserCopy, "send", lambda copy, content: None)  # nobody hears it
    answers.remove("quiz/rank")
    monkeypatch.setattr(BrowserCopy, "send", lambda copy, content: browser.hear(content))
    browser.show(box)
    assert answers.keys() == ["quiz/alpha"]
    assert browser.held == {"quiz/alpha": "16"}


def test_what_is_no_answer_in_the_browser_is_left_out(monkeypatch, answers):
    held = {"quiz_a": "8", "quiz_b": "{", "quiz_c": "NaN", "quiz_d": "[" * 100_000}
    Browser(monkeypatch, **held).show(Keeping(browser=True))
    assert answers.keys() == ["quiz/a"]


def test_a_browser_that_keeps_nothing_says_so(answers):
    box = Keeping(browser=True)
    copy_of(box)._handle_custom_msg({"blocked": "SecurityError: <denied>"}, [])
    assert "this browser keeps nothing (SecurityError: &lt;denied&gt;)" in box.place.value


def test_without_anywidget_everything_else_works(monkeypatch, answers):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "anywidget" else find(name)
    )
    box = Keeping(browser=True)
    assert "anywidget is not there: no copy in the browser" in box.place.value
    upload(box, b'{"quiz/rank": 8}')
    assert exported(box) == {"quiz/rank": 8}


# On the page


def test_its_stored_form_never_changes_and_has_a_picture(answers):
    before = Keeping()._repr_mimebundle_()
    answers.set("quiz/rank", 8)
    after = Keeping()._repr_mimebundle_()
    assert before["text/plain"] == after["text/plain"] == "explorable: where answers are kept"
    assert before["image/png"]


def test_closed_it_watches_nothing_any_more(answers):
    Keeping(browser=True).close()
    assert answers._watchers == []
