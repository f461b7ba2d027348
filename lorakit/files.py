"""Files and folders that are either wholly there or not there at all.

What is written goes to a temporary neighbour first and takes its final name when it is complete, so
that an error, a Stop or a power cut leaves what stood there before.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path; the file or folder made there takes `path`'s place on success.

    After an error inside the block `path` is as it was. A folder that stood at `path` is moved
    aside first, and `settle` brings it back should the exchange be cut in two.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    room = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    fresh, old = room / path.name, _aside(path)
    try:
        yield fresh
        _open_to_others(fresh, room)
        if path.is_dir():
            os.rename(path, old)
        os.replace(fresh, path)
    finally:
        shutil.rmtree(room, ignore_errors=True)
        _clear(path)


def _open_to_others(fresh: Path, room: Path) -> None:
    """Give every file the rights that a new file has here: some libraries write for one's eyes."""
    probe = room / ".rights"
    probe.touch()
    rights = probe.stat().st_mode
    for file in [fresh, *fresh.rglob("*")]:
        if file.is_file():
            file.chmod(rights)


def settle(path: Path | str) -> None:
    """Before reading a folder: if its exchange was cut in two, the old one returns."""
    path = Path(path)
    if _aside(path).exists() and not path.exists():
        os.rename(_aside(path), path)


def _clear(path: Path) -> None:
    settle(path)
    shutil.rmtree(_aside(path), ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.lorakit-old")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as readable JSON, atomically; a number that is not finite is refused."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    with replacing(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def write_rows(path: Path | str, head: dict[str, Any], tables: dict[str, list]) -> None:
    """Write one JSON object, atomically: what `head` holds, and tables of a line each row."""
    parts = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    for name, rows in tables.items():
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
        parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
    with replacing(path) as fresh:
        fresh.write_text("{" + ",\n".join(parts) + "}\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """What a JSON file holds.

    Raises ValueError naming the file if it is not JSON, or names one field of an object twice.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:  # the latter for brackets a thousand deep
        raise ValueError(f"{path} is not readable JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} stands there twice, and readers differ in which one counts")
    return fields
