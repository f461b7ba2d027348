"""How `lorakit` speaks: results on stdout, all else on stderr, pictures in the run's folder.

Texts of users, files and models are printed as they are, never read as markup. What gets copied (a
path, a command) stays on one line outside of tables, and a table cuts nothing, however narrow.
"""

import json
import os
import shlex
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from itertools import zip_longest
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from lorakit import parallel
from lorakit.experiment import Stopped
from lorakit.fingerprint import UnknownBase
from lorakit.run import Progress, Result
from lorakit.survival import OutOfMemory, is_out_of_memory

STOPPING = b"stopping soon and keeping what is trained; Ctrl-C again breaks off now and loses it\n"
INTERRUPTED = 130  # the exit code of what Ctrl-C ended
NO_MEMORY = "out of memory: lower --batch-size, or train with --method lora, or on another device"


def say(sentence: str) -> None:
    typer.echo(sentence, err=True)


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """What a user can mend is one line on stderr and exit code 1, without a traceback.

    What a user should know of an adapter's base is one line too, and no end.
    """

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            with _plain_notes():
                command(*args, **options)
        except Stopped as stopped:
            say(str(stopped))
            raise typer.Exit(INTERRUPTED) from stopped
        except (ValueError, OSError, ArithmeticError) as error:
            _fail(" ".join(str(error).splitlines()), error)
        except OutOfMemory as error:
            _fail(str(error), error)
        except RuntimeError as error:  # PyTorch has no other name for it on every device
            if not is_out_of_memory(error):
                raise
            _fail(NO_MEMORY, error)

    return run


@contextmanager
def _plain_notes() -> Iterator[None]:
    """Within the block a warning about an unknown base is a note, without a path into the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UnknownBase)
        others = warnings.showwarning

        def show_note(message, category, *where: Any, **more: Any) -> None:
            if issubclass(category, UnknownBase):
                say(f"note: {message}")
            else:
                others(message, category, *where, **more)

        warnings.showwarning = show_note
        yield


def _fail(sentence: str, cause: Exception) -> None:
    say(typer.style("error: ", fg="red") + sentence)
    raise typer.Exit(1) from cause


def show_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))


def show(rows: Iterable[Sequence[str | int]], *columns: str) -> None:
    """A table on stdout, its numbers to the right; without `columns` no line has a header."""
    rows = list(rows)
    table = Table(box=SIMPLE_HEAD, show_header=bool(columns))
    for header, cell in zip_longest(columns, rows[0], fillvalue=""):
        table.add_column(
            str(header), overflow="fold", justify="right" if isinstance(cell, int) else "left"
        )
    for row in rows:
        table.add_row(*(Text(cell if isinstance(cell, str) else f"{cell:,}") for cell in row))
    Console().print(table)


def whole_characters(tokens: Iterable[int], decode: Callable[[list[int]], str]) -> Iterator[str]:
    """Tokens as text, as they come; half a character waits for its other tokens."""
    seen: list[int] = []
    text = told = ""
    for token in tokens:
        seen.append(token)
        text = decode(seen)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):
            yield text[len(told) :]
            told = text
    yield text[len(told) :]


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Within the block the first Ctrl-C asks to stop, the second ends the program as usual."""
    asked = threading.Event()

    def interrupt(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if parallel.rank() == 0:
            os.write(2, STOPPING)  # sys.stderr may be in use: a signal comes at any time

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def tell_progress() -> Callable[[Progress], None]:
    """A listener that says each stage, and within it every tenth that is done."""
    stage, told = "", -1

    def report(progress: Progress) -> None:
        nonlocal stage, told
        if progress.stage != stage:
            stage, told = progress.stage, -1
            say(stage)
        tenth = 10 * progress.done // progress.total
        if progress.done and tenth > told:
            told = tenth
            line = f"  {progress.done} of {progress.total}"
            if progress.losses:
                line += f", loss {progress.losses[-1]:.3g}"
            if progress.seconds_left is not None:
                line += f", {duration(progress.seconds_left)} left"
            say(line)

    return report


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def save_pictures(result: Result, folder: Path) -> None:
    """Pictures of the loss and of the delta's spectrum, once a step is done."""
    # Drawing takes a second to import.
    from lorakit.plots import COLORS, draw_loss, draw_spectrum, save_picture

    run, losses = result.run, result.history.losses
    if not losses:
        return
    save_picture(
        folder / "loss.png",
        lambda ax: draw_loss(
            ax, losses, total_steps=run.steps, label=run.method, color=COLORS[run.method]
        ),
    )
    cut = max(1, run.rank // 4) if run.lora else 8  # at a LoRA's own rank all is in, always
    spectra = {run.method: result.spectra}
    save_picture(folder / "spectrum.png", lambda ax: draw_spectrum(ax, spectra, cut=cut))


def show_result(result: Result, folder: Path, as_json: bool) -> None:
    """Scores and costs, then what base and tuned model answer; on stderr, how to go on."""
    if as_json:
        show_json(result.to_json() | {"folder": str(folder)})
    else:
        typer.echo(f"\n{result.run.method} on {result.run.task}, {result.device}")
        show(_facts(result).items())
        for answer in result.answers:
            typer.echo(f"{answer.prompt}\nexpected: {answer.expected}")
            tuned = "not asked" if answer.tuned is None else answer.tuned
            show([(answer.base, tuned)], "base", "tuned")
    for note in result.history.notes:
        say(f"note: {note}")
    say(f"results in {folder}")
    say(_next(result, folder))


def _facts(result: Result) -> dict[str, str]:
    before, after, trained = result.before, result.after, result.parameters
    return {
        "exact match before": f"{before.right} of {before.count}",
        "exact match after": f"{after.right} of {after.count}" if after else "not judged",
        "loss before": f"{before.loss:.3g}",
        "loss after": f"{after.loss:.3g}" if after else "not judged",
        "parameters trained": f"{trained.trainable:,} ({trained.percent:.3g}%)",
        "on disk": decimal(result.disk),
        "memory at its peak": _peak(result),
        "steps": f"{len(result.history.steps)} of {result.run.steps}",
        "training time": f"{result.history.seconds:.0f} s",
    }


def _peak(result: Result) -> str:
    return "not measured" if result.memory is None else decimal(result.memory.peak.total)


def _next(result: Result, folder: Path) -> str:
    """Where the run stands, and the command that goes on from there."""
    done, steps = len(result.history.steps), result.run.steps
    if done < steps:
        resume = ["lorakit", "finetune", "--resume", str(folder)]
        return f"stopped after {done} of {steps} steps; go on: {shlex.join(resume)}"
    if result.run.lora:
        model = ["--base", result.run.base, "--adapter", str(folder / "adapter")]
    else:
        model = ["--base", str(folder / "model")]
    state = "trained" if result.after else "trained to the last step, but not judged"
    ask = ["lorakit", "generate", *model, result.answers[0].prompt]
    return f"{state}; ask it: {shlex.join(ask)}"
