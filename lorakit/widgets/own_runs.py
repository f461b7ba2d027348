"""A student's own runs of a sweep: trained in the thread of a job, and judged as the sweep's were.

Knows neither controls nor pictures.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict

from lorakit.run import Progress, Run
from lorakit.scoring import Score
from lorakit.sweep import Judges, Row, how_made, stack_runs
from lorakit.widgets.job import Job

AT_ONCE = 2**13  # tokens that are judged together: more are slower on a CPU


def run_here(job: Job, runs: Sequence[Run]) -> list[Row] | None:
    """Train runs of equal length side by side, then judge them; a row each, in their order.

    None if the job was stopped: then nothing was judged.
    """
    job.show(Progress(stage="loading the base"))
    alike: dict[str, list[Run]] = {}
    for run in runs:
        alike.setdefault(run.method, []).append(run)
    teams = [(team, *stack_runs(team)) for team in alike.values()]
    steps, began = runs[0].steps, time.monotonic()
    for done in range(1, steps + 1):
        if job.stopping():
            return None
        for _, stack, _ in teams:
            stack.step()
        job.advance("training", done, steps, began=began)
    rows: dict[Run, Row] = {}
    for team, stack, judged in teams:
        scores: list[list[Score]] = []
        for part in _parts(judged):
            if job.stopping():
                return None
            job.show(Progress(stage="judging"))
            scores.append(stack.score(part, tokens_at_once=AT_ONCE))
        alive, made = stack.alive.tolist(), how_made(team, time.monotonic() - began)
        for run, heldout, own, lives in zip(team, *scores, alive, strict=True):
            rows[run] = {
                "run": asdict(run),
                "heldout": [heldout.exact_match, _finite(heldout.loss)],
                "own": _finite(own.loss),
                "diverged": not lives,
                "made": made,
            }
    return [rows[run] for run in runs]


def _parts(judged: Judges) -> tuple:
    return judged.heldout, judged.own


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
