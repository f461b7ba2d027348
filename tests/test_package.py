"""The package as a whole: which way its imports point, what importing it costs, how large it is."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lorakit

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lorakit"

# A module imports only from rooms above its own line.
ROOMS = [
    {"fused_norm"},
    {"attention", "fingerprint", "heap", "linear", "lora_config", "norm"},
    {
        "ahead",
        "capture",
        "changes",
        "device",
        "ending",
        "files",
        "history",
        "lora",
        "model",
        "quantize",
        "quiz",
        "spectrum",
        "subspaces",
        "terms",
        "world",
    },
    {
        "adapter_config",
        "answers",
        "counts",
        "decoding",
        "deltas",
        "fast",
        "merging",
        "mixing",
        "mixture",
        "parallel",
        "places",
        "presets",
        "products",
        "qlora",
        "quiz_score",
        "status",
        "text",
        "untie",
    },
    {"adapter_file", "packed", "predictions"},
    {
        "adapters",
        "combining",
        "generation",
        "gguf_llama",
        "hf_folder",
        "mini_tasks",
        "orders",
        "step",
    },
    {"graphed"},
    {"blocks"},
    {
        "checkpoint",
        "checks",
        "memory",
        "merge_cost",
        "qlora_merge",
        "scoring",
        "shelf",
        "stacked_adamw",
        "stacked_layers",
        "tasks",
        "train",
    },
    {"pretrain", "resume", "run", "stacked"},
    {"begin", "kept", "survival"},
    {"experiment", "step_times", "sweep"},
    {"anatomy", "bars", "cuts", "family", "grids", "trials"},
    {"real_model", "summary"},
    {"science"},
    {"colab", "plots", "public"},
    {"claims", "console", "doctor"},
    {"present"},
    {"widgets"},
    {"cli"},
]


def room_of(file: Path) -> str:
    """The module a file belongs to; everything in a folder is one module."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file: Path) -> set[str]:
    """The modules of lorakit that a file imports anywhere in it, also inside a function."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {path[1] if path[1:] else "__init__" for path in parts if path[0] == "lorakit"}


def test_imports_point_one_way():
    level = {name: depth for depth, room in enumerate(ROOMS) for name in room}
    files = [file for file in PACKAGE.rglob("*.py") if room_of(file) != "__init__"]
    assert {room_of(file) for file in files} == level.keys(), "a module and its room go together"
    edges = {(room_of(file), name) for file in files for name in imported(file)}
    # What is no module is lorakit/__init__.py, which knows the public page: above everything.
    wrong = {(a, b) for a, b in edges if a != b and level.get(b, len(ROOMS)) >= level[a]}
    assert not wrong, "(importing, imported)"


def test_beside_a_folder_of_its_name_as_a_clones_the_package_is_found(tmp_path):
    (tmp_path / "lorakit").mkdir()
    code = "import lorakit; print(lorakit.Run.__name__)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout == "Run\n"


def test_importing_lorakit_needs_no_notebook_and_no_other_library_for_models():
    heavy = {"matplotlib", "IPython", "ipywidgets", "transformers", "peft"}
    code = f"import sys, lorakit; lorakit.Run; print(*sorted({heavy} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []


def test_a_name_is_loaded_when_it_is_asked_for():
    code = """
import gc, sys, lorakit
print("torch" in sys.modules, "numpy" in sys.modules)
from lorakit.train import Training  # hangs the module lorakit.train into the package
print(type(lorakit.train).__name__, type(lorakit.model).__name__, lorakit.Training is Training)
from lorakit import presets, train
print(lorakit.PRESETS is presets.PRESETS, train is lorakit.train, gc.isenabled())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False"] * 2 + ["function", "module"] + ["True"] * 4
    with pytest.raises(AttributeError, match="lorakit has no 'trian'"):
        lorakit.trian  # noqa: B018


def test_functions_named_like_modules_stand_before_them():
    modules = {room_of(file) for file in PACKAGE.rglob("*.py")}
    assert {*lorakit.__all__} & modules == lorakit.SHADOWING
    assert all(callable(getattr(lorakit, name)) for name in lorakit.SHADOWING)
    assert {*lorakit.__all__} <= {*dir(lorakit)}


def test_the_public_names_are_there_once_each():
    names = lorakit.__all__  # in the order that ruff checks
    assert len(names) == len(set(names)) > 0
    assert [name for name in names if not hasattr(lorakit, name)] == []


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only git knows what belongs to the tree")
def test_a_clone_stays_small():
    # Files that are new and not ignored belong to it already.
    listing = ("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    git = ("git", "-c", "safe.directory=*", *listing)
    names = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    paths = [ROOT / name for name in names.split("\0") if name]
    sizes = {path: path.stat().st_size for path in paths if path.is_file()}
    assert [path for path, size in sizes.items() if size > 9_000_000] == []
    assert 0 < sum(sizes.values()) < 25_000_000


def test_no_module_outgrows_a_reader():
    lines = {file: len(file.read_text("utf-8").splitlines()) for file in PACKAGE.rglob("*.py")}
    assert {file.name: count for file, count in lines.items() if count > 250} == {}
