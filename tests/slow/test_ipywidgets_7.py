"""With ipywidgets 7.7.1, as Google Colab brings it: explorables are built, shown and moved.

It comes from pip's index into a folder of its own. Where there is no index, make the folder
elsewhere, with the command below, and name it:

    pip install --no-deps --target FOLDER ipywidgets==7.7.1 ipython-genutils==0.2.0
    LORAKIT_IPYWIDGETS_7=FOLDER make slow

Without one and without the other these tests are skipped.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSION = "7.7.1"
INSTALL = ("--no-deps", "--target", "FOLDER", f"ipywidgets=={VERSION}", "ipython-genutils==0.2.0")
# A keyword that a widget does not know is passed over with this warning, and does nothing.
UNKNOWN = "error:Passing unrecognized arguments:DeprecationWarning"
TESTS = f"""
import sys, ipywidgets, pytest
assert ipywidgets.__version__ == "{VERSION}", ipywidgets.__file__
sys.exit(pytest.main(["-p", "no:cacheprovider", "-W", "{UNKNOWN}", *sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Where that ipywidgets is, and nothing else."""
    if named := os.environ.get("LORAKIT_IPYWIDGETS_7"):
        return named
    target = str(tmp_path_factory.mktemp("ipywidgets_7"))
    words = [target if word == "FOLDER" else word for word in INSTALL]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(
            f"pip cannot get ipywidgets {VERSION}: where it can, pip install {' '.join(INSTALL)}, "
            f"and name that folder in LORAKIT_IPYWIDGETS_7; pip said: {done.stderr.strip()[-300:]}"
        )
    return target


@pytest.mark.parametrize("name", ["labels", "explorable", "controls", "predict", "keeping", "quiz"])
def test_what_is_asked_of_explorables_holds_with_it(folder, name):
    command = [sys.executable, "-c", TESTS, f"tests/widgets/test_{name}.py"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": folder}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
