"""From the rows of a sweep to one line a task, method and rank: best rate, scores and their spread.

The rate is chosen by validation alone. Does no run and reads no file.
"""

from statistics import mean, stdev

from lorakit.bars import Line
from lorakit.mini_tasks import DEEP
from lorakit.sweep import Row

MATCHED = 0.9  # exact match on validation at which forgetting is compared


def summarise(rows: list[Row]) -> list[Line]:
    """One line a task, method and rank, at the learning rate that validation likes best.

    Best is the highest mean exact match, and among equals the lowest mean loss. Where no rate gets
    one answer in ten right, a match is luck, and the loss alone decides. A rate at which a run
    diverged comes last.
    """
    groups: dict[tuple, dict[float, list[Row]]] = {}
    for row in rows:
        run = row["run"]
        key = (run["task"], run["method"], None if run["method"] == "full" else run["rank"])
        groups.setdefault(key, {}).setdefault(run["lr"], []).append(row)
    lines = []
    for (task, method, rank), by_rate in groups.items():
        matched = max(mean(row["validation"][0] for row in of_rate) for of_rate in by_rate.values())
        lr = max(by_rate, key=lambda rate: _liking(by_rate[rate], by_match=matched >= 0.1))
        best = by_rate[lr]
        line = {
            "task": task,
            "method": method,
            "rank": rank,
            "steps": best[0]["run"]["steps"],
            "seeds": len(best),
            "lr": lr,
            "edge": lr in (min(by_rate), max(by_rate)),
            "diverged": sum(row["diverged"] for row in best),
            "exact_match": _spread([row["heldout"][0] for row in best]),
            "loss": _spread([row["heldout"][1] for row in best]),
            "shuffled": _spread([row["shuffled"] for row in best]),
            "own_loss": _spread([row["own"] for row in best]),
        }
        there = [loss for row in best if (loss := own_loss_at(row["curve"], MATCHED)) is not None]
        if len(there) == len(best):
            line["own_loss_matched"] = _spread(there)
        lines.append(line)
    return lines


def _liking(rows: list[Row], *, by_match: bool) -> tuple[bool, float, float]:
    if any(row["diverged"] for row in rows):
        return False, 0.0, 0.0
    match, loss = zip(*(row["validation"] for row in rows), strict=True)
    return True, round(mean(match), 6) if by_match else 0.0, -mean(loss)


def own_loss_at(curve: list[list[float]], match: float) -> float | None:
    """The own-data loss where exact match first reaches `match`, in a line between two looks.

    None if it never does; the first look's own loss if it is there already.
    """
    before: list[float] | None = None
    for point in curve:
        if point[1] >= match:
            if before is None:
                return point[2]
            share = (match - before[1]) / (point[1] - before[1])
            return before[2] + share * (point[2] - before[2])
        before = point
    return None


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "mean": round(mean(values), 5),
        "sd": round(stdev(values), 5) if len(values) > 1 else 0.0,
        "min": min(values),
        "max": max(values),
    }


def summarise_cuts(rows: list[Row]) -> list[Line]:
    """One line a task: match whole and cut, and the energy of the first values."""
    lines = []
    for task in dict.fromkeys(row["run"]["task"] for row in rows):
        of_task = [row for row in rows if row["run"]["task"] == task]
        names = ["heldout", "cut", "cut_alone", "rest_alone", "layers_alone"]
        names += ["energy", "energy_random"]
        line = {name: _spread([row[name] for row in of_task]) for name in names}
        lines.append({"task": task, "k": of_task[0]["k"], "lr": of_task[0]["run"]["lr"], **line})
    return lines


def readme_rows(base: list[Line], summary: list[Line]) -> list[str]:
    """data/results/README's table: mean exact match of base and methods; of `deep`, the loss."""
    lines = {(line["task"], line["method"], line["rank"]): line for line in summary}
    rows = []
    for before in base:
        task = before["task"]
        name = "loss" if task == DEEP else "exact_match"
        found = [lines[task, "full", None], lines[task, "lora", 8], lines[task, "lora", 1]]
        cells = [f"{before[name]:.2f}", *(f"{line[name]['mean']:.2f}" for line in found)]
        label = f"{task}, loss" if task == DEEP else task
        rows.append(f"| {label} | {found[0]['steps']} | {' | '.join(cells)} |")
    return rows
