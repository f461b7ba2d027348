"""How `lorakit` speaks: progress and errors on stderr, results on stdout, pictures in files."""

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

screen, notes = Console(), Console(stderr=True)


def plain_errors(command: Callable[..., None]) -> Callable[..., None]:
    """What a user can mend is one line on stderr and exit code 1, without a traceback."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except (ValueError, OSError, ArithmeticError) as error:
            notes.print(f"[red]error:[/red] {error}", highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error

    return run


def show(title: str, rows: dict[str, str]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, value)
    screen.print(table)


def stop_on_interrupt() -> Callable[[], bool]:
    """A stop that the first Ctrl-C sets; a second one ends the program as usual."""
    asked = threading.Event()

    def interrupt(number: int, frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        notes.print("stopping after this micro-batch (Ctrl-C again to break off)")

    with suppress(ValueError):  # not in the main thread: there is no Ctrl-C to hear
        signal.signal(signal.SIGINT, interrupt)
    return asked.is_set


def tell_progress() -> Callable[[Any], None]:
    """One line a stage; in training, a line about every ten percent."""
    last = {"stage": "", "tenth": -1}

    def report(progress: Any) -> None:
        if progress.stage != last["stage"]:
            last.update(stage=progress.stage, tenth=-1)
            notes.print(progress.stage)
        tenth = 10 * progress.done // progress.total
        if progress.done and tenth > last["tenth"]:
            last["tenth"] = tenth
            line = f"  {progress.done} of {progress.total}"
            if progress.losses:
                line += f", loss {progress.losses[-1]:.3g}"
            if progress.seconds_left is not None:
                line += f", {progress.seconds_left:.0f} s left"
            notes.print(line, highlight=False)

    return report


def save_pictures(result: Any, folder: Path) -> None:
    """Pictures of the loss and of the delta's spectrum beside the other results."""
    from lorakit.plots import COLORS, draw_loss, draw_spectrum, save_picture

    run = result.run
    if result.history.losses:
        save_picture(
            folder / "loss.png",
            lambda ax: draw_loss(
                ax,
                result.history.losses,
                total_steps=run.steps,
                label=run.method,
                color=COLORS[run.method],
            ),
        )
        cut = run.rank if run.lora else 8
        save_picture(folder / "spectrum.png", lambda ax: draw_spectrum(ax, result.spectra, cut=cut))


def summarise(result: Any, folder: Path) -> None:
    parameters, memory = result.parameters, result.memory
    done = f"{len(result.history.steps)} of {result.run.steps}"
    rows = {
        "exact match before": f"{result.before.exact_match:.2f}",
        "exact match after": f"{result.after.exact_match:.2f}" if result.after else "stopped",
        "parameters trained": f"{parameters.trainable:,} ({parameters.percent:.2f}%)",
        "on disk": megabytes(result.disk),
        "memory held in a step": megabytes(memory.total),
        "steps": f"{done} in {result.history.seconds:.0f} s ({result.device})",
        "folder": str(folder),
    }
    show(f"{result.run.method} on {result.run.task}", rows)
    for note in result.history.notes:
        notes.print(f"note: {note}")
    table = Table("question", "base", "tuned", "expected", show_lines=True)
    for answer in result.answers:
        table.add_row(*map(str, (answer.prompt, answer.base, answer.tuned, answer.expected)))
    if result.after:
        screen.print(table)
    else:
        screen.print(f"stopped: lorakit finetune --resume {folder} goes on from here")


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
