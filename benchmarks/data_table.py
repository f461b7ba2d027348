"""The table of data/README.md: every file below data/, its rows, bytes and hash.

    python benchmarks/data_table.py

Rows are lines of a .jsonl, and the parameters of a .safetensors.
"""

import hashlib
from pathlib import Path

from safetensors import safe_open

DATA = Path(__file__).resolve().parent.parent / "data"


def row(path: Path) -> str:
    content = path.read_bytes()
    rows = ""
    if path.suffix == ".jsonl":
        rows = f"{len(content.splitlines()):,}"
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            sizes = [file.get_tensor(name).numel() for name in file.keys()]  # noqa: SIM118
        rows = f"{sum(sizes):,} numbers"
    name = path.relative_to(DATA).as_posix()
    return f"| `{name}` | {rows} | {len(content):,} | `{hashlib.sha256(content).hexdigest()}` |"


def table() -> list[str]:
    files = sorted(path for path in DATA.rglob("*") if path.is_file() and path.name != "README.md")
    return ["| file | rows | bytes | sha256 |", "| --- | --- | --- | --- |", *map(row, files)]


if __name__ == "__main__":
    print("\n".join(table()))
