"""The command line as a test calls it."""

from typer.testing import CliRunner

from lorakit.cli import app


def lorakit_(*arguments, code: int = 0, columns: int = 80):
    """What the command says, having ended with exit code `code`."""
    words = [str(argument) for argument in arguments]
    environment = {"COLUMNS": str(columns)}
    result = CliRunner().invoke(app, words, env=environment, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result
