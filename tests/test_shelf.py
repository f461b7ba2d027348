"""Many adapters, one base: each answers as it would alone, and leaves no trace when it goes."""

import copy
import gc
import math
import weakref

import pytest
import torch
from adapter_files import contents, edit_config, refused
from shelves import CONFIGS, filled, shelf_of
from torch import nn
from weights import assert_same_weights, weights

from lorakit.adapters import save_adapter
from lorakit.lora import LoRAConfig, inject, lora_layers, trainable
from lorakit.merging import disabled, merge, merge_and_unload, remove, unmerge
from lorakit.qlora import quantize_
from lorakit.shelf import Shelf

NAMES = [*CONFIGS]


@pytest.fixture
def shelf_and_alone(model, tmp_path):
    return shelf_of(model, tmp_path)


@pytest.fixture
def shelf(shelf_and_alone) -> Shelf:
    return shelf_and_alone[0]


@pytest.fixture
def alone(shelf_and_alone) -> dict:
    return shelf_and_alone[1]


# Switching


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_on_the_shelf_answers_as_it_does_alone(shelf, alone, tokens, name):
    base = shelf.model(tokens)
    shelf.switch(name)
    assert torch.equal(shelf.model(tokens), alone[name](tokens))
    assert (shelf.model(tokens) - base).abs().max() > 0.1
    assert shelf.active == name


def test_switching_gives_earlier_answers_back_bit_for_bit(shelf, tokens):
    first = {}
    for name in [*NAMES, *reversed(NAMES), NAMES[1], NAMES[0]]:
        shelf.switch(name)
        answers = shelf.model(tokens)
        assert torch.equal(answers, first.setdefault(name, answers))
    assert len({answers.sum().item() for answers in first.values()}) == len(NAMES)


def test_with_none_active_the_model_is_its_base_to_the_module(model, tokens, tmp_path):
    before, answers, modules = weights(model), model(tokens), dict(model.named_modules())
    shelf, _ = shelf_of(model, tmp_path)
    for name in NAMES:
        shelf.switch(name)
    shelf.disable()
    assert dict(model.named_modules()) == modules
    assert_same_weights(model, before)
    assert torch.equal(model(tokens), answers)
    assert shelf.active is None


def test_layers_outside_an_adapter_are_the_bases_own(shelf):
    base = dict(shelf.model.named_modules())
    shelf.switch("wide")
    shelf.switch("narrow")
    paths = {path for path, _ in lora_layers(shelf.model)}
    assert len(paths) == 4
    assert {path.rpartition(".")[2] for path in paths} == {"q_proj", "v_proj"}
    layer = "model.layers.0.mlp.up_proj"
    assert shelf.model.get_submodule(layer) is base[layer]


def test_no_adapter_has_a_base_of_its_own(shelf):
    for name in NAMES:
        for path, layer in shelf.layers(name).items():
            assert layer.base is shelf.layers("wide")[path].base


def test_what_trains_and_what_does_not_stays_so(shelf):
    for layer in shelf.layers("narrow").values():
        layer.A.requires_grad_(False)
    everything = {
        (name, path, part): p
        for name in NAMES
        for path, layer in shelf.layers(name).items()
        for part, p in layer.named_parameters()
    }
    before = {key: (p, p.requires_grad) for key, p in everything.items()}
    for name in [*NAMES, NAMES[0]]:
        shelf.switch(name)
    shelf.disable()
    assert all(p is everything[key] and p.requires_grad == t for key, (p, t) in before.items())
    assert {t for _, t in before.values()} == {True, False}
    assert not trainable(shelf.model)
    shelf.switch("narrow")
    assert len(trainable(shelf.model)) == 4


def train(model, seed: int, optimizer) -> None:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(61, (3, 8), generator=draw)
    optimizer.zero_grad()
    model(x).float().log_softmax(-1)[..., 5].mean().neg().backward()
    optimizer.step()


def test_adapters_trained_in_turns_end_as_each_trained_alone(shelf, alone):
    names = ["narrow", "wide"]
    optimizers = {}
    for name in names:
        shelf.switch(name)
        optimizers[name] = torch.optim.AdamW(trainable(shelf.model), lr=0.01)
    for step in range(4):
        for name in names:
            shelf.switch(name)
            train(shelf.model, step, optimizers[name])
    for name in names:
        optimizer = torch.optim.AdamW(trainable(alone[name]), lr=0.01)
        for step in range(4):
            train(alone[name], step, optimizer)
        for path, layer in lora_layers(alone[name]):
            assert torch.equal(shelf.layers(name)[path].B, layer.B)
            assert torch.equal(shelf.layers(name)[path].A, layer.A)


