"""Answers outlive the kernel, two kernels lose nothing of each other's, and no mishap costs one."""

import importlib.machinery
import json
import multiprocessing
import os
import sys
import types

import pytest
from filelock import FileLock

from lorakit import answers as module
from lorakit.answers import FILE, Answers, kept, temporary, where


@pytest.fixture
def path(tmp_path):
    return tmp_path / FILE


@pytest.fixture(params=["a file", "memory"])
def answers(request, path) -> Answers:
    return Answers(path if request.param == "a file" else None)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A learner's own machine, with the kernel in a folder of its own."""
    for name in [*os.environ]:
        if name.startswith("BINDER_") or name in ("LORAKIT_TEST", "COLAB_RELEASE_TAG"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    kept.cache_clear()
    yield tmp_path
    kept.cache_clear()


# One answer


def test_there_is_none_before_it_is_given(answers):
    assert answers.get("quiz/rank") is None
    assert answers.keys() == []


@pytest.mark.parametrize("value", [2, 0.5, "rank 8", True, None, [1, [2.5, "x"]], {"guess": 3}])
def test_what_is_kept_is_given_back(answers, value):
    answers.set("quiz/rank", value)
    assert answers.get("quiz/rank") == value


def test_a_later_answer_takes_an_earlier_one_s_place(answers):
    answers.set("quiz/rank", 1)
    answers.set("quiz/rank", True)  # equal to 1 in Python, and not the same
    assert answers.get("quiz/rank") is True


def test_an_answer_is_the_caller_s_own_to_change(answers):
    given = [1]
    answers.set("quiz/rank", given)
    given.append(2)
    answers.get("quiz/rank").append(3)
    assert answers.get("quiz/rank") == [1]


def test_an_answer_is_removed_alone_and_one_that_is_not_there_too(answers):
    answers.set("quiz/rank", 1)
    answers.set("quiz/alpha", 2)
    answers.remove("quiz/rank")
    answers.remove("quiz/rank")
    assert answers.keys() == ["quiz/alpha"]


def test_keys_are_sorted_and_go_by_their_beginning(answers):
    for key in ("quiz/rank", "predict/02/b", "predict/02/a", "a/predict"):
        answers.set(key, 0)
    assert answers.keys("predict/") == ["predict/02/a", "predict/02/b"]
    assert answers.keys() == ["a/predict", "predict/02/a", "predict/02/b", "quiz/rank"]


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("", 1, "a key is words between slashes, such as 'quiz/rank', got ''"),
        (3, 1, "got 3"),
        ("quiz/rank", float("nan"), "not JSON compliant"),
        ("quiz/rank", {1, 2}, "set is not JSON serializable"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_changes_nothing(answers, key, value, match):
    answers.set("quiz/rank", "before")
    with pytest.raises((ValueError, TypeError), match=match):
        answers.set(key, value)
    assert json.loads(answers.export()) == {"quiz/rank": "before"}


# Out, in, away


def test_an_export_is_taken_in_elsewhere(answers):
    answers.set("quiz/rank", {"said": "acht \N{MULTIPLICATION SIGN}"})
    answers.set("quiz/alpha", 16)
    other = Answers()
    assert other.restore(answers.export()) == 2
    assert other.export() == answers.export()


def test_what_is_here_stays_and_does_not_count_as_come(answers):
    answers.set("quiz/rank", "mine")
    assert answers.restore('{"quiz/rank": "older", "quiz/alpha": 16}') == 1
    assert (answers.get("quiz/rank"), answers.get("quiz/alpha")) == ("mine", 16)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "no export of answers"),
        ('{"quiz/rank": 1', "no export of answers"),
        ("[" * 100_000, "no export of answers"),
        ("[1]", "an object from keys to answers, got a list"),
        ('{"": 1}', "a key is words between slashes, such as 'quiz/rank', got ''"),
        ('{"quiz/new": 2, "quiz/bad": [NaN]}', "'quiz/bad' holds a number that is not finite"),
    ],
    ids=["empty", "cut", "deep", "list", "no key", "nan"],
)
def test_what_is_no_export_is_named_and_nothing_of_it_comes(answers, text, match):
    answers.set("quiz/rank", 1)
    with pytest.raises(ValueError, match=match):
        answers.restore(text)
    assert json.loads(answers.export()) == {"quiz/rank": 1}


def test_a_reset_forgets_what_begins_so_and_says_how_many(answers):
    for key in ("quiz/rank", "quiz/alpha", "predict/02/a"):
        answers.set(key, 0)
    assert answers.reset("quiz/") == 2
    assert answers.keys() == ["predict/02/a"]
    assert answers.reset() == 1
    assert answers.keys() == []


# Who wants to know


def test_a_watcher_hears_of_each_change_once_and_of_nothing_else(answers):
    heard = []

    def watcher():
        heard.append(answers.keys())

    answers.watch(watcher)
    answers.set("a", 1)
    answers.set("a", 1)  # as it was
    answers.restore('{"a": 2}')
    answers.restore('{"b": 2, "c": 3}')
    answers.remove("d")
    answers.reset()
    assert heard == [["a"], ["a", "b", "c"], []]
    answers.unwatch(watcher)
    answers.unwatch(watcher)
    answers.set("a", 1)
    assert len(heard) == 3


# The file


def test_another_kernel_finds_what_was_kept(path):
    Answers(path).set("quiz/rank", 8)
    assert Answers(path).get("quiz/rank") == 8


