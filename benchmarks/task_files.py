"""The examples of every named task, as they stand in data/tasks.

python benchmarks/task_files.py data/tasks
"""

import sys
from pathlib import Path

from lorakit.mini_tasks import MINI_TASKS
from lorakit.orders import FORMS
from lorakit.tasks import load_task, write_examples


def main() -> None:
    folder = Path(sys.argv[1])
    for name in (*FORMS, *MINI_TASKS):
        task = load_task(name)
        for split in ("train", "validation", "heldout"):
            if examples := getattr(task, split):
                write_examples(folder / name / f"{split}.jsonl", examples)


if __name__ == "__main__":
    main()
