"""A run's folder: claimed before the run, filled by it, and what it holds, in words.

Of many processes rank 0 alone writes into it.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorakit import parallel
from lorakit.adapters import save_adapter
from lorakit.checkpoint import save_folder
from lorakit.files import read_json, write_json
from lorakit.resume import save_checkpoint
from lorakit.run import Result
from lorakit.train import Training


@contextmanager
def claimed(out: Path | str | None) -> Iterator[Path | None]:
    """Yields the folder for a run's files, if one is named; made here and left empty, it goes.

    One that holds anything is not written over.
    """
    if out is None or parallel.rank():
        yield None if out is None else Path(out)
        return
    folder = Path(out)
    new = not folder.exists()
    if not new and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: name a new folder for this run, or resume it")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def keep_json(folder: Path | None, name: str, value: Any) -> None:
    """Write one of the folder's files, if there is a folder."""
    if folder is not None and parallel.rank() == 0:
        write_json(folder / name, value)


def keep(result: Result, training: Training, folder: Path | None) -> None:
    """Write what training made: weights or adapter, or a checkpoint if there are steps to go."""
    keep_json(folder, "history.json", result.history.to_json())
    keep_json(folder, "result.json", result.to_json())
    if folder is None or parallel.rank():
        return
    if training.position < result.run.steps:
        save_checkpoint(training, folder / "checkpoint")
        return
    if result.run.lora is None:
        save_folder(result.model, result.tokenizer, folder / "model")
    else:
        save_adapter(result.model, folder / "adapter", base=result.run.base)
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)


@contextmanager
def telling(folder: Path | None) -> Iterator[None]:
    """Within the block Lost says what is on disk as well."""
    try:
        yield
    except parallel.Lost as lost:
        raise parallel.Lost(f"{lost}; {held(folder)}") from lost


def held(folder: Path | None) -> str:
    """What the folder has of a run, and how to go on from there."""
    if folder is None:
        return "the run has no folder, so nothing is on disk"
    if any((folder / name).exists() for name in ("adapter", "model")):
        return f"{folder} holds a run that is done"
    if (folder / "checkpoint").exists():
        steps = len(read_json(folder / "checkpoint" / "run.json")["history"]["steps"])
        return (
            f"{folder} holds a checkpoint after {steps} steps: lorakit finetune --resume {folder}"
        )
    unless = "unless rank 0 is still writing" if parallel.rank() else "start it again"
    return f"{folder} holds no step of it: {unless}"
