"""Committed sweeps as raw JSON, and the same sweeps over a small base and two steps."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

from lorakit.claims.evidence import grid

FILES = Path(__file__).parents[1] / "data" / "results" / "sweeps"


def raw(name: str, **wanted: Any) -> list[dict]:
    """Rows as they stand in the file, whose runs have these values; "full" has no rank of its own.

    What a run leaves out is a default: rank 8, and LoRA on all linear layers.
    """
    rows = json.loads((FILES / f"{name}.json").read_text())["rows"]
    default = {"method": "lora", "rank": 8, "targets": "all-linear"}
    return [
        row
        for row in rows
        if all((default | row["run"]).get(key) == value for key, value in wanted.items())
    ]


def best_of(rows: list[dict]) -> list[dict]:
    """Those of the learning rate with the lowest mean validation loss."""
    rates = {row["run"]["lr"] for row in rows}
    losses = {
        lr: fmean(row["validation"][1] for row in rows if row["run"]["lr"] == lr) for lr in rates
    }
    lowest = min(losses, key=losses.__getitem__)
    return [row for row in rows if row["run"]["lr"] == lowest]


def small(base: str) -> Callable[[str], list[dict]]:
    """What `grid` gives, as if every run had been two steps on `base`, judged by four examples."""

    def rows(name: str) -> list[dict]:
        changed = {"base": base, "steps": 2, "heldout": 4}
        return [row | {"run": row["run"] | changed} for row in grid(name)]

    return rows
