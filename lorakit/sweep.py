"""A sweep: a list of runs on the mini base, a few programs of stacked runs, one row a run.

    rows = sweep(runs, "rows.jsonl")         killed and called again, it does what is missing

A row is written when its stack is done, the whole file at once: none is lost and none is repeated.
Besides the scores it holds what a later question may ask of a run: the score on the same stories
with their names shuffled, the loss on the base's own data, and both in the course of training.
"""

import datetime
import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from lorakit.checkpoint import load_base, resolve
from lorakit.device import describe, pick_device
from lorakit.files import replacing
from lorakit.hf_folder import WEIGHTS
from lorakit.mini_tasks import mixture_examples, shuffled_examples
from lorakit.qlora import quantize_
from lorakit.run import Run
from lorakit.stacked import Stack, StackedRun
from lorakit.tasks import mini_task
from lorakit.text import Batches, Encoded, Tokenizer, encode_batches, encode_example

MARKS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75)  # shares of the steps at which a run is looked at
Row = dict[str, Any]


def read_rows(path: Path | str) -> list[Row]:
    """The rows of a sweep so far; none if there is no file. Raises ValueError naming a bad line."""
    path, rows = Path(path), []
    lines = path.read_text().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not a row ({error})") from error
    return rows


def sweep(
    runs: Iterable[Run],
    out: Path | str,
    *,
    width: int = 16,
    stop: Callable[[], bool] = lambda: False,
    report: Callable[[str], None] = lambda sentence: None,
) -> list[Row]:
    """Do every run that `out` has no row of, `width` at a time; the rows of `runs`, in their order.

    `stop` ends it between two steps; the stack in progress is lost, every one before it is kept.
    Raises ValueError before anything is trained if two runs are the same, a task or a base is not
    known, or `out` has rows of another base or another text of a task.
    """
    runs, out = list(runs), Path(out)
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
    if len(set(runs)) < len(runs):
        raise ValueError(
            f"the sweep names a run twice: {next(r for r in runs if runs.count(r) > 1)}"
        )
    for run in runs:
        run.drawn(mini_task(run.task, run.sample).train)
        source_of(run)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{out}.lock", timeout=0):
            return _sweep(runs, out, width, stop, report)
    except Timeout as error:
        raise ValueError(
            f"another sweep writes {out}: wait for it, or name another file"
        ) from error


def _sweep(
    runs: list[Run],
    out: Path,
    width: int,
    stop: Callable[[], bool],
    report: Callable[[str], None],
) -> list[Row]:
    rows = {_key(row["run"]): row for row in read_rows(out)}
    for run in runs:
        if (row := rows.get(_key(asdict(run)))) and row["source"] != source_of(run):
            raise ValueError(
                f"{out} has runs on {run.task} over another base, or another text of the task: "
                "name another file"
            )
    missing = [run for run in runs if _key(asdict(run)) not in rows]
    stacks = [
        group[i : i + width] for group in _alike(missing) for i in range(0, len(group), width)
    ]
    start = time.perf_counter()
    for number, stack in enumerate(stacks, start=1):
        made = _train(stack, stop, report)
        if made is None:
            break
        rows |= {_key(row["run"]): row for row in made}
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows.values()]
        with replacing(out) as fresh:
            fresh.write_text("".join(lines))
        spent = time.perf_counter() - start
        left = spent / number * (len(stacks) - number)
        report(
            f"stack {number} of {len(stacks)}: {len(stack)} runs of {stack[0].method} on "
            f"{stack[0].task}; {spent:.0f} s, {left:.0f} s left"
        )
    return [rows[_key(asdict(run))] for run in runs if _key(asdict(run)) in rows]


def _key(run: dict[str, Any]) -> str:
    return json.dumps(run, sort_keys=True)


