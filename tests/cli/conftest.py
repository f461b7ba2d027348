"""Where commands run."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """Commands run in a folder of their own, on the CPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LORAKIT_DEVICE", "cpu")
    return tmp_path
