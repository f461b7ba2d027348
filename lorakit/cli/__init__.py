"""`lorakit ...`: what the notebooks do, from a shell; results on stdout, all else on stderr.

options.py     what more than one command can be told
weights.py     commands that load weights: finetune, merge, generate
counting.py    commands that need none: params, memory
budget.py      whether a step fits, and the options that make it fit
machine.py     doctor, lab, present

Drawing and JupyterLab are imported where they are used: `lorakit --help` needs PyTorch, not them.
"""

import typer

from lorakit.cli.counting import memory, params
from lorakit.cli.machine import doctor, lab, present
from lorakit.cli.weights import finetune, generate, merge
from lorakit.console import plain_errors

app = typer.Typer(
    help="Full fine-tuning versus LoRA, on a model that fits a laptop.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (finetune, merge, generate, params, memory, doctor):
    app.command()(plain_errors(command))
for opener in (lab, present):
    passing_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(context_settings=passing_on)(plain_errors(opener))


def main() -> None:
    app()
