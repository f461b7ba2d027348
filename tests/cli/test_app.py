"""The program as a whole: how it is called, what it offers, what calling it costs."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points

import pytest
from command_line import lorakit_

from lorakit.cli import COMMANDS, load, main


def test_further_options_of_lab_go_to_jupyterlab(monkeypatch):
    heard = []
    monkeypatch.setattr("lorakit.cli.machine.open_lab", lambda options: heard.append(options) or 3)
    lorakit_("lab", "--port", 9999, "--no-browser", code=3)
    assert heard == [["--port", "9999", "--no-browser"]]


def test_further_options_of_present_go_to_voila(monkeypatch):
    heard = []
    monkeypatch.setattr("lorakit.cli.machine.open_stage", lambda options: heard.append(options))
    lorakit_("present", "--port", 9999)
    assert heard == [["--port", "9999"]]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_of_itself_what_the_list_says_of_it(name):
    function = getattr(import_module(f"lorakit.cli.{COMMANDS[name].module}"), name)
    assert " ".join(function.__doc__.split()) == COMMANDS[name].about
    assert load(name).help == function.__doc__
    assert "Usage: lorakit " + name in lorakit_(name, "--help").output.replace("root", "lorakit")


def test_a_command_that_there_is_not_is_refused_by_name():
    assert "No such command 'finetun'" in lorakit_("finetun", code=2).output


def test_help_needs_no_pytorch_no_drawing_and_no_notebook():
    heavy = {"torch", "numpy", "matplotlib", "IPython", "ipywidgets", "transformers", "peft"}
    code = (
        "import sys; from lorakit.cli import app; app(['--help'], standalone_mode=False); "
        f"print(*sorted({heavy} & sys.modules.keys()), file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0
    assert process.stderr.split() == []
    commands = ("finetune", "merge", "generate", "params", "memory", "doctor", "lab", "present")
    assert all(f" {name} " in process.stdout for name in commands)


def test_the_installed_program_is_this_one():
    (program,) = entry_points(group="console_scripts", name="lorakit")
    assert program.load() is main


def test_the_package_runs_as_a_module():
    command = [sys.executable, "-m", "lorakit.cli", "params", "--base", "mini", "--json"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout == lorakit_("params", "--base", "mini", "--json").stdout
