"""Is the lesson true on the mini world? The runs that tell, and their summary.

    python -m lorakit.science data/results/science.json       minutes on a GPU; resumes when killed

Each method gets the same steps and the same number of learning rates, and one more where the best
was the last. The rate is chosen by validation, the scores are those of the held-out examples, over
seeds. A seed decides the adapter's start, the order of the examples and which of them there are;
two seeds share about 640 of their 800.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lorakit.bars import Line, bars
from lorakit.checkpoint import load_base
from lorakit.cuts import cut_runs
from lorakit.device import pick_device
from lorakit.files import write_rows
from lorakit.mini_tasks import DEEP, NARROW
from lorakit.run import Run
from lorakit.scoring import score
from lorakit.summary import summarise, summarise_cuts
from lorakit.sweep import Row, judges, sweep

COMMAND = "python -m lorakit.science data/results/science.json"
SEEDS = range(5)
SAMPLE = 800  # of a task's 1,000 training examples, drawn by the seed
RATES = {
    "full": tuple(1.25e-4 * 2**i for i in range(6)),
    "lora": tuple(1.25e-3 * 2**i for i in range(6)),
}


@dataclass(frozen=True)
class Plan:
    """What a task's runs have in common, and the ranks that are tried.

    `further` are rates past the grid's end, for a rank whose best rate was the last one.
    """

    task: str
    steps: int
    ranks: tuple[int, ...] = (1, 8)
    further: tuple[tuple[int, float], ...] = ()

    def runs(self) -> list[Run]:
        grid = [("full", 8, lr) for lr in RATES["full"]]
        grid += [("lora", rank, lr) for rank in self.ranks for lr in RATES["lora"]]
        grid += [("lora", rank, lr) for rank, lr in self.further]
        return [
            Run(
                base="mini",
                task=self.task,
                method=method,
                rank=rank,
                alpha=2.0 * rank,
                lr=lr,
                batch_size=16,
                steps=self.steps,
                heldout=500,
                answers=0,
                seed=seed,
                sample=SAMPLE,
            )
            for method, rank, lr in grid
            for seed in SEEDS
        ]


NARROW_PLANS = tuple(Plan(task, 60) for task in NARROW)
GRADED_PLANS = (
    Plan("manners-dialect", 150, (1, 8, 16)),
    Plan("manners-cant", 120),
    Plan("manners-backwards", 200),
    Plan("six-dialect", 200, (1, 2, 4, 8, 16), further=((1, 8e-2),)),
)
PLANS = (*NARROW_PLANS, *GRADED_PLANS, Plan(DEEP, 300))


def judge_base(tasks: Iterable[str]) -> list[Line]:
    """What the base does before any training, on the very examples that judge every run."""
    device = pick_device()
    model, tokenizer = load_base("mini", device=device)
    lines = []
    for task in tasks:
        judged = judges(task, tokenizer, 500)
        parts = (judged.heldout, judged.shuffled, judged.own)
        heldout, shuffled, own = (
            score(model, part, pad_id=tokenizer.pad_id, batch_size=50) for part in parts
        )
        assert heldout and shuffled and own  # only a stop gives None
        lines.append(
            {
                "task": task,
                "exact_match": heldout.exact_match,
                "loss": round(heldout.loss, 5),
                "shuffled": shuffled.exact_match,
                "own_loss": round(own.loss, 5),
            }
        )
    return lines


def cut_best(summary: list[Line]) -> list[Row]:
    """Each narrow task's full fine-tunes once more, at the summary's rate, whole and cut."""
    full = {line["task"]: line["lr"] for line in summary if line["method"] == "full"}
    rows: list[Row] = []
    for plan in NARROW_PLANS:
        best = [r for r in plan.runs() if r.method == "full" and r.lr == full.get(plan.task)]
        if best:
            rows += cut_runs(best)
    return rows


def write_science(path: Path, rows: list[Row], cuts: list[Row], base: list[Line]) -> None:
    """Everything as one JSON file, a line each; how the rows were made stands once each."""
    made = list({json.dumps(row["made"]): row["made"] for row in rows + cuts}.values())
    summary, cut_lines = summarise(rows), summarise_cuts(cuts)
    parts: dict[str, list] = {
        "bars": bars(base, summary, cut_lines),
        "base": base,
        "summary": summary,
        "cut_summary": cut_lines,
        "made": made,
        "cuts": [row | {"made": made.index(row["made"])} for row in cuts],
        "rows": [row | {"made": made.index(row["made"])} for row in rows],
    }
    write_rows(path, {"command": COMMAND}, parts)


def main() -> None:
    parser = argparse.ArgumentParser(description="Test the lesson's claims on the mini world.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=Path, default=Path("runs/science.jsonl"))
    parser.add_argument("--width", type=int, default=105, help="runs in one program")
    options = parser.parse_args()

    def report(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    try:
        runs = [run for plan in PLANS for run in plan.runs()]
        rows = sweep(runs, options.rows, width=options.width, report=report)
        report("cutting the deltas of full fine-tuning")
        cuts = cut_best(summarise(rows))
        report("judging the base")
        base = judge_base(plan.task for plan in PLANS)
    except KeyboardInterrupt:
        report(f"stopped; {options.rows} keeps what is done, and the same command goes on")
        raise SystemExit(130) from None
    write_science(options.out, rows, cuts, base)


if __name__ == "__main__":
    main()
