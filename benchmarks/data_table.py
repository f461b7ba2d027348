"""The table of data/README.md: every file below data/, its rows, bytes and hash.

    python benchmarks/data_table.py

Rows are lines of a .jsonl, and the parameters of a .safetensors. The files of the adapters are one
line each kind, with the hash of all of them, one after the other in the order of their names.
"""

import hashlib
from pathlib import Path

from safetensors import safe_open

DATA = Path(__file__).resolve().parent.parent / "data"


def row(name: str, paths: list[Path]) -> str:
    contents = [path.read_bytes() for path in paths]
    rows = ""
    if name.endswith(".jsonl"):
        rows = f"{sum(len(content.splitlines()) for content in contents):,}"
    if name.endswith(".safetensors"):
        rows = f"{sum(map(numbers, paths)):,} numbers"
    content = b"".join(contents)
    return f"| `{name}` | {rows} | {len(content):,} | `{hashlib.sha256(content).hexdigest()}` |"


def numbers(path: Path) -> int:
    with safe_open(path, "pt") as file:
        return sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118


def line_of(path: Path) -> str:
    """The name of the line that a file is in."""
    first, *between, last = path.relative_to(DATA).parts
    return f"{first}/*/{last}" if first == "adapters" else "/".join([first, *between, last])


def table() -> list[str]:
    files = sorted(path for path in DATA.rglob("*") if path.is_file() and path.name != "README.md")
    lines: dict[str, list[Path]] = {}
    for path in files:
        lines.setdefault(line_of(path), []).append(path)
    head = ["| file | rows | bytes | sha256 |", "| --- | --- | --- | --- |"]
    return [*head, *(row(name, paths) for name, paths in lines.items())]


if __name__ == "__main__":
    print("\n".join(table()))
