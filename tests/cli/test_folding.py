"""`lorakit merge`: a dry run tells all and writes nothing; an adapter of 4 bits has its place."""

import json
from pathlib import Path

import pytest
import torch
from command_line import lorakit_
from weights import assert_same_weights, weights

import lorakit
from lorakit.adapters import load_adapter, save_adapter
from lorakit.checkpoint import load_base
from lorakit.lora import LoRAConfig, inject
from lorakit.merge_cost import merge_cost, share
from lorakit.merging import merge_and_unload
from lorakit.qlora import dequantize_, quantize_
from lorakit.qlora_merge import ALL_PLACES, merge_errors

FORM = {"block": 16, "codebook": "fp4", "double": False}  # nothing that is so by default


@pytest.fixture
def over(tiny_base, tmp_path, perturb):
    """The folder of an adapter over the tiny base, in 4 bits of a form or plain."""

    def save(form=None, size=0.3) -> Path:
        model, _ = load_base(tiny_base)
        if form is not None:
            quantize_(model, **form)
        inject(model, LoRAConfig(rank=2))
        perturb(model, size)
        return save_adapter(model, tmp_path / "adapter")

    return save


def merging(base, adapter, *options, code=0):
    given = ["--base", base, "--adapter", adapter, "--out", "merged", *options]
    return lorakit_("merge", *given, code=code, columns=200)


# A dry run


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dry_run_tells_each_layers_cost_and_writes_nothing(tiny_base, over, dtype):
    adapter = over()
    before = sorted(Path().rglob("*"))
    said = merging(tiny_base, adapter, "--dry-run", "--dtype", dtype)
    assert sorted(Path().rglob("*")) == before
    model, _ = load_base(tiny_base, dtype=getattr(torch, dtype))
    load_adapter(model, adapter)
    cost = merge_cost(model)
    rows = [line.split() for line in said.stdout.splitlines()]
    for layer in cost.layers:
        told = [f"{layer.size:.2g}", share(layer.loss), share(layer.unchanged)]
        assert [layer.layer, *told] in rows
    assert f"{share(cost.loss)} (median of the layers)" in said.stdout


def test_a_dry_run_tells_where_and_how_much_the_merge_would_write(tiny_base, over):
    adapter = over()
    dry = merging(tiny_base, adapter, "--dry-run", "--json")
    told = json.loads(dry.stdout)
    assert not Path("merged").exists()
    assert dry.stderr.endswith("to merged; nothing is written\n")
    done = json.loads(merging(tiny_base, adapter, "--json").stdout)
    size = Path("merged", "model.safetensors").stat().st_size
    assert 0.9 * size < told.pop("bytes") < size  # its header is in none of the tensors
    assert told.pop("written") is False
    assert told == {name: value for name, value in done.items() if name != "bytes"}


def test_a_merge_needs_a_folder_and_a_dry_run_none(tiny_base, over):
    given = ["merge", "--base", tiny_base, "--adapter", over()]
    refused = lorakit_(*given, code=1)
    assert refused.stderr.startswith("error: a merge needs --out, a new folder, or --dry-run")
    said = lorakit_(*given, "--dry-run", "--json")
    assert json.loads(said.stdout)["folder"] is None
    assert said.stderr.endswith("and a tokenizer; nothing is written\n")


def test_a_dry_run_refuses_what_the_merge_would(tiny_base, over):
    adapter = over(size=1e6)
    refused = merging(tiny_base, adapter, "--dtype", "float16", "--dry-run", code=1)
    assert "would hold a number beyond 65504, where float16 ends" in refused.stderr
    Path("merged").mkdir()
    refused = merging(tiny_base, adapter, "--dry-run", code=1)
    assert refused.stderr == "error: merged is there already: name a new folder\n"


# Trained over 4 bits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dequantised_is_the_model_that_was_trained(tiny_base, over, dtype):
    adapter = over(FORM)
    said = merging(tiny_base, adapter, "--dequantised", "--dtype", dtype)
    assert "note" not in said.stderr  # the adapter is over the weights that it knows
    expected, _ = load_base(tiny_base)
    quantize_(expected, **FORM)
    expected.to(getattr(torch, dtype))
    load_adapter(expected, adapter)
    dequantize_(expected)
    merge_and_unload(expected)
    merged, _ = load_base("merged", dtype=getattr(torch, dtype))
    assert_same_weights(merged, weights(expected))


def test_each_place_is_told_with_its_errors(tiny_base, over):
    adapter = over(FORM)
    said = merging(tiny_base, adapter, "--dequantised", "--dry-run", "--json")
    model, tokenizer = load_base(tiny_base)
    quantize_(model, **FORM)
    load_adapter(model, adapter)
    tokens = torch.tensor([tokenizer.encode(tokenizer.prompt("What does a merge change?"))])
    errors = merge_errors(model, load_base(tiny_base)[0], tokens, ALL_PLACES)
    told = json.loads(said.stdout)["places"]
    assert told == {p: {"logits": e.logits, "delta": e.delta} for p, e in errors.items()}
    assert list(told) == list(ALL_PLACES)
    assert told["dequantised"]["logits"] < 1e-5 < told["original"]["logits"]
    shown = merging(tiny_base, adapter, "--dequantised", "--dry-run").stdout
    for place, error in errors.items():
        [row] = [line for line in shown.splitlines() if line.strip().startswith(f"{place}  ")]
        assert row.split()[-2:] == [share(error.delta), share(error.logits)]


def test_an_adapter_over_plain_weights_is_not_dequantised(tiny_base, over):
    adapter = over()
    refused = merging(tiny_base, adapter, "--dequantised", code=1)
    assert "does not tell that it was trained over a base in 4 bits: leave out" in refused.stderr
    (adapter / "adapter_model.safetensors").unlink()
    refused = merging(tiny_base, adapter, "--dequantised", code=1)
    assert "is no whole adapter: it has no adapter_model.safetensors" in refused.stderr
    assert not Path("merged").exists()


def test_a_base_that_knows_few_words_takes_an_adapter_in_too():
    adapter = Path(lorakit.__file__).parents[1] / "data" / "adapters" / "record-0"
    merging("mini", adapter)
    merged, _ = load_base("merged")
    expected, _ = load_base("mini")
    load_adapter(expected, adapter)
    merge_and_unload(expected)
    assert_same_weights(merged, weights(expected))
