"""Files that others write."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import lorakit as lk
from lorakit.checks import check_save_load


def save(layer, folder):
    """All in one file: rank and alpha in its metadata."""
    told = {"rank": str(layer.config.rank), "alpha": str(layer.config.alpha)}
    tensors = {"A": layer.A.data, "B": layer.B.data}
    save_file(tensors, folder / "all.safetensors", metadata=told)


def load(base, folder):
    tensors = load_file(folder / "all.safetensors")
    layer = lk.LoRALinear(base, lk.LoRAConfig(rank=2, alpha=6.0))
    layer.A.data, layer.B.data = tensors["A"], tensors["B"]
    return layer


def save_as_json(layer, folder):
    told = {"A": layer.A.tolist(), "B": layer.B.tolist(), "alpha": layer.config.alpha}
    (folder / "all.json").write_text(json.dumps(told))


def load_as_json(base, folder):
    told = json.loads((folder / "all.json").read_text())
    layer = lk.LoRALinear(base, lk.LoRAConfig(rank=len(told["A"]), alpha=told["alpha"]))
    layer.A.data, layer.B.data = torch.tensor(told["A"]), torch.tensor(told["B"])
    return layer


@pytest.mark.parametrize("pair", [(save, load), (save_as_json, load_as_json)])
def test_other_files_are_right(pair):
    check_save_load(*pair, strict=True)


def pickled(layer, folder):
    torch.save([layer.A.data, layer.B.data], folder / "values")


def pickled_in_the_old_way(layer, folder):
    values = [layer.A.data, layer.B.data]
    torch.save(values, folder / "values", _use_new_zipfile_serialization=False)


def unpickled(base, folder):
    layer = lk.LoRALinear(base, lk.LoRAConfig(rank=2, alpha=6.0))
    layer.A.data, layer.B.data = torch.load(folder / "values")
    return layer


def merged(base, folder):
    layer = load(base, folder)
    base.weight.data += layer.delta()
    return layer


def in_a_folder_of_the_page(layer, folder):
    pass


@pytest.mark.parametrize(
    ("pair", "name"),
    [
        ((pickled, unpickled), "a pickle"),
        ((pickled_in_the_old_way, unpickled), "a pickle"),
        ((save, merged), None),
        ((in_a_folder_of_the_page, load), None),
        ((save, lambda base, folder: lk.LoRALinear(base, lk.LoRAConfig())), "B did not come back"),
        ((save, lambda base, folder: load(base, folder).half()), None),
    ],
)
def test_what_others_do_wrong(pair, name):
    verdict = check_save_load.judge(*pair)
    assert (verdict.name, verdict.kind == "mistake") == (name, name is not None)