def test_a_switched_in_adapter_is_in_the_models_mode(model, tokens, tmp_path):
    config = LoRAConfig(rank=2, targets=("q_proj",), dropout=0.5)
    shelf, _ = shelf_of(model, tmp_path, {"dropped": config})
    model.eval()
    shelf.switch("dropped")
    assert torch.equal(model(tokens), model(tokens))
    shelf.disable()
    model.train()
    shelf.switch("dropped")
    assert not torch.equal(model(tokens), model(tokens))
    shelf.disable()
    model.eval()
    shelf.switch("dropped")
    assert torch.equal(model(tokens), model(tokens))


def test_what_works_on_a_models_adapters_works_on_the_active_one(shelf, alone, tokens, tmp_path):
    base = shelf.model(tokens)
    shelf.switch("uneven")
    folder = save_adapter(shelf.model, tmp_path / "again")
    assert contents(folder) == contents(tmp_path / "uneven")
    merge(shelf.model)
    torch.testing.assert_close(shelf.model(tokens), alone["uneven"](tokens))
    unmerge(shelf.model)
    with disabled(shelf.model):
        assert torch.equal(shelf.model(tokens), base)
    assert torch.equal(shelf.model(tokens), alone["uneven"](tokens))


# Blocks


def test_within_a_block_another_is_active_and_after_it_the_one_before(shelf):
    shelf.switch("wide")
    with shelf.using("narrow"):
        assert shelf.active == "narrow"
        with shelf.using(None):
            assert shelf.active is None
        assert shelf.active == "narrow"
    with pytest.raises(RuntimeError), shelf.using("uneven"):
        raise RuntimeError
    assert shelf.active == "wide"


def test_a_block_ends_with_none_if_what_was_active_before_is_deleted(shelf, tokens):
    base = shelf.model(tokens)
    shelf.switch("wide")
    with shelf.using("narrow"):
        shelf.delete("wide")
        assert shelf.active == "narrow"
    assert shelf.active is None
    assert torch.equal(shelf.model(tokens), base)
    with pytest.raises(RuntimeError, match="its own"), shelf.using("narrow"):
        shelf.delete("narrow")
        raise RuntimeError("its own")
    assert shelf.active is None


# Coming and going


def test_adding_changes_nothing_in_the_model(shelf, alone, tokens, tmp_path):
    shelf.switch("wide")
    before, modules = shelf.model(tokens), dict(shelf.model.named_modules())
    shelf.add("more", tmp_path / "uneven")
    assert dict(shelf.model.named_modules()) == modules
    assert torch.equal(shelf.model(tokens), before)
    assert (shelf.names, shelf.active) == ([*NAMES, "more"], "wide")
    shelf.switch("more")
    assert torch.equal(shelf.model(tokens), alone["uneven"](tokens))


def test_a_file_that_does_not_fit_is_refused_and_nothing_changes(shelf, tmp_path):
    shelf.switch("wide")
    edit_config(tmp_path / "narrow", r=3)
    with refused(shelf.model, r"this model and r=3 need"):
        shelf.add("broken", tmp_path / "narrow")
    assert (shelf.names, shelf.active) == (NAMES, "wide")
    shelf.add("whole", tmp_path / "uneven")


def test_an_adapter_of_another_base_is_refused(shelf, tmp_path):
    other = copy.deepcopy(shelf.model)
    object.__setattr__(other, "fingerprint", "f" * 16)
    folder = save_adapter(filled(other, CONFIGS["narrow"], 9), tmp_path / "other")
    with refused(shelf.model, "another base"):
        shelf.add("other", folder)
    shelf.add("other", folder, allow_other_base=True)


def test_a_name_that_is_taken_or_empty_is_refused(shelf, tmp_path):
    with refused(shelf.model, r"'wide' is on the shelf already: delete\('wide'\) makes room"):
        shelf.add("wide", tmp_path / "narrow")
    with refused(shelf.model, "name is empty"):
        shelf.add("", tmp_path / "narrow")
    assert (
        shelf.layers("wide").keys()
        == dict(lora_layers(filled(shelf.model, CONFIGS["wide"], 0))).keys()
    )


