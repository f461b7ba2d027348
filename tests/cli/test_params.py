"""Parameters counted without weights."""

import json
from pathlib import Path

import pytest
from command_line import lorakit_

from lorakit.counts import count
from lorakit.lora import LoRAConfig
from lorakit.presets import PRESETS
from lorakit.run import disk_bytes


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_parameters_are_counted_for_every_preset(preset):
    shown = lorakit_("params", "--base", preset, "--rank", 4, "--targets", "q_proj,v_proj").stdout
    lora = LoRAConfig(rank=4, targets=("q_proj", "v_proj"))
    full, adapted = count(PRESETS[preset]), count(PRESETS[preset], lora)
    assert f" {full.total:,} " in shown
    assert f" {adapted.trainable:,} " in shown
    assert f" {adapted.percent:.3g}% " in shown


def test_parameters_as_json():
    told = json.loads(lorakit_("params", "--json").stdout)
    lora = count(PRESETS["smollm2-135m"], LoRAConfig())
    assert [fact["method"] for fact in told] == ["full", "lora, rank 8"]
    assert told[0]["trainable"] == told[0]["total"] == lora.total
    assert told[1]["trainable"] == lora.trainable
    assert told[1]["bytes"] == disk_bytes(PRESETS["smollm2-135m"], LoRAConfig())


def test_parameters_are_counted_without_the_weights(tiny_base):
    Path(tiny_base, "model.safetensors").unlink()
    told = json.loads(lorakit_("params", "--base", tiny_base, "--json").stdout)
    assert told[0]["bytes"] == 4 * told[0]["total"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--targets", "q_prj"], "'q_prj' matches no linear layer of the model; nearest: q_proj"),
        (["--base", "llama3"], "presets are mini, smollm2-135m"),
        (["--rank", "0"], "rank must be a whole number of at least 1, got 0"),
        (["--base", "[red]"], "'[red]' is no base"),
    ],
)
def test_what_cannot_be_counted_is_named(options, message):
    said = lorakit_("params", *options, code=1)
    assert message in said.stderr
    assert said.stderr.count("\n") == 1
    assert said.stdout == ""
