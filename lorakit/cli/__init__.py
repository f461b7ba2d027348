"""`lorakit ...`: what the notebooks do, from a shell; results on stdout, all else on stderr.

options.py     what more than one command can be told
weights.py     commands that load weights: finetune, merge, generate
counting.py    commands that need none: params, memory
budget.py      whether a step fits, and the options that make it fit
machine.py     doctor, lab, present

A command is imported when it is called, drawing and JupyterLab where they are used: for its help
`lorakit` needs none of them, and no PyTorch.
"""

from importlib import import_module
from typing import NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class Place(NamedTuple):
    """Where a command is, what it says of itself, and whether further options are passed on."""

    module: str
    about: str
    passes_on: bool = False


COMMANDS = {
    "finetune": Place(
        "weights",
        "Fine-tune a base on a task, in full, with LoRA or QLoRA. Ctrl-C keeps a checkpoint.",
    ),
    "merge": Place(
        "weights",
        "Fold an adapter into its base: one plain model, as fast as the base, as large as the "
        "base.",
    ),
    "generate": Place(
        "weights", "Ask a base, or a base with an adapter, and print its answer as it comes."
    ),
    "params": Place(
        "counting",
        "Count parameters and bytes of full fine-tuning and of LoRA, without loading any weight.",
    ),
    "memory": Place(
        "counting",
        "Estimate what a training step holds, and whether it fits a budget (exit code 1 if not).",
    ),
    "doctor": Place(
        "machine",
        "Look at this machine: device, versions, widgets, memory; each problem comes with its fix.",
    ),
    "lab": Place(
        "machine",
        "Open the lesson in JupyterLab, on this machine alone; further options go to JupyterLab.",
        passes_on=True,
    ),
    "present": Place(
        "machine",
        "Open the teacher's screen, on this machine alone; further options go to Voila.",
        passes_on=True,
    ),
}


class _Commands(TyperGroup):
    """Commands that say their line without being imported."""

    def list_commands(self, ctx) -> list[str]:
        return [*COMMANDS]

    def get_command(self, ctx, cmd_name: str) -> TyperCommand | None:
        """A stand-in with the command's line: `resolve_command` has the command itself."""
        if cmd_name not in COMMANDS:
            return None
        return TyperCommand(cmd_name, help=COMMANDS[cmd_name].about)

    def resolve_command(self, ctx, args: list[str]):
        name, found, rest = super().resolve_command(ctx, args)
        return name, None if found is None else load(str(name)), rest


def load(name: str):
    """The command itself."""
    from lorakit.console import plain_errors

    place = COMMANDS[name]
    function = getattr(import_module(f"lorakit.cli.{place.module}"), name)
    passing_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name, context_settings=passing_on if place.passes_on else None)(
        plain_errors(function)
    )
    return typer.main.get_command(alone)


app = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.callback()
def about() -> None:
    """Full fine-tuning versus LoRA, on a model that fits a laptop."""


def main() -> None:
    app()
