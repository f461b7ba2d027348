"""An adapter that nobody can tie to its base: a line says so, and the command goes on."""

import warnings
from pathlib import Path

import pytest
from command_line import lorakit_

from lorakit.adapters import save_adapter
from lorakit.checkpoint import load_base
from lorakit.console import plain_errors
from lorakit.fingerprint import remember_file
from lorakit.lora import LoRAConfig, inject
from lorakit.qlora import quantize_


@pytest.fixture
def adapter(tiny_base, tmp_path, perturb):
    """Saves an adapter of the tiny base that names this file."""

    def save(file: str | None) -> Path:
        model, _ = load_base(tiny_base)
        remember_file(model, file)
        inject(model, LoRAConfig(rank=2))
        perturb(model)
        return save_adapter(model, tmp_path / "adapter")

    return save


@pytest.mark.parametrize("command", ["generate", "merge"])
def test_an_adapter_of_an_unknown_base_is_used_with_a_note_in_one_line(adapter, tiny_base, command):
    folder = adapter(None)
    options = ["--adapter", folder, "--base", tiny_base]
    said = lorakit_(command, *(["--out", "merged"] if command == "merge" else ["a?"]), *options)
    note = f"note: {folder}: nobody can tell whether it was trained on this base: the adapter does"
    assert [line for line in said.stderr.splitlines() if line.startswith(note)] != []
    assert ".py" not in said.stderr
    assert "UnknownBase" not in said.output
    assert "note" not in said.stdout


def test_the_note_is_said_each_time(adapter, tiny_base):
    folder = adapter(None)
    for _ in range(2):
        said = lorakit_("generate", "a?", "--adapter", folder, "--base", tiny_base)
        assert said.stderr.count("note: ") == 1


def test_an_adapter_of_its_own_base_needs_no_note(tiny_base, tmp_path, perturb):
    model, _ = load_base(tiny_base)
    inject(model, LoRAConfig(rank=2))
    perturb(model)
    folder = save_adapter(model, tmp_path / "adapter")
    said = lorakit_("generate", "a?", "--adapter", folder, "--base", tiny_base)
    assert "note" not in said.output


@pytest.mark.parametrize("command", ["generate", "merge"])
def test_an_adapter_over_4_bits_is_used_with_a_note_in_one_line(
    tiny_base, tmp_path, perturb, command
):
    model, _ = load_base(tiny_base)
    quantize_(model, block=16)
    inject(model, LoRAConfig(rank=2))
    perturb(model)
    folder = save_adapter(model, tmp_path / "adapter")
    options = ["--adapter", folder, "--base", tiny_base]
    said = lorakit_(command, *(["--out", "merged"] if command == "merge" else ["a?"]), *options)
    note = f"note: {folder} was trained over a base in 4 bits (nf4/16/double): over the plain"
    assert [line for line in said.stderr.splitlines() if line.startswith(note)] != []
    assert ".py" not in said.stderr
    assert "OtherPrecision" not in said.output


def test_an_adapter_of_another_base_is_an_error_that_names_both(adapter, tiny_base):
    folder = adapter("f" * 16)
    said = lorakit_("generate", "a?", "--adapter", folder, "--base", tiny_base, code=1)
    assert f"error: {folder} was trained on another base (fingerprint {'f' * 16}, " in said.stderr


def test_other_warnings_stay_what_they_are():
    with pytest.warns(UserWarning, match="of another kind"):
        plain_errors(lambda: warnings.warn("of another kind", UserWarning, stacklevel=1))()
