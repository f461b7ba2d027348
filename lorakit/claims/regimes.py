"""Claims about when full fine-tuning is ahead: by data and depth, by what trains, by batch size."""

from lorakit.claims.evidence import (
    at_an_end,
    best,
    embedding,
    grid,
    grouped,
    kind,
    losses,
    seeds,
    validation_loss,
)
from lorakit.claims.finding import UNKNOWN, Curves, Finding, Lines, decided, listed, point, ratio
from lorakit.claims.learning import NARROW
from lorakit.grids import DEPTHS


def full_wins() -> Finding:
    """The loss of LoRA's best rank over full fine-tuning's, by data size, for each depth."""
    lines: Lines = {}
    ends = cells = 0
    for task in DEPTHS:
        rows = [row for row in grid("data") if row["run"]["task"] == task]
        lines[task] = []
        for size, of_size in grouped(rows, lambda run: run["sample"]).items():
            kinds = grouped(of_size, kind)
            ends, cells = ends + sum(map(at_an_end, kinds.values())), cells + len(kinds)
            full = losses(best(kinds.pop("full")))
            tuned = {name: best(of_kind) for name, of_kind in kinds.items()}
            lora = losses(tuned[min(tuned, key=lambda name: validation_loss(tuned[name]))])
            lines[task].append(ratio(size, lora, full))
    n = seeds(grid("data"))
    told = {task: [p[1] for p in line] for task, line in lines.items()}

    others = [max(1, *found) for found in zip(*list(told.values())[:-1], strict=True)]
    deepest = all(deep > most for deep, most in zip(told["deep"], others, strict=True))

    return Finding(
        "loss of LoRA's best rank over that of full, from 32 to 12,800 examples: "
        + "; ".join(f"{task} {listed(values)}" for task, values in told.items())
        + f" (best rate at an end of those tried in {ends} of {cells} cells)",
        decided(told["deep"][-1] > told["deep"][0] and deepest, n),
        n,
        "sweeps/data.json",
        Curves("training examples", "loss over full's", lines, (True, True)),
    )


def lead_is_of_rank() -> Finding:
    """With every direction but no embedding, and with few directions and the embedding."""
    lines: Lines = {}
    n = seeds(grid("data"))
    for task in ("deep", NARROW):
        rows = [r for r in grid("data") if r["run"]["task"] == task and r["run"]["sample"] == 3200]
        kinds = grouped(rows, kind)
        found = {
            "everything": best(kinds["full"]),
            "linear layers": best(embedding(task, "linear layers")),
            "rank 8": best(kinds["rank 8"]),
            "rank 64": best(kinds["rank 64"]),
            "rank 8 and the rest": best(embedding(task, "rank 8 and the rest")),
            "the rest": best(embedding(task, "the rest")),
        }
        lines[task] = [point(what, losses(of_what)) for what, of_what in found.items()]
        n = min(n, *(seeds(of_what) for of_what in found.values()))
    loss = {task: {p[0]: p[1] for p in line} for task, line in lines.items()}
    deep = loss["deep"]
    halfway = (deep["everything"] + deep["rank 8"]) / 2
    return Finding(
        "loss by what trains: "
        + "; ".join(
            f"{task}: " + ", ".join(f"{what} {value:.3f}" for what, value in values.items())
            for task, values in loss.items()
        )
        + " (the rest: embedding, which is the head, and norms)",
        decided(deep["linear layers"] < halfway, n),
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
            lines[name].append(ratio(batch_size, lora, full))
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
        + (f" (best rate at an end of those tried: {', '.join(ends)})" if ends else ""),
        UNKNOWN if ends else decided(all(first[name] < last[name] for name in lines), n),
        n,
        "sweeps/batch.json",
        Curves("batch size", "loss over full's", lines, (True, True)),
    )
