"""Is this machine ready for the lesson? Findings as values, each problem with its fix.

Knows nothing of models; it asks for versions without importing what is slow.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lorakit.device import VARIABLE, describe, pick_device

NEEDED = ("numpy", "safetensors", "tokenizers", "gguf", "matplotlib", "ipywidgets", "jupyterlab")
MEMORY = 4 * 10**9  # bytes: what full fine-tuning of SmolLM2-135M needs, with room for Python
DISK = 2 * 10**9


@dataclass(frozen=True, kw_only=True)
class Finding:
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
    return [
        _python(),
        _torch(),
        *(_package(name) for name in NEEDED),
        _device(),
        _base(),
        _memory(),
        _disk(),
        _kernel(),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info < (3, 14)
    fix = "" if fits else "install Python 3.11, 3.12 or 3.13 and make .venv again: make clean lab"
    return Finding(what="Python", found=version, fix=fix)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> Finding:
    version = _version("torch")
    if version is None:
        return Finding(what="torch", found="missing", fix="pip install -r requirements.txt")
    major, minor = (int(part) for part in version.split(".")[:2])
    fix = "" if (major, minor) >= (2, 9) else "pip install -U 'torch>=2.9'"
    return Finding(what="torch", found=version, fix=fix)


def _package(name: str) -> Finding:
    version = _version(name)
    fix = "" if version else "pip install -r requirements.txt"
    return Finding(what=name, found=version or "missing", fix=fix)


def _device() -> Finding:
    try:
        device = pick_device()
    except ValueError as error:
        return Finding(what="device", found=str(error), fix=f"unset {VARIABLE}")
    return Finding(what="device", found=f"{device} ({describe(device)})")


def _base() -> Finding:
    from lorakit.checkpoint import INSTALL_SMOLLM2, smollm2_file

    try:
        found = smollm2_file().name
    except FileNotFoundError:
        return Finding(what="SmolLM2", found="missing", fix=INSTALL_SMOLLM2)
    return Finding(what="SmolLM2", found=found)


def _memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available
    fix = "" if free >= MEMORY else "close other programs, or stay with LoRA and small batches"
    return Finding(what="free memory", found=f"{free / 1e9:.1f} GB", fix=fix)


def _disk() -> Finding:
    from lorakit.checkpoint import cache_folder

    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    fix = "" if free >= DISK else "make room, or set LORAKIT_CACHE to a folder on another disk"
    return Finding(what="free disk for the cache", found=f"{free / 1e9:.1f} GB", fix=fix)


def _kernel() -> Finding:
    """Widgets show only if the notebook's kernel runs in the environment that has ipywidgets."""
    here = Path(sys.prefix)
    fix = ""
    if sys.prefix == sys.base_prefix and not os.environ.get("CONDA_PREFIX"):
        fix = "start the lab from its own environment: make lab, or .venv/bin/lorakit lab"
    return Finding(what="environment of the widgets", found=here.name, fix=fix)


def open_lab(options: Sequence[str]) -> int:
    """Run JupyterLab on the lesson until it is closed; its exit code.

    Listens on 127.0.0.1 and keeps its token. Raises FileNotFoundError if the notebooks are not
    there, as in a package installed without the repository.
    """
    root = Path(__file__).resolve().parent.parent
    lesson = root / "notebooks" / "09_real_model.ipynb"
    if not lesson.is_file():
        raise FileNotFoundError(f"no notebooks in {root}: run this from a clone of the repository")
    print("JupyterLab prints its address below: open it by hand if no browser opens.", flush=True)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--ServerApp.ip=127.0.0.1"),
        *(f"--ServerApp.root_dir={root}", *options, str(lesson)),
    ]
    return subprocess.call(command)