@pytest.mark.parametrize("verb", ["switch", "delete", "layers"])
def test_an_unknown_name_is_refused_with_the_nearest(shelf, verb):
    with refused(shelf.model, "no adapter 'narow' is on the shelf; nearest: narrow"):
        getattr(shelf, verb)("narow")
    with refused(shelf.model, "'xyz' is on the shelf; there are: narrow, wide, uneven"):
        getattr(shelf, verb)("xyz")


def test_what_is_deleted_is_gone_and_so_are_its_bytes(shelf, tokens):
    base = shelf.model(tokens)
    shelf.switch("wide")
    held = weakref.ref(next(iter(shelf.layers("wide").values())).A)
    shelf.delete("wide")
    gc.collect()
    assert held() is None
    assert torch.equal(shelf.model(tokens), base)
    assert (shelf.names, shelf.active) == (["narrow", "uneven"], None)
    shelf.switch("narrow")
    shelf.delete("uneven")
    assert shelf.active == "narrow"


def test_adapters_that_the_model_carries_are_taken_and_stay_active(model, tokens, perturb):
    inject(model, CONFIGS["narrow"])
    perturb(model)
    answers = model(tokens)
    shelf = Shelf(model)
    with pytest.raises(ValueError, match=r"4 adapters that are not on the shelf .*take\(name\)"):
        shelf.disable()
    shelf.take("mine")
    assert shelf.active == "mine"
    shelf.disable()
    assert lora_layers(model) == []
    shelf.switch("mine")
    assert torch.equal(model(tokens), answers)


def test_adapters_injected_beside_the_shelf_are_taken_too(shelf, perturb, tokens):
    inject(shelf.model, LoRAConfig(rank=1, targets=("k_proj",)))  # no layer of "narrow"
    with pytest.raises(ValueError, match=r"2 adapters that are not on the shelf"):
        shelf.switch("narrow")
    perturb(shelf.model)
    answers = shelf.model(tokens)
    shelf.take("new")
    shelf.switch("narrow")
    shelf.switch("new")
    assert torch.equal(shelf.model(tokens), answers)


def test_what_is_not_there_or_taken_already_is_not_taken(shelf):
    with pytest.raises(ValueError, match="nothing to take: no adapters"):
        shelf.take("new")
    shelf.switch("wide")
    with pytest.raises(ValueError, match="these adapters are 'wide' on the shelf"):
        shelf.take("new")
    assert shelf.names == NAMES


def test_a_layer_over_another_base_cannot_be_put_on_the_shelf(shelf, model):
    other = filled(copy.deepcopy(model), CONFIGS["narrow"], 3)
    with refused(shelf.model, "q_proj of 'other' is over another base than the shelf's"):
        shelf.put("other", dict(lora_layers(other)))
    shelf.put("twice", shelf.layers("narrow"))
    assert shelf.layers("twice") == shelf.layers("narrow")


def test_a_shelf_freezes_the_base_and_no_adapter(model, perturb):
    model.requires_grad_(True)
    inject(model, CONFIGS["narrow"])
    model.model.norm.weight.requires_grad_(True)
    shelf = Shelf(model)
    shelf.take("mine")
    assert len(trainable(model)) == 8
    assert all(p.ndim == 2 for p in trainable(model))


# Merged, moved, exchanged


@pytest.mark.parametrize(
    "act",
    [
        lambda shelf, folder: shelf.switch("narrow"),
        lambda shelf, folder: shelf.disable(),
        lambda shelf, folder: shelf.delete("wide"),
        lambda shelf, folder: shelf.add("new", folder / "narrow"),
        lambda shelf, folder: shelf.put("new", shelf.layers("narrow")),
        lambda shelf, folder: shelf.rows(["narrow"]).__enter__(),
        lambda shelf, folder: shelf.using("narrow").__enter__(),
        lambda shelf, folder: shelf.follow(),
    ],
    ids=["switch", "disable", "delete", "add", "put", "rows", "using", "follow"],
)
def test_while_the_active_one_is_merged_nothing_moves(shelf, tokens, tmp_path, act):
    shelf.switch("wide")
    merge(shelf.model)
    with refused(shelf.model, r"cannot \w+: 14 layers are merged .*unmerge\(model\)"):
        act(shelf, tmp_path)
    assert (shelf.names, shelf.active) == (NAMES, "wide")
    unmerge(shelf.model)
    act(shelf, tmp_path)


