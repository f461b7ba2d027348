"""The raw rows that claims are judged by, and the best learning rate of each kind of run."""

import math
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from pathlib import Path
from statistics import mean
from typing import Any

from lorakit.files import read_json
from lorakit.grids import read_grid
from lorakit.sweep import Row, read_rows

RESULTS = Path(__file__).parents[2] / "data" / "results"


@lru_cache
def grid(name: str) -> list[Row]:
    """The rows of a sweep."""
    return read_grid(RESULTS / "sweeps" / f"{name}.json")


@lru_cache
def anatomy(base: str) -> dict[str, list[Row]]:
    return read_json(RESULTS / f"anatomy-{base}.json")


@lru_cache
def memory() -> dict[str, Any]:
    return read_json(RESULTS / "memory-h100.json")


@lru_cache
def orders() -> list[Row]:
    return read_rows(RESULTS / "orders.jsonl")


@lru_cache
def real_model() -> dict[str, Any]:
    """The lesson on SmolLM2: tables of runs, memory, cuts, swaps and merges."""
    return read_json(RESULTS / "real_model.json")


@lru_cache
def quantize() -> dict[str, Any]:
    """4 bits on SmolLM2's weights: errors, bytes, and what bitsandbytes makes of the same."""
    return read_json(RESULTS / "quantize-h100.json")


@lru_cache
def serve(base: str) -> dict[str, Any]:
    """Tokens a second of many users, on an H100."""
    return read_json(RESULTS / f"serve-{base}-h100.json")


@lru_cache
def embedding(task: str, arm: str) -> list[Row]:
    """Runs in which not what a method says trains, but what `arm` says."""
    rows = read_json(RESULTS / "embedding.json")["rows"]
    return [row for row in rows if (row["run"]["task"], row["arm"]) == (task, arm)]


@lru_cache
def claims() -> list[Row]:
    """Every claim with its verdicts, as judged last."""
    return read_json(RESULTS / "claims.json")["claims"]


def grouped(rows: Iterable[Row], key: Callable[[Row], Hashable]) -> dict[Any, list[Row]]:
    """Rows by what `key` says of their run, in the order of their first."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row["run"]), []).append(row)
    return groups


def kind(run: Row) -> str:
    """What a run is called: "full", or "rank 8"."""
    return "full" if run["method"] == "full" else f"rank {run['rank']}"


def by_rate(rows: Iterable[Row]) -> dict[float, list[Row]]:
    return dict(sorted(grouped(rows, lambda run: run["lr"]).items()))


def best(rows: Iterable[Row]) -> list[Row]:
    """The runs at the learning rate with the lowest mean loss on validation, a run a seed.

    A rate at which a run diverged is no candidate.
    """
    rates = by_rate(rows)
    return min(rates.values(), key=validation_loss)


def at_an_end(rows: list[Row]) -> bool:
    """Whether the best rate is the lowest or highest of those tried: a better may lie beyond."""
    return rate(best(rows)) in (min(by_rate(rows)), max(by_rate(rows)))


def validation_loss(rows: list[Row]) -> float:
    """The mean over seeds; infinite if one of them diverged."""
    losses = [row["validation"][1] for row in rows]
    if any(row["diverged"] or loss is None for row, loss in zip(rows, losses, strict=True)):
        return math.inf
    return mean(losses)


def rate(rows: list[Row]) -> float:
    (found,) = {row["run"]["lr"] for row in rows}
    return found


def matches(rows: Iterable[Row]) -> list[float]:
    """Exact match on held-out examples, a run each."""
    return [row["heldout"][0] for row in rows]


def losses(rows: Iterable[Row]) -> list[float]:
    return [math.inf if row["heldout"][1] is None else row["heldout"][1] for row in rows]


def seeds(rows: Iterable[Row]) -> int:
    return len({row["run"]["seed"] for row in rows})


def least_forgotten(rows: Iterable[Row], match: float) -> float | None:
    """The lowest loss on the base's own data among all looks at which the task was that good."""
    looks = [own for row in rows for _, right, own in row["curve"] if right >= match and own]
    return min(looks, default=None)
