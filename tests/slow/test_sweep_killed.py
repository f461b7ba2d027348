"""A sweep that is killed at any moment loses no row and repeats none."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from lorakit.sweep import read_rows

SWEEP = """
import sys
from dataclasses import replace
from pathlib import Path
from lorakit import sweep as module
from lorakit.run import Run
base, out = sys.argv[1:]
whole = module.judges
def few(*args):
    return module.Judges(*(part[:4] for part in vars(whole(*args)).values()))
module.judges = few
run = Run(base=base, task="label", batch_size=2, steps=2, heldout=4, answers=0)
runs = [replace(run, seed=seed, lr=lr) for seed in range(8) for lr in (1e-3, 2e-3)]
print("begins", flush=True)
module.sweep(runs, out, width=1)
"""


def test_a_sweep_killed_ten_times_ends_as_an_unbroken_one(small_base, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LORAKIT_DEVICE": "cpu"}

    def begin(out: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", SWEEP, small_base, str(out)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert process.stdout.readline() == b"begins\n"
        return process

    def results(out: Path) -> list:
        rows = read_rows(out)
        for row in rows:
            row["made"].pop("seconds")
        return rows

    start = time.monotonic()
    assert begin(tmp_path / "whole.jsonl").wait() == 0
    whole = time.monotonic() - start
    for number in range(10):
        process = begin(tmp_path / "killed.jsonl")
        time.sleep(whole * (0.03 + 0.05 * ((7 * number) % 10) / 10))
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert begin(tmp_path / "killed.jsonl").wait() == 0
    assert results(tmp_path / "killed.jsonl") == results(tmp_path / "whole.jsonl")
