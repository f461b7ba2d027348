"""What the README says was measured is what the rows in data/results say."""

import json
from pathlib import Path

import pytest

from lorakit.counts import count
from lorakit.lora_config import LoRAConfig
from lorakit.memory import Setup, estimate
from lorakit.presets import PRESETS
from lorakit.run import Run

ROOT = Path(__file__).parent.parent
ROWS = [json.loads(line) for line in (ROOT / "data/results/orders.jsonl").open()]


def scores(method: str, rank: int) -> list[float]:
    return [
        row["after"] for row in ROWS if (row["run"]["method"], row["run"]["rank"]) == (method, rank)
    ]


def between(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


@pytest.mark.parametrize(
    ("line", "method", "rank"),
    [
        ("full fine-tuning", "full", 8),
        ("LoRA, rank 1", "lora", 1),
        ("LoRA, rank 2", "lora", 2),
        ("LoRA, rank 8", "lora", 8),
        ("LoRA, rank 32", "lora", 32),
    ],
)
def test_the_readmes_scores_are_the_rows(line, method, rank):
    (row,) = (
        text
        for text in (ROOT / "README.md").read_text().splitlines()
        if text.startswith(f"| {line} |")
    )
    assert between(scores(method, rank)) in row
    assert len(scores(method, rank)) == 4


def test_the_readmes_activations_are_what_the_lab_estimates():
    told = (
        estimate(Setup(model=PRESETS["smollm2-135m"], lora=lora, batch_size=4, length=89))
        for lora in (None, LoRAConfig(rank=8))
    )
    full, lora = (f"{step.most.activations / 1e6:.0f} MB" for step in told)
    assert f"{full} in full and {lora} with LoRA" in (ROOT / "README.md").read_text()


def test_the_readme_leaves_no_measured_kind_of_run_out():
    kinds = {(row["run"]["method"], row["run"]["rank"]) for row in ROWS}
    assert kinds == {("full", 8), *(("lora", rank) for rank in (1, 2, 8, 32))}


def test_every_row_says_how_it_was_made():
    for row in ROWS:
        assert row["before"] == 0
        assert row["device"] and row["torch"] and row["python"] and row["date"]
        run = Run(**row["run"])
        assert row["trainable"] == count(PRESETS["smollm2-135m"], run.lora).trainable
        assert row["memory"]["gradients"] == 4 * row["trainable"]
