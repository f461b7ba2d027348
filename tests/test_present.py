"""How the teacher's screen is served: on this machine alone, by a page that it writes itself."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lorakit.present import CELL, PAGE, open_stage, write_page


@pytest.fixture
def heard(monkeypatch) -> list:
    """The command and the environment that would have been run, and what was there for it."""
    found = []

    def call(command, env):
        folder = Path(command[-1]).parent
        found.extend([command, env, sorted(path.name for path in folder.rglob("*.*"))])
        return 5

    monkeypatch.setattr(subprocess, "call", call)
    return found


def test_voila_serves_a_page_to_this_machine_alone_and_keeps_a_token(heard):
    assert open_stage(["--port", "9999"]) == 5
    command, environment, files = heard
    assert command[:3] == [sys.executable, "-m", "voila"]
    assert {"--Voila.ip=127.0.0.1", "--token", "--template=stage"} < {*command}
    assert "--MappingKernelManager.cull_idle_timeout=300" in command
    assert "--MappingKernelManager.cull_interval=30" in command
    assert command[-3:-1] == ["--port", "9999"]
    assert environment["JUPYTER_PATH"] == str(Path(command[-1]).parent)
    assert files == ["conf.json", "index.html.j2", "lesson.ipynb"]


def test_an_option_that_is_given_takes_the_place_of_its_own(heard):
    open_stage(["--Voila.ip=0.0.0.0"])
    assert [option for option in heard[0] if "ip=" in option] == ["--Voila.ip=0.0.0.0"]


def test_a_path_of_the_user_s_own_stays(heard, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "mine")
    open_stage([])
    assert heard[1]["JUPYTER_PATH"].endswith("mine")


def test_nothing_is_left_behind(heard):
    open_stage([])
    assert not Path(heard[0][-1]).parent.exists()


def test_the_page_is_one_cell_that_a_notebook_can_hold(tmp_path):
    page = nbformat.read(write_page(tmp_path), as_version=4)
    nbformat.validate(page)
    assert [cell.source for cell in page.cells] == [CELL]
    compile(CELL, "the cell", "exec")
    assert 'Answers(Path("room.json"))' in CELL, "beside the page, and gone with it"


def test_the_template_is_voila_s_own_and_asks_no_network(tmp_path):
    write_page(tmp_path)
    folder = tmp_path / "voila" / "templates" / "stage"
    assert json.loads((folder / "conf.json").read_text()) == {"base_template": "lab"}
    assert "http" not in PAGE