def _alike(runs: Iterable[Run]) -> list[list[Run]]:
    """The runs in groups that one program can hold, in order of their first."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        same = (run.base, run.task, run.method, run.targets, run.batch_size, run.steps, run.heldout)
        groups.setdefault(same, []).append(run)
    return list(groups.values())


def source_of(run: Run) -> str:
    """A hash of the base's weights and the task's examples: rows of one source can be compared."""
    return _source(run.base, run.task)


@lru_cache(maxsize=64)
def _source(base: str, task: str) -> str:
    text = json.dumps([[asdict(e) for e in part] for part in mini_task(task).splits])
    weights = (resolve(base) / WEIGHTS).read_bytes()
    return hashlib.sha256(weights + text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Judges:
    """What every run of a task is judged by."""

    validation: Sequence[Encoded]
    heldout: Sequence[Encoded]
    shuffled: Sequence[Encoded]
    own: Sequence[Encoded]


def judges(task: str, tokenizer: Tokenizer, heldout: int) -> Judges:
    """Encoded examples of a mini task; the base's own data are whole documents, every token."""
    loaded = mini_task(task)
    own = [encode_example(tokenizer, e) for e in mixture_examples("heldout", 200)]
    return Judges(
        [encode_example(tokenizer, e) for e in loaded.validation],
        [encode_example(tokenizer, e) for e in loaded.heldout[:heldout]],
        [encode_example(tokenizer, e) for e in shuffled_examples(task, "heldout", 200)],
        [Encoded(e.tokens, 1) for e in own],
    )


def stack_runs(runs: Sequence[Run]) -> tuple[Stack, Judges]:
    """Runs of one task as a stack that has yet to train, and what judges them.

    Raises ValueError if they differ in more than method, rank, alpha, rate, seed and sample.
    """
    first = runs[0]
    for field in ("base", "task", "heldout", "quantized"):
        if len(values := {getattr(run, field) for run in runs}) > 1:
            raise ValueError(f"runs of one stack must agree in {field}, these do not: {values}")
    base, tokenizer = load_base(first.base, device=pick_device())
    if first.quantized:
        quantize_(base)
    data: dict[tuple[int, int | None], Batches] = {}
    for run in runs:
        if (run.seed, run.sample) not in data:
            data[run.seed, run.sample] = encode_batches(
                tokenizer,
                run.drawn(mini_task(run.task, run.sample).train),
                batch_size=run.batch_size,
                seed=run.seed,
            )
    stacked = [
        StackedRun(run.lora, data[run.seed, run.sample], run.train_config("cpu"), run.seed)
        for run in runs
    ]
    return Stack(base, stacked), judges(first.task, tokenizer, first.heldout)


def how_made(runs: Sequence[Run], seconds: float) -> Row:
    """What must be known of a measurement: where, with what, when, and what it took."""
    return machine() | {"stack": len(runs), "seconds": round(seconds, 1)}


def machine() -> Row:
    """The device, the versions and the date of a measurement."""
    return {
        "device": describe(pick_device()),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }


def _train(
    runs: Sequence[Run], stop: Callable[[], bool], report: Callable[[str], None]
) -> list[Row] | None:
    stack, judged = stack_runs(runs)
    marks = {max(1, round(share * stack.steps)) for share in MARKS} | {stack.steps}
    curves: list[list[list[float | None]]] = [[] for _ in runs]
    start = time.perf_counter()
    while stack.position < stack.steps:
        if stop():
            return None
        stack.step()
        if stack.position in marks:
            report(f"  {stack.position} of {stack.steps} steps")
            scores = stack.score(judged.validation[:60]), stack.score(judged.own[:40])
            for curve, task_score, own_score in zip(curves, *scores, strict=True):
                curve.append([stack.position, task_score.exact_match, _finite(own_score.loss)])
    alive = stack.alive.tolist()
    made = how_made(runs, time.perf_counter() - start)
    parts = (judged.validation, judged.heldout, judged.shuffled, judged.own)
    scored = [stack.score(part) for part in parts]
    return [
        {
            "run": asdict(run),
            "source": source_of(run),
            "validation": [v.exact_match, _finite(v.loss)],
            "heldout": [h.exact_match, _finite(h.loss)],
            "shuffled": s.exact_match,
            "own": _finite(o.loss),
            "curve": curves[i],
            "diverged": not alive[i],
            "made": made,
        }
        for i, (run, v, h, s, o) in enumerate(zip(runs, *scored, strict=True))
    ]


def _finite(loss: float) -> float | None:
    """For JSON, which knows no infinity."""
    return round(loss, 5) if math.isfinite(loss) else None
