"""What the mini world has to show before a lesson may stand on it, and whether it does.

Each bar is a number, what was measured beside it, and a verdict, from the lines of `science.py`.
Forgetting has no bar: it is measured and told.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from lorakit.counts import count
from lorakit.lora import LoRAConfig
from lorakit.mini_tasks import DEEP, GRADED, NARROW
from lorakit.presets import PRESETS

Line = dict[str, Any]


@dataclass(frozen=True)
class Bar:
    """What must hold, what was measured, where it was worst, and whether it holds."""

    what: str
    bar: str
    measured: float
    where: str
    holds: bool


def bars(base: list[Line], summary: list[Line], cuts: list[Line]) -> list[dict[str, Any]]:
    """Every bar of the mini world, in the order in which a lesson needs them."""
    lines = {(line["task"], line["method"], line["rank"]): line for line in summary}
    cut = {line["task"]: line for line in cuts}
    bases = {line["task"]: line["exact_match"] for line in base}

    def match(task: str, method: str, rank: int | None = None) -> float:
        return lines[task, method, rank]["exact_match"]["mean"]

    def behind(task: str, rank: int) -> float:
        return round(match(task, "full") - match(task, "lora", rank), 4)

    def percent(rank: int) -> float:
        return count(PRESETS["mini"], LoRAConfig(rank=rank)).percent

    def gap(rank: int) -> float:
        """How far full's worst seed on the deep task is ahead of LoRA's best, in loss."""
        return lines[DEEP, "lora", rank]["loss"]["min"] - lines[DEEP, "full", None]["loss"]["max"]

    def rank_matters(task: str) -> bool:
        enough = [r for r in (8, 16) if (task, "lora", r) in lines and behind(task, r) <= 0.02]
        return behind(task, 1) >= 0.1 and bool(enough)

    visible = [task for task in GRADED if rank_matters(task)]
    unlabelled = [task for task in NARROW if task != "label"]
    found = [
        _most("the base's exact match on a narrow task", 0.10, bases, unlabelled),
        _most("the same on the label task, where chance is 0.5", 0.5, bases, ["label"]),
        _most(
            "exact match with the names shuffled, any task, method and rank",
            0.10,
            {" ".join(map(str, key)): line["shuffled"]["mean"] for key, line in lines.items()},
        ),
        _least("full fine-tuning on a narrow task", 0.95, lambda t: match(t, "full"), NARROW),
        _most("full ahead of LoRA, rank 8", 0.02, {t: behind(t, 8) for t in NARROW}),
        _most("full ahead of LoRA, rank 1", 0.02, {t: behind(t, 1) for t in NARROW}),
        _most("percent of the parameters at rank 8", 15, {"mini": percent(8)}),
        _most("percent of the parameters at rank 1", 2, {"mini": percent(1)}),
        _least(
            "energy of full's delta in 8 values, over a random matrix's",
            3,
            lambda t: cut[t]["energy"]["mean"] / cut[t]["energy_random"]["mean"],
            cut,
        ),
        _least(
            "share of full's match that is kept with each layer's delta cut to rank 8",
            0.9,
            lambda t: cut[t]["cut"]["mean"] / cut[t]["heldout"]["mean"],
            NARROW,
        ),
        _least(
            "the same with the base's embedding and norms, as an adapter would have it",
            0.9,
            lambda t: cut[t]["cut_alone"]["mean"] / cut[t]["heldout"]["mean"],
            NARROW,
        ),
        Bar(
            "tasks where rank 1 is 0.1 behind full, and rank 8 or 16 within 0.02",
            "at least 2",
            len(visible),
            ", ".join(visible),
            len(visible) >= 2,
        ),
        _least("deep task: LoRA's best loss less full's worst, rank 1", 0, gap, [1]),
        _least("deep task: LoRA's best loss less full's worst, rank 8", 0, gap, [8]),
    ]
    return [asdict(bar) for bar in found]


def _most(
    what: str, limit: float, values: dict[str, float], keys: Iterable[str] | None = None
) -> Bar:
    where = max(values if keys is None else keys, key=lambda key: values[key])
    value = round(values[where], 4)
    return Bar(what, f"at most {limit:g}", value, where, value <= limit)


def _least(what: str, limit: float, value_of: Callable[..., float], keys: Iterable) -> Bar:
    where = min(keys, key=value_of)
    value = round(value_of(where), 4)
    return Bar(what, f"at least {limit:g}", value, str(where), value >= limit)
