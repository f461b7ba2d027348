"""Commands about this machine: is it ready, and open the lesson or the teacher's screen on it."""

import typer

from lorakit.cli.options import Json
from lorakit.console import say, show, show_json
from lorakit.doctor import examine, open_lab
from lorakit.present import open_stage


def doctor(as_json: Json = False) -> None:
    """Look at this machine: device, versions, widgets, memory; each problem comes with its fix."""
    findings = examine()
    problems = [finding for finding in findings if not finding.fine]
    if as_json:
        show_json([finding.to_json() for finding in findings])
    else:
        show([("ok" if f.fine else "mend", f.what, f.found) for f in findings], "", "what", "found")
    for finding in problems:
        say(f"{finding.what}: {finding.fix}")
    if problems:
        raise typer.Exit(1)


def lab(context: typer.Context) -> None:
    """Open the lesson in JupyterLab, on this machine alone; further options go to JupyterLab."""
    raise typer.Exit(open_lab(context.args))


def present(context: typer.Context) -> None:
    """Open the teacher's screen, on this machine alone; further options go to Voila."""
    raise typer.Exit(open_stage(context.args))