def test_merged_adapters_are_not_taken_nor_shelved(model, perturb):
    inject(model, CONFIGS["narrow"])
    perturb(model)
    shelf = Shelf(model)
    merge(model)
    with pytest.raises(ValueError, match="cannot take: 4 layers are merged"):
        shelf.take("mine")
    with pytest.raises(ValueError, match="are merged"):
        Shelf(model)


def test_after_a_merge_for_good_the_shelf_is_of_another_base(shelf):
    shelf.switch("wide")
    merge_and_unload(shelf.model)
    with refused(shelf.model, r"cannot switch: the weight of .* after merge_and_unload\(model\)"):
        shelf.switch("narrow")


def test_adapters_that_were_removed_can_be_switched_to_again(shelf, alone, tokens):
    shelf.switch("wide")
    remove(shelf.model)
    assert shelf.active is None
    shelf.switch("wide")
    assert torch.equal(shelf.model(tokens), alone["wide"](tokens))


def test_a_model_moves_first_and_then_its_shelf(shelf, alone, tokens):
    shelf.switch("wide")
    shelf.model.double()  # a move too, and one that keeps the values
    with pytest.raises(ValueError, match=r"shelf\.follow\(\) moves them too"):
        shelf.switch("narrow")
    shelf.follow()
    shelf.switch("narrow")
    torch.testing.assert_close(shelf.model(tokens).float(), alone["narrow"](tokens))


def test_every_adapter_follows_to_another_device(shelf):
    shelf.model.to("meta")
    shelf.follow()
    layers = [layer for name in NAMES for layer in shelf.layers(name).values()]
    assert {p.device.type for layer in layers for p in (layer.A, layer.B)} == {"meta"}
    for name in NAMES:
        shelf.switch(name)
        assert shelf.model(torch.zeros(1, 3, dtype=torch.long, device="meta")).shape == (1, 3, 61)


def test_after_a_move_nothing_of_the_base_stays_where_it_was(model):
    quantize_(model, block=32)
    shelf = Shelf(model)
    held = weakref.ref(model.model.layers[0].mlp.up_proj.packed)
    model.to("meta")
    shelf.follow()
    gc.collect()
    assert held() is None


def test_a_base_in_4_bits_has_a_shelf_too(model, tokens, tmp_path):
    quantize_(model, block=32)
    shelf, alone = shelf_of(model, tmp_path)
    for name in [*NAMES, NAMES[0]]:
        shelf.switch(name)
        assert torch.equal(shelf.model(tokens), alone[name](tokens))
    with shelf.rows(["wide", None]):
        torch.testing.assert_close(shelf.model(tokens)[:1], alone["wide"](tokens)[:1])


# Status


def test_the_status_has_a_row_an_adapter_and_ranges_where_layers_differ(shelf):
    shelf.switch("wide")
    for layer in shelf.layers("narrow").values():
        layer.requires_grad_(False)
    rows = {row.adapter: row for row in shelf.status().rows}
    assert [*rows] == NAMES
    assert [row.active for row in rows.values()] == [False, True, False]
    assert [row.trainable for row in rows.values()] == [False, True, True]
    assert not any(row.merged for row in rows.values())
    assert rows["narrow"].rank == (2, 2) and rows["narrow"].scale == (2.0, 2.0)
    assert rows["uneven"].rank == (1, 3)
    assert rows["uneven"].scale == (6 / math.sqrt(3), 6.0)
    # Two layers of the model: q is (32, 32), v (16, 32); A and B in float32.
    assert rows["narrow"].bytes == 4 * 2 * 2 * ((32 + 32) + (16 + 32))
    merge(shelf.model)
    assert [row.merged for row in shelf.status().rows] == [False, True, False]


def test_the_status_reads_as_a_table(shelf):
    shelf.switch("uneven")
    lines = str(shelf.status()).splitlines()
    assert lines[0].split() == [
        "adapter",
        "active",
        "trainable",
        "merged",
        "rank",
        "scale",
        "bytes",
    ]
    assert lines[1].split() == ["narrow", "no", "yes", "no", "2", "2", "1,792"]
    assert lines[3].split()[:8] == ["uneven", "yes", "yes", "no", "1", "to", "3", "3.4641"]
    assert len({len(line) for line in lines}) == 1
    assert str(Shelf(nn.Sequential(nn.Linear(2, 2))).status()).startswith("the shelf is empty")
