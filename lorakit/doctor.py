"""Is this machine ready for the lesson? Findings as values, each problem with its fix.

What must be installed is read from lorakit's own metadata, the one place that says it. A fix is a
command to copy or a sentence; those for pip name the very Python that runs here.
"""

import importlib.metadata
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from lorakit.answers import temporary
from lorakit.checkpoint import INSTALL_SMOLLM2, SMOLLM2, cache_folder, smollm2_file
from lorakit.colab import SERVERS, asked
from lorakit.device import VARIABLE, describe, pick_device

MEMORY = 4 * 10**9  # bytes: what full fine-tuning of SmolLM2-135M needs, with room for Python
DISK = 2 * 10**9
LESSON = Path("notebooks", "00_start_here.ipynb")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was looked at, what was found, and how to mend it, if it needs mending."""

    what: str
    found: str
    fix: str = ""

    @property
    def fine(self) -> bool:
        return not self.fix

    def to_json(self) -> dict:
        return asdict(self) | {"fine": self.fine}


def examine() -> list[Finding]:
    """Every finding, the good ones too."""
    no_need = SERVERS if temporary() == "Colab" else ()
    needed = [r for r in asked() if canonicalize_name(r.name) not in no_need]
    return [
        _python(),
        *map(_package, needed),
        _device(),
        _base(),
        _kernel(),
        _memory(),
        _disk(),
    ]


def _python() -> Finding:
    wanted = importlib.metadata.metadata("lorakit")["Requires-Python"]
    version = platform.python_version()
    fits = SpecifierSet(wanted).contains(version, prereleases=True)
    fix = "" if fits else f"make the environment again with a Python {wanted}: make clean lab"
    return Finding(what="Python", found=version, fix=fix)


def _package(needed: Requirement) -> Finding:
    fix = _with_this_python(f"pip install {shlex.quote(f'{needed.name}{needed.specifier}')}")
    try:
        version = importlib.metadata.version(needed.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(what=needed.name, found="missing", fix=fix)
    fits = needed.specifier.contains(version, prereleases=True)
    return Finding(what=needed.name, found=version, fix="" if fits else fix)


def _with_this_python(command: str) -> str:
    return f"{shlex.quote(sys.executable)} -m {command}"


def _device() -> Finding:
    try:
        device = pick_device()
    except ValueError as error:
        return Finding(what="device", found=str(error), fix=f"unset {VARIABLE}")
    return Finding(what="device", found=f"{device} ({describe(device)})")


def _base() -> Finding:
    try:
        return Finding(what=SMOLLM2, found=smollm2_file().name)
    except FileNotFoundError:
        return Finding(what=SMOLLM2, found="missing", fix=_with_this_python(INSTALL_SMOLLM2))


def _kernel() -> Finding:
    """Widgets show only if notebooks run in the environment that is looked at here."""
    try:
        from jupyter_client.kernelspec import KernelSpecManager  # slow to import; may be missing
    except ImportError:
        fix = _with_this_python("pip install jupyterlab")
        return Finding(what="kernel of notebooks", found="none", fix=fix)
    python = KernelSpecManager().get_kernel_spec("python3").argv[0]
    if Path(python).name == python:  # Jupyter takes its own
        python = sys.executable
    here = Path(python).absolute().parent == Path(sys.executable).absolute().parent
    fix = "" if here else "open the lesson in its own environment: make lab"
    return Finding(what="kernel of notebooks", found=python, fix=fix)


def _memory() -> Finding:
    free = psutil.virtual_memory().available
    fix = "" if free >= MEMORY else "close other programs, or stay with LoRA and small batches"
    return Finding(what="free memory", found=f"{free / 1e9:.1f} GB", fix=fix)


def _disk() -> Finding:
    folder = cache_folder().absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    fix = "" if free >= DISK else "make room, or set LORAKIT_CACHE to a folder on another disk"
    return Finding(what="free disk for the cache", found=f"{free / 1e9:.1f} GB", fix=fix)


def open_lab(options: Sequence[str]) -> int:
    """Run JupyterLab on the lesson until it is closed; its exit code.

    Listens on 127.0.0.1 and keeps its token. Raises FileNotFoundError if the notebooks are not
    there, as in a package installed without the repository.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / LESSON).is_file():
        raise FileNotFoundError(
            f"{root / LESSON} is not there: clone the repository, and run make lab in it"
        )
    print("JupyterLab prints its address below: open it by hand if no browser opens", flush=True)
    if getattr(os, "geteuid", lambda: 1)() == 0 and "--allow-root" not in options:
        print("You are root, whom it refuses: lorakit lab --allow-root tells it not to", flush=True)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1"),
        "--LabApp.news_url=None",  # a question about news would cover the page's corner
        *(f"--ServerApp.root_dir={root}", *options, str(root / LESSON)),
    ]
    return until_closed(command)


def until_closed(command: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run a server until it is closed; its exit code.

    Ctrl-C reaches the server too, which may ask before it ends: its answer is waited for. Threads
    of its kernels soon sleep while they wait for each other. By themselves they spin on, and where
    a browser or a neighbour wants the cores a run of seconds then takes minutes; on a quiet machine
    sleeping costs nothing that could be told from noise.
    """
    environment = {"GOMP_SPINCOUNT": "3000", **(os.environ if environment is None else environment)}
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        return subprocess.call(command, env=environment)
    finally:
        signal.signal(signal.SIGINT, before)
