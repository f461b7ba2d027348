"""Claims about what is learnt: by method, rank, targets and batch size; and what is forgotten.

A method or rank is judged at its own best learning rate, chosen by validation.
"""

from statistics import mean

from lorakit.claims.evidence import (
    at_an_end,
    best,
    embedding,
    grid,
    grouped,
    kind,
    least_forgotten,
    losses,
    lowest,
    matches,
    orders,
    seeds,
    validation_loss,
)
from lorakit.claims.finding import Curves, Finding, Lines, Point, decided, listed, point
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
    worst = set(order[-3:]) == {"q", "k", "q, k"}
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
    kinds = of_task("rank", GRADED)
    line: list[Point] = []
    found: dict[str, list[float]] = {}
    for name, rows in kinds.items():
        by_seed = grouped(rows, lambda run: run["seed"]).values()
        least = [least_forgotten(of_seed, match) for of_seed in by_seed]
        found[name] = [value for value in least if value is not None]
        if len(found[name]) == len(least):
            line.append(point(name, found[name]))
    n = seeds(grid("rank"))
    reached = {name: mean(values) for name, values in found.items() if len(values) == n}
    lora = {name: value for name, value in reached.items() if name != "full"}
    return Finding(
        f"lowest loss on the base's own data (1.05 before) with {match:g} of {GRADED} right: "
        + ", ".join(f"{name} {value:.2f}" for name, value in reached.items()),
        decided(min(lora.values()) < reached["full"], n),
        n,
        "sweeps/rank.json",
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


def full_wins() -> Finding:
    """The loss of LoRA's best rank over full fine-tuning's, by data size, for each depth."""
    lines: Lines = {}
    ends = cells = 0
    for task in (GRADED, "deep"):
        rows = [row for row in grid("data") if row["run"]["task"] == task]
        lines[task] = []
        for size, of_size in grouped(rows, lambda run: run["sample"]).items():
            kinds = grouped(of_size, kind)
            ends, cells = ends + sum(map(at_an_end, kinds.values())), cells + len(kinds)
            full = losses(best(kinds.pop("full")))
            tuned = {name: best(of_kind) for name, of_kind in kinds.items()}
            lora = losses(tuned[min(tuned, key=lambda name: validation_loss(tuned[name]))])
            lines[task].append(point(size, [a / b for a, b in zip(lora, full, strict=True)]))
    n = seeds(grid("data"))
    told = {task: [p[1] for p in line] for task, line in lines.items()}
    return Finding(
        "loss of LoRA's best rank over that of full, from 32 to 12,800 examples: "
        + "; ".join(f"{task} {listed(values)}" for task, values in told.items())
        + f" (best rate at an end of the three tried in {ends} of {cells} cells)",
        decided(min(told["deep"]) > 1 and told["deep"][-1] > told["deep"][0], n),
        n,
        "sweeps/data.json",
        Curves("training examples", "loss over full's", lines, (True, True)),
    )


def lead_is_of_rank() -> Finding:
    """With every direction but no embedding, and with few directions and the embedding."""
    lines: Lines = {}
    for task in ("deep", NARROW):
        rows = [r for r in grid("data") if r["run"]["task"] == task and r["run"]["sample"] == 3200]
        kinds = grouped(rows, kind)
        found = {
            "everything": best(kinds["full"]),
            "linear layers": lowest(embedding(task, "linear layers")),
            "rank 8": best(kinds["rank 8"]),
            "rank 64": best(kinds["rank 64"]),
            "rank 8 and the rest": lowest(embedding(task, "rank 8 and the rest")),
        }
        lines[task] = [point(what, losses(of_what)) for what, of_what in found.items()]
    loss = {task: {p[0]: p[1] for p in line} for task, line in lines.items()}
    n = min(seeds(of_what) for of_what in found.values())
    by_rank = [
        found["linear layers"] < (found["everything"] + found["rank 8"]) / 2
        for found in loss.values()
    ]
    return Finding(
        "loss by what trains: "
        + "; ".join(
            f"{task}: " + ", ".join(f"{what} {value:.3f}" for what, value in values.items())
            for task, values in loss.items()
        )
        + " (the rest: embedding, which is the head, and norms)",
        decided(any(by_rank), n),
        n,
        "embedding.json, sweeps/data.json",
        Curves("what trains", "loss", lines, (False, True)),
    )


def batch_gap() -> Finding:
    """LoRA's loss over full fine-tuning's at each batch size, the examples seen being the same."""
    by_batch = grouped(grid("batch"), lambda run: run["batch_size"])
    lines: Lines = {"rank 8": [], "rank 64": []}
    for batch_size, rows in by_batch.items():
        kinds = grouped(rows, kind)
        full = losses(best(kinds["full"]))
        for name in lines:
            lora = losses(best(kinds[name]))
            lines[name].append(point(batch_size, [a / b for a, b in zip(lora, full, strict=True)]))
    first, last = ({name: lines[name][end][1] for name in lines} for end in (0, -1))
    ends = [
        f"{name} at {batch_size}"
        for batch_size, rows in by_batch.items()
        for name, of_kind in grouped(rows, kind).items()
        if at_an_end(of_kind)
    ]
    n = seeds(grid("batch"))
    return Finding(
        "loss of LoRA over that of full, from batches of 8 to 128: "
        + ", ".join(f"{name} {first[name]:.2f} to {last[name]:.2f}" for name in lines)
        + f" (best rate at an end of those tried: {', '.join(ends)})",
        decided(all(first[name] < last[name] for name in lines), n),
        n,
        "sweeps/batch.json",
        Curves("batch size", "loss over full's", lines, (True, True)),
    )