def test_two_kernels_see_and_keep_each_other_s_answers(path):
    first, second = Answers(path), Answers(path)
    first.set("a", 1)
    second.set("b", 2)
    first.set("c", 3)
    assert first.keys() == second.keys() == ["a", "b", "c"]
    second.remove("a")
    first.set("d", 4)
    assert second.keys() == ["b", "c", "d"]


def keep_many(path, name, start) -> None:
    answers = Answers(path)
    start.wait(60)
    for number in range(25):
        answers.set(f"{name}/{number}", number)


def test_kernels_that_write_at_once_lose_nothing(path):
    spawn = multiprocessing.get_context("spawn")
    start = spawn.Event()
    kernels = [spawn.Process(target=keep_many, args=(path, name, start)) for name in "abc"]
    for kernel in kernels:
        kernel.start()
    start.set()
    for kernel in kernels:
        kernel.join(120)
    assert [kernel.exitcode for kernel in kernels] == [0, 0, 0]
    assert len(Answers(path).keys()) == 75


def test_a_change_that_fails_leaves_the_file_as_it_was(path, monkeypatch):
    answers = Answers(path)
    answers.set("quiz/rank", 1)
    before = path.read_bytes()

    def full(*paths):
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(OSError, match="no space left"):
            answers.set("quiz/rank", 2)
    assert path.read_bytes() == before
    answers.set("quiz/rank", 3)  # the lock was let go
    assert answers.get("quiz/rank") == 3


def test_nothing_is_written_before_there_is_an_answer(path):
    answers = Answers(path)
    answers.get("quiz/rank")
    answers.keys()
    answers.remove("quiz/rank")
    answers.restore("{}")
    assert not path.exists()


def hold(path, held, done) -> None:
    with FileLock(f"{path}.lock"):
        held.set()
        done.wait(60)


def test_a_lock_that_is_not_let_go_is_told(path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    spawn = multiprocessing.get_context("spawn")
    held, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=(path, held, done))
    other.start()
    assert held.wait(60)
    with pytest.raises(TimeoutError, match=r"another program has held .* for 0\.05 s: close"):
        Answers(path).set("quiz/rank", 1)
    done.set()
    other.join(60)
    Answers(path).set("quiz/rank", 1)


@pytest.mark.parametrize(
    "damage",
    [b'{"quiz/rank": 1', b"", b"\xff\xfe", b"[1, 2]", b'{"a": 1, "a": 2}', b'{"a": NaN}'],
    ids=["cut", "empty", "bytes", "list", "twice", "nan"],
)
@pytest.mark.parametrize("act", ["get", "set"])
def test_a_damaged_file_is_set_aside_as_it_is_and_told(path, damage, act):
    path.write_bytes(damage)
    answers = Answers(path)
    aside = f"{FILE}.damaged"
    with pytest.warns(UserWarning, match=f"set aside as {aside}: "):
        answers.get("a") if act == "get" else answers.set("b", 2)
    assert path.with_name(aside).read_bytes() == damage
    answers.set("b", 2)
    assert answers.keys() == ["b"]


def test_a_second_damaged_file_does_not_take_the_first_one_s_place(path):
    for text in ("first", "second", "third"):
        path.write_text(text)
        with pytest.warns(UserWarning, match="set aside"):
            Answers(path).keys()
    found = {file.name: file.read_text() for file in path.parent.glob("*.damaged*")}
    assert found == {
        f"{FILE}.damaged": "first",
        f"{FILE}.damaged-2": "second",
        f"{FILE}.damaged-3": "third",
    }


# The lesson's own


def test_they_are_kept_beside_the_notebook_wherever_the_kernel_goes_then(machine, monkeypatch):
    kept().set("quiz/rank", 8)
    (machine / "elsewhere").mkdir()
    monkeypatch.chdir(machine / "elsewhere")
    assert kept().get("quiz/rank") == 8
    assert kept().path == machine / FILE
    assert where() == (
        f"answers are kept in {FILE}, beside the notebook: they outlive a reload, a restart and "
        "the server"
    )


def test_tests_see_no_kept_answer_and_keep_none(machine, monkeypatch):
    Answers(machine / FILE).set("quiz/rank", 8)
    monkeypatch.setenv("LORAKIT_TEST", "1")
    assert kept().get("quiz/rank") is None
    kept().set("quiz/rank", 1)
    assert Answers(machine / FILE).get("quiz/rank") == 8
    assert "in memory, and gone when the kernel ends" in where()


def test_a_folder_that_cannot_be_written_to_leaves_memory(machine, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    kept().set("quiz/rank", 8)
    assert kept().get("quiz/rank") == 8
    assert [*machine.iterdir()] == []
    assert "in memory, and gone when the kernel ends" in where()


def test_a_machine_of_one_s_own_is_not_temporary(machine):
    assert temporary() is None


@pytest.mark.parametrize(
    ("name", "lender"),
    [("COLAB_RELEASE_TAG", "Colab"), ("BINDER_SERVICE_HOST", "Binder"), ("BINDER_X", "Binder")],
)
def test_a_temporary_machine_is_known_by_its_environment_and_told(
    machine, monkeypatch, name, lender
):
    monkeypatch.setenv(name, "")
    assert temporary() == lender
    assert f"on a machine of {lender} that is gone when the session ends" in where()


def test_colab_is_known_by_its_package(machine, monkeypatch):
    for name in ("google", "google.colab"):
        package = types.ModuleType(name)
        package.__path__ = []
        package.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        monkeypatch.setitem(sys.modules, name, package)
    assert temporary() == "Colab"
