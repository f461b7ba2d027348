"""One file, one fingerprint: it stays with the model for as long as the weights are that file's."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lorakit.fingerprint import fingerprint, fingerprint_of
from lorakit.hf_folder import load_folder, save_folder
from lorakit.lora import LoRAConfig, freeze, inject, unfreeze
from lorakit.merging import merge, merge_and_unload, remove, twin, unmerge

CONFIG = LoRAConfig(rank=2)


def named(**tensors) -> str:
    return fingerprint(tensors.items())


def test_it_follows_names_shapes_dtypes_and_values_and_no_order():
    W, b = torch.arange(6.0).view(2, 3), torch.ones(2)
    found = {
        named(W=W, b=b),
        named(V=W, b=b),
        named(W=W.view(3, 2), b=b),
        named(W=W.int(), b=b),
        named(W=W, b=b.bfloat16()),
        named(W=W + 1, b=b),
        named(W=W),
    }
    assert len(found) == 7
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in found)
    assert named(b=b, W=W.clone()) == named(W=W, b=b)


@pytest.mark.parametrize("shape", [(), (1,), (32,), (0, 3)])
def test_a_tensor_of_any_size_has_one(shape):
    assert named(W=torch.ones(shape)) != named(W=torch.ones((*shape, 1)))


@pytest.mark.parametrize("shape", [(512, 64), (576, 1536), (1000, 1000), (4096, 11008)])
@pytest.mark.parametrize("half", ["upper", "lower", "left", "right"])
def test_a_change_of_either_half_is_seen(shape, half):
    W = torch.zeros(shape)
    rows, columns = shape[0] // 2, shape[1] // 2
    {"upper": W[:rows], "lower": W[rows:], "left": W[:, :columns], "right": W[:, columns:]}[
        half
    ].fill_(1)
    assert named(W=W) != named(W=torch.zeros(shape))


def test_short_tensors_are_looked_at_whole():
    for place in range(32):
        W = torch.zeros(32)
        W[place] = 1
        assert named(W=W) != named(W=torch.zeros(32))


@pytest.fixture
def folder(model, tokenizer, tmp_path) -> Path:
    return save_folder(model, tokenizer, tmp_path / "base")


@pytest.fixture
def loaded(folder):
    return load_folder(folder)[0]


def test_a_base_carries_that_of_its_file_and_a_model_from_no_file_none(loaded, model):
    assert fingerprint_of(loaded) == fingerprint(model.named_parameters())
    assert fingerprint_of(nn.Linear(2, 2)) is None


def test_it_is_taken_before_any_cast(folder, loaded):
    half, _ = load_folder(folder, dtype=torch.bfloat16)
    assert fingerprint_of(half) == fingerprint_of(loaded)
    assert fingerprint(half.named_parameters()) != fingerprint_of(loaded)


def test_two_bases_have_two(folder, loaded, model, tokenizer):
    model.model.norm.weight.data.mul_(2)
    save_folder(model, tokenizer, folder)
    assert fingerprint_of(load_folder(folder)[0]) != fingerprint_of(loaded)


def merge_and_back(model):
    inject(model, CONFIG)
    merge(model)
    unmerge(model)


KEPT = {
    "float64": lambda m: m.double(),
    "to": lambda m: m.to(torch.bfloat16),
    "copied": copy.deepcopy,
    "twin": twin,
    "frozen": freeze,
    "adapted": lambda m: inject(m, CONFIG),
    "taken off": lambda m: (inject(m, CONFIG), remove(m)),
    "merged": lambda m: (inject(m, CONFIG), merge(m)),
    "merged and back": merge_and_back,
    "evaluated": lambda m: m.eval(),
}


@pytest.mark.parametrize("act", KEPT.values(), ids=KEPT)
def test_it_outlives_what_leaves_the_files_weights_in_reach(loaded, act):
    before = fingerprint_of(loaded)
    after = act(loaded)
    assert fingerprint_of(loaded) == before is not None
    assert fingerprint_of(after if isinstance(after, nn.Module) else loaded) == before


def test_full_fine_tuning_ends_it(loaded):
    copied = copy.deepcopy(loaded)
    unfreeze(loaded)
    assert fingerprint_of(loaded) is None
    assert fingerprint_of(copied) is not None


def test_folding_an_adapter_in_ends_it(loaded, perturb):
    inject(loaded, CONFIG)
    perturb(loaded)
    merge_and_unload(loaded)
    assert fingerprint_of(loaded) is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_mapped_file_is_not_read_whole(tmp_path):
    file = tmp_path / "large"
    file.write_bytes(bytes(1 << 26))
    mapped = torch.from_file(str(file), size=1 << 24)
    fingerprint([("W", mapped)])
    smaps = Path("/proc/self/smaps").read_text().split(str(file))[1]
    resident = next(line for line in smaps.splitlines() if line.startswith("Rss:"))
    assert int(resident.split()[1]) < (1 << 16) / 5  # KiB: a few pages and their neighbours
