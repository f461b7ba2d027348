"""A family of adapters over the mini base: 48 tasks that differ in form alone, an adapter each.

    python -m lorakit.family data/adapters        stopped and called again, it does what is missing

Every one of the 24 orders of a record's pairs is there twice, with either set of keys; separators
take turns. An adapter answers its own task, and is wrong on the next one's: it has learnt a form.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorakit.adapters import save_adapter
from lorakit.begin import begin
from lorakit.checkpoint import load_base, resolve
from lorakit.files import read_json, write_rows
from lorakit.mini_tasks import ORDERS, RECORDS, SEPARATORS, record_form
from lorakit.mixture import Record
from lorakit.model import Llama
from lorakit.run import Run
from lorakit.scoring import score
from lorakit.sweep import Row, machine, source_of
from lorakit.tasks import mini_task
from lorakit.text import Example, Tokenizer, encode_example
from lorakit.world import tell

# Numbers of records: the order counts fastest, then the separator, then the keys.
FAMILY = tuple(
    f"record-{order + len(ORDERS) * (order % len(SEPARATORS)) + keys}"
    for keys in (0, RECORDS // 2)
    for order in range(len(ORDERS))
)
FOLDER = Path(__file__).resolve().parent.parent / "data" / "adapters"  # beside the package
RUN = Run(base="mini", rank=1, alpha=2.0, lr=1e-2, batch_size=16, steps=60, heldout=200)
OWN, NEXT = 0.9, 0.2  # exact match: at least on one's own task, at most on the next one's


def train_family(
    folder: Path | str,
    results: Path | str,
    *,
    tasks: Sequence[str] = FAMILY,
    run: Run = RUN,
    command: str = "",
    report: Callable[[str], None] = lambda sentence: None,
) -> list[Row]:
    """An adapter of each task in `folder`, by its name, and a row of each in the file `results`.

    What is there is not trained again, unless base, task or run have changed. Raises
    ArithmeticError, that adapter not kept, if one fails its own task or knows the next one's.
    """
    folder, results = Path(folder), Path(results)
    rows = {row["task"]: row for row in read_rows(results)}
    head = {"command": command, "run": _run(run)}
    tokenizer = load_base(run.base)[1]
    start, trained = time.perf_counter(), 0
    missing = [
        task
        for task in tasks
        if not (folder / task).is_dir()
        or rows.get(task, {}).get("source") != source_of(replace(run, task=task))
        or read_json(results)["run"] != _run(run)
    ]
    for task, after in zip(tasks, [*tasks[1:], tasks[0]], strict=True):
        if task not in missing:
            continue
        one = replace(run, task=task)
        training = begin(one)
        training.run()
        model = training.model
        assert isinstance(model, Llama)
        own = exact_match(model, tokenizer, task, run.heldout)
        other = exact_match(model, tokenizer, after, run.heldout)
        if own < OWN or other > NEXT:
            raise ArithmeticError(
                f"the adapter of {task} has an exact match of {own:g} on its own task (at least "
                f"{OWN:g}) and {other:g} on {after} (at most {NEXT:g}): train longer"
            )
        save_adapter(model, folder / task, base=run.base)
        rows[task] = {"task": task, "own": own, "next": after, "on_next": other}
        rows[task] |= {"source": source_of(one), "made": machine()}
        _write(results, head, [rows[task] for task in tasks if task in rows])
        trained += 1
        left = (time.perf_counter() - start) / trained * (len(missing) - trained)
        report(f"{task}: {own:g} right, {other:g} of {after}; {trained} done, {left:.0f} s left")
    return [rows[task] for task in tasks]


def exact_match(model: Llama, tokenizer: Tokenizer, task: str, count: int) -> float:
    """The share of a task's first `count` held-out examples that `model` answers exactly."""
    examples = [encode_example(tokenizer, example) for example in mini_task(task).heldout[:count]]
    found = score(model, examples, pad_id=tokenizer.pad_id, batch_size=50)
    assert found is not None  # nothing stops it
    return found.exact_match


def question(task: str, number: int) -> Example:
    """A held-out question by its number, the same for every task; the answer is in the task's form.

    The story is of the world's held-out names and values.
    """
    draw = random.Random(f"family {number}")
    story = tell(draw, "heldout")
    asked = _record(task).ask(draw, story)
    return Example(f"{story.text} {asked.text}", asked.answer(story))


def form(task: str) -> str:
    """A task's keys in their order, and what stands between key and value."""
    record = _record(task)
    return f"{', '.join(record.keys)} with {record.separator}"


def _record(task: str) -> Record:
    return record_form(int(task.removeprefix("record-")))


@dataclass(frozen=True, kw_only=True)
class DiskBill:
    """Bytes of real files: a base's folder, and each adapter's."""

    base: int
    adapters: tuple[int, ...]

    def copies(self, tasks: int) -> int:
        """What as many fully fine-tuned models take."""
        return tasks * self.base


def disk_bill(base: str = "mini", folder: Path = FOLDER) -> DiskBill:
    """What the family takes on disk, adapter by adapter."""
    return DiskBill(
        base=_bytes(resolve(base)), adapters=tuple(_bytes(folder / n) for n in members(folder))
    )


def members(folder: Path = FOLDER) -> list[str]:
    """The tasks of the family that have an adapter in `folder`, in the family's order."""
    return [task for task in FAMILY if (folder / task).is_dir()]


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def read_rows(results: Path | str) -> list[Row]:
    """The rows that `train_family` wrote, each whole again; none if there is no file."""
    if not Path(results).exists():
        return []
    told = read_json(results)
    return [row | {"made": told["made"][row["made"]]} for row in told["rows"]]


def _write(results: Path, head: Row, rows: list[Row]) -> None:
    """How the rows were made stands once each."""
    made = list({json.dumps(row["made"]): row["made"] for row in rows}.values())
    lines = [row | {"made": made.index(row["made"])} for row in rows]
    write_rows(results, head, {"made": made, "rows": lines})


def _run(run: Run) -> Row:
    """What the runs of a family have in common."""
    names = ("base", "rank", "alpha", "targets", "lr", "batch_size", "steps", "heldout", "seed")
    return {name: getattr(run, name) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the family of adapters.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--results", type=Path, default=Path("data/results/adapters.json"))
    options = parser.parse_args()

    def report(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    try:
        command = f"python -m lorakit.family {options.out}"
        train_family(options.out, options.results, command=command, report=report)
    except KeyboardInterrupt:
        report(f"stopped; {options.out} keeps what is done, and the same command goes on")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
