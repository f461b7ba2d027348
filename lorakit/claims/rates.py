"""Claims about learning rates: full against LoRA, rank by rank, and with either scaling."""

from statistics import mean

from lorakit.claims.evidence import (
    best,
    by_rate,
    grid,
    grouped,
    kind,
    losses,
    rate,
    seeds,
    validation_loss,
)
from lorakit.claims.finding import Curves, Finding, Lines, decided, listed, point
from lorakit.claims.learning import GRADED, NARROW, of_task
from lorakit.grids import RANKS, RATES


def rate_ratio() -> Finding:
    """LoRA's best learning rate over that of full fine-tuning."""
    lines: Lines = {}
    ratios: dict[str, float] = {}
    for task in (NARROW, GRADED):
        kinds = of_task("rank", task)
        for name in ("full", "rank 8"):
            lines[f"{task}, {name}"] = [
                point(lr, losses(rows))
                for lr, rows in by_rate(kinds[name]).items()
                if validation_loss(rows) < 10
            ]
        ratios[task] = rate(best(kinds["rank 8"])) / rate(best(kinds["full"]))
    n = seeds(grid("rank"))
    return Finding(
        "best learning rate of rank 8 over that of full: "
        + ", ".join(f"{ratio:.0f} on {task}" for task, ratio in ratios.items()),
        decided(all(5 <= ratio <= 20 for ratio in ratios.values()), n),
        n,
        "sweeps/rank.json",
        Curves("learning rate", "loss", lines, (True, True)),
    )


def rate_by_rank() -> Finding:
    """The best learning rate, rank by rank, with alpha / rank and alpha fixed."""
    lines: Lines = {}
    spans: dict[str, float] = {}
    for task in (NARROW, GRADED):
        kinds = of_task("rank", task)
        rates = [rate(best(kinds[f"rank {rank}"])) for rank in RANKS]
        lines[task] = [point(rank, [lr]) for rank, lr in zip(RANKS, rates, strict=True)]
        spans[task] = max(rates) / min(rates)
    n = seeds(grid("rank"))
    return Finding(
        "over ranks 1 to 64 the best rate varies by a factor of "
        + ", ".join(f"{span:.0f} on {task}" for task, span in spans.items())
        + " (rates are tried in steps of 2)",
        decided(max(spans.values()) <= 2, n),
        n,
        "sweeps/rank.json",
        Curves("rank", "best learning rate", lines, (True, True)),
    )


def scaling() -> Finding:
    """Loss by rank at one fixed learning rate, with either scaling; and each at its best."""
    lr = RATES["lora"][2]
    rows = {
        "alpha / r": grouped([r for r in grid("rank") if r["run"]["task"] == GRADED], kind),
        "alpha / sqrt(r)": grouped(grid("scaling"), kind),
    }
    lines: Lines = {}
    ends: dict[str, list[float]] = {}
    for name, kinds in rows.items():
        found = [losses(by_rate(kinds[f"rank {rank}"])[lr]) for rank in RANKS]
        lines[f"{name}, lr {lr:g}"] = [point(r, v) for r, v in zip(RANKS, found, strict=True)]
        tuned = [losses(best(kinds[f"rank {rank}"])) for rank in RANKS]
        lines[f"{name}, tuned"] = [point(r, v) for r, v in zip(RANKS, tuned, strict=True)]
        ends[name] = [mean(found[0]), mean(found[-1]), mean(tuned[-1])]
    n = seeds(grid("scaling"))
    old, new = ends.values()
    return Finding(
        f"loss at lr {lr:g} from rank 1 to rank 64: {listed(old[:2], 3)} with alpha / r, "
        f"{listed(new[:2], 3)} with alpha / sqrt(r); rank 64 at its best rate: {old[2]:.3f} and "
        f"{new[2]:.3f}",
        decided(old[1] > old[0] and new[1] < new[0], n),
        n,
        "sweeps/rank.json, sweeps/scaling.json",
        Curves("rank", "loss", lines, (True, True)),
    )
