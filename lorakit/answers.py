"""What a student said, kept: one JSON file beside the notebooks, from a key to an answer.

    answers = kept()
    answers.set("quiz/lora-rank", 2)        # on disk when it returns
    answers.get("quiz/lora-rank")           # after a reload, a restart, from another notebook

The file is the truth: each change reads it, changes one thing and writes it whole, under a lock,
so that two notebooks at once lose nothing of each other's. Knows no widgets and no questions.
"""

import importlib.util
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lorakit.files import read_json, replacing

FILE = ".lorakit-answers.json"
PATIENCE = 10  # seconds that a change waits for another program's


class Answers:
    """Answers by key, in the JSON file at `path`; without one, in memory.

    A key is words between slashes, "predict/02/changed"; an answer is whatever JSON can hold.
    """

    def __init__(self, path: Path | None = None):
        self.path = path
        self._text = "{}"  # where there is no file
        self._lock = threading.RLock() if path is None else FileLock(f"{path}.lock", PATIENCE)
        self._watchers: list[Callable[[], object]] = []

    def get(self, key: str) -> Any:
        """The answer, or None if there is none; it is the caller's own to change."""
        return self._read().get(key)

    def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, sorted."""
        return sorted(key for key in self._read() if key.startswith(prefix))

    def set(self, key: str, value: Any) -> None:
        """Keep an answer, in the place of an earlier one.

        Raises ValueError for an empty key, or TypeError or ValueError for what JSON cannot hold.
        """
        _check(added := {key: json.loads(json.dumps(value, allow_nan=False))})
        with self._changing() as held:
            held.update(added)

    def remove(self, key: str) -> None:
        """Forget an answer, if there is one."""
        with self._changing() as held:
            held.pop(key, None)

    def reset(self, prefix: str = "") -> int:
        """Forget all answers whose keys begin with `prefix`, and say how many there were."""
        with self._changing() as held:
            gone = [key for key in held if key.startswith(prefix)]
            for key in gone:
                del held[key]
        return len(gone)

    def export(self) -> str:
        """All answers as JSON, for `restore` here or on another machine."""
        return _text(self._read())

    def restore(self, text: str) -> int:
        """Take in what `export` gave, and say how many answers came; those here already stay.

        Raises ValueError, and takes in nothing, if the text is no such export.
        """
        found = _parse(text)
        with self._changing() as held:
            new = {key: value for key, value in found.items() if key not in held}
            held.update(new)
        return len(new)

    # Who wants to know

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call `watcher` after each change that is made through this object."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callable[[], object]) -> None:
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    # The file

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Any]]:
        """Yield the answers as they are now, and write what the block makes of them."""
        with self._locked():
            held = self._read()
            before = _text(held)
            yield held
            after = _text(held)
            if after != before:
                self._write(after)
        if after != before:
            for watcher in [*self._watchers]:
                watcher()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._lock.acquire()
        except Timeout as error:
            raise TimeoutError(
                f"another program has held {self.path} for {PATIENCE} s: close the other notebooks "
                "and answer again"
            ) from error
        try:
            yield
        finally:
            self._lock.release()

    def _read(self) -> dict[str, Any]:
        if self.path is None:
            return _parse(self._text)
        try:
            return _answers(read_json(self.path))
        except FileNotFoundError:
            return {}
        except ValueError:
            return self._set_aside()

    def _set_aside(self) -> dict[str, Any]:
        """Move a file that cannot be read out of the way, as it is, and begin anew."""
        assert self.path is not None
        with self._locked():
            try:
                return _answers(read_json(self.path))  # another kernel may have been here first
            except FileNotFoundError:
                return {}
            except ValueError as error:
                aside = _free(self.path)
                self.path.rename(aside)
                warnings.warn(
                    f"the kept answers could not be read, and are set aside as {aside.name}: "
                    f"{error}",
                    stacklevel=2,
                )
                return {}

    def _write(self, text: str) -> None:
        if self.path is None:
            self._text = text
            return
        with replacing(self.path) as fresh:
            fresh.write_text(text, encoding="utf-8")


def _text(answers: dict[str, Any]) -> str:
    return json.dumps(answers, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _parse(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # the latter for brackets a thousand deep
        raise ValueError(
            f"this is no export of answers, which is JSON ({error}): give the whole of one"
        ) from error
    return _answers(found)


def _answers(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(
            f"answers are an object from keys to answers, got a {type(found).__name__}: give the "
            "whole of an export"
        )
    _check(found)
    return found


def _check(answers: dict[str, Any]) -> None:
    for key, value in answers.items():
        if not isinstance(key, str) or not key:
            raise ValueError(f"a key is words between slashes, such as 'quiz/rank', got {key!r}")
        try:
            json.dumps(value, allow_nan=False)
        except ValueError as error:
            raise ValueError(f"the answer {key!r} holds a number that is not finite") from error


def _free(path: Path) -> Path:
    """A name beside `path` that nothing has yet."""
    names = (path.with_name(f"{path.name}.damaged{end}") for end in ("", *range(-2, -1000, -1)))
    return next(name for name in names if not name.exists())


# The lesson's own


@cache
def kept() -> Answers:
    """The lesson's answers: a file in the folder where the kernel started, the notebooks' own.

    In memory alone under LORAKIT_TEST, so that no test sees what somebody said here, and where
    the folder cannot be written to.
    """
    if os.environ.get("LORAKIT_TEST") == "1" or not os.access(Path.cwd(), os.W_OK):
        return Answers()
    return Answers(Path.cwd() / FILE)


def where() -> str:
    """Where `kept` answers are kept, and for how long, in words."""
    if kept().path is None:
        return "answers are kept in memory, and gone when the kernel ends: export them before"
    place = f"answers are kept in {FILE}, beside the notebook"
    if machine := temporary():
        return f"{place}, on a machine of {machine} that is gone when the session ends: export them"
    return f"{place}: they outlive a reload, a restart and the server"


def temporary() -> str | None:
    """Who lends this machine for a session only, "Colab" or "Binder"; None where it stays."""
    if "COLAB_RELEASE_TAG" in os.environ or _importable("google.colab"):
        return "Colab"
    if any(name.startswith("BINDER_") for name in os.environ):
        return "Binder"
    return None


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is not there either
        return False
