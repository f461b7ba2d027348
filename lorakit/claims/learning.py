"""Claims about what is learnt: by method, rank, targets and batch size; and what is forgotten.

A method or rank is judged at its own best learning rate, chosen by validation.
"""

from statistics import mean

from lorakit.claims.evidence import (
    best,
    grid,
    grouped,
    kind,
    least_forgotten,
    losses,
    matches,
    orders,
    seeds,
)
from lorakit.claims.finding import Curves, Finding, Lines, decided, point
from lorakit.grids import RANKS, TARGETS
from lorakit.sweep import Row

NARROW, GRADED = "json", "manners-dialect"
CLOSE = 0.02  # of exact match


def of_task(name: str, task: str) -> dict[str, list[Row]]:
    """The rows of a sweep on one task, by kind of run."""
    return grouped([row for row in grid(name) if row["run"]["task"] == task], kind)


def quality() -> Finding:
    tasks = {task: of_task("rank", task) for task in (NARROW, GRADED)}
    gaps: list[float] = []
    lines: Lines = {}
    for task, kinds in tasks.items():
        full, lora = matches(best(kinds["full"])), matches(best(kinds["rank 8"]))
        gaps.append(mean(full) - mean(lora))
        lines[task] = [point("full", full)] + [
            point(name, matches(best(rows))) for name, rows in kinds.items() if name != "full"
        ]
    n = seeds(grid("rank"))
    return Finding(
        f"exact match of full fine-tuning less that of rank 8: {gaps[0]:+.3f} on {NARROW}, "
        f"{gaps[1]:+.3f} on {GRADED}",
        decided(max(gaps) <= CLOSE, n),
        n,
        "sweeps/rank.json",
        Curves("method", "exact match", lines),
    )


def quality_real() -> Finding:
    kinds = grouped(orders(), kind)
    scores = {name: [row["after"] for row in rows] for name, rows in kinds.items()}
    n = seeds(orders())
    return Finding(
        "exact match on orders: "
        + ", ".join(f"{name} {mean(values):.3f}" for name, values in scores.items()),
        decided(mean(scores["full"]) - mean(scores["rank 8"]) <= CLOSE, n),
        n,
        "orders.jsonl",
        Curves("method", "exact match", {"orders": [point(*pair) for pair in scores.items()]}),
    )


def which_matrices() -> Finding:
    rows = [row for row in grid("targets") if row["run"]["task"] == GRADED]
    names = {targets: name for name, (targets, _) in TARGETS.items()}
    found = {
        names[targets]: losses(best(of_them))
        for targets, of_them in grouped(rows, lambda run: run["targets"]).items()
    }
    order = sorted(found, key=lambda name: mean(found[name]))
    n = seeds(rows)
    worst = set(order[-2:]) == {"q", "k"}
    paired = mean(found["q, v"]) < min(mean(found["q"]), mean(found["v"]))
    return Finding(
        f"loss on {GRADED} with 30,000 to 35,000 parameters, from the best to the worst: "
        + ", ".join(f"{name} {mean(found[name]):.2f}" for name in order),
        decided(worst and paired, n),
        n,
        "sweeps/targets.json",
        Curves("targets", "loss", {GRADED: [point(name, found[name]) for name in order]}),
    )


def rank_matters_little() -> Finding:
    lines: Lines = {}
    spread: dict[str, tuple[float, float, float]] = {}
    for task in (NARROW, GRADED):
        kinds = of_task("rank", task)
        found = {rank: matches(best(kinds[f"rank {rank}"])) for rank in RANKS}
        lines[task] = [point(rank, values) for rank, values in found.items()]
        means = [mean(values) for values in found.values()]
        spread[task] = (min(means), max(means), mean(found[1]))
    n = seeds(grid("rank"))
    low, high, one = spread[GRADED]
    return Finding(
        f"exact match over ranks 1 to 64: {spread[NARROW][0]:.2f} to {spread[NARROW][1]:.2f} on "
        f"{NARROW}; {low:.2f} to {high:.2f} on {GRADED}, rank 1 {one:.2f}",
        decided(spread[NARROW][1] - spread[NARROW][0] <= CLOSE, n),
        n,
        "sweeps/rank.json",
        Curves("rank", "exact match", lines, (True, False)),
    )


def forgets_less(match: float = 0.9) -> Finding:
    """Of all looks at all rates: how little is forgotten once the task is learnt?"""

    def least(kinds: dict[str, list[Row]]) -> dict[str, list[float]]:
        """By kind, a seed each; left out where a seed never got so far."""
        found: dict[str, list[float]] = {}
        for name, rows in kinds.items():
            by_seed = grouped(rows, lambda run: run["seed"]).values()
            values = [least_forgotten(of_seed, match) for of_seed in by_seed]
            if None not in values:
                found[name] = [value for value in values if value is not None]
        return found

    found = least(of_task("rank", GRADED))
    small = [row for row in grid("batch") if row["run"]["batch_size"] == 8]
    longer = {name: mean(values) for name, values in least(grouped(small, kind)).items()}
    line = [point(name, values) for name, values in found.items()]
    reached = {name: mean(values) for name, values in found.items()}
    n = seeds(grid("rank"))
    lora = {name: value for name, value in reached.items() if name != "full"}
    return Finding(
        "lowest loss on forty of the base's own documents (1.05 before) with "
        f"{match:g} of {GRADED} right, in 150 steps: "
        + ", ".join(f"{name} {value:.2f}" for name, value in reached.items())
        + "; in 600 steps of 8 rows: "
        + ", ".join(f"{name} {value:.3f}" for name, value in longer.items()),
        decided(min(lora.values()) < reached["full"] or longer["rank 8"] < longer["full"], n),
        n,
        "sweeps/rank.json, sweeps/batch.json",
        Curves("method", "loss on the base's own data", {f"at {match:g} exact match": line}),
    )


def attention_or_mlp() -> Finding:
    names = {targets: name for name, (targets, _) in TARGETS.items()}
    gaps: list[float] = []
    lines: Lines = {}
    for task in (NARROW, GRADED):
        rows = [row for row in grid("targets") if row["run"]["task"] == task]
        found = {
            names[targets]: losses(best(of_them))
            for targets, of_them in grouped(rows, lambda run: run["targets"]).items()
        }
        lines[task] = [point(name, found[name]) for name in ("attention", "MLP", "all")]
        gaps.append(mean(found["attention"]) - mean(found["MLP"]))
    n = seeds(grid("targets"))
    return Finding(
        f"loss with adapters on attention alone less that on the MLP alone: {gaps[0]:+.3f} on "
        f"{NARROW}, {gaps[1]:+.3f} on {GRADED}",
        decided(min(gaps) > 0, n),
        n,
        "sweeps/targets.json",
        Curves("targets", "loss", lines),
    )
