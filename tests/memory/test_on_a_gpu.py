"""What an H100 measured, every cell of it, is what the estimate says here, without a GPU."""

import json
import runpy
from pathlib import Path
from statistics import median

from lorakit.memory import estimate
from lorakit.memory.estimation import WORKSPACE

ROOT = Path(__file__).parents[2]
TOLD = json.loads((ROOT / "data" / "results" / "memory-h100.json").read_text())
setup = runpy.run_path(str(ROOT / "benchmarks" / "memory.py"))["setup"]


def test_the_estimates_are_what_the_allocator_said():
    cells = [cell for cell in TOLD["cells"] if cell["model"] == "mini"]
    assert len(cells) > 30
    off = {"allocated": [], "reserved": []}
    for cell in cells:
        held = estimate(setup(cell))
        for kind, found in {"allocated": held.peak.total, "reserved": held.reserved}.items():
            off[kind].append(abs(found / (cell["measured"][kind] + WORKSPACE) - 1))
    assert max(off["allocated"]) < 0.001
    assert median(off["reserved"]) < 0.001
    assert max(off["reserved"]) < 0.03


def test_every_batch_that_was_said_to_fit_did_and_a_larger_one_did_not():
    rows = TOLD["largest_batches"]
    assert len(rows) >= 6
    assert all(row["fits"] and not row["more_fits"] for row in rows)


def test_the_table_has_every_axis():
    axes = {
        name: {cell[name] for cell in TOLD["cells"]}
        for name in ("model", "method", "batch_size", "dtype", "checkpointing", "implementation")
    }
    assert len(TOLD["cells"]) >= 36
    assert axes["model"] == {"mini", "30m", "smollm2-135m"}
    assert axes["method"] == {"full", "r4", "r64"}
    assert axes["batch_size"] == {1, 8, 32}
    assert axes["dtype"] == {"float32", "bfloat16"}
    assert axes["checkpointing"] == {True, False}
    assert {"foreach", "fused"} <= axes["implementation"]
    made = TOLD["estimates"]
    assert not made["beforehand"]["cuda"] and made["with_cuda"]["cuda"]


def test_no_cell_is_further_off_than_three_percent():
    worst = {name: error["worst"] for name, error in TOLD["errors"].items()}
    assert len(worst) == 9
    assert max(worst.values()) < 0.03
