"""What training changed: counted and measured tensor by tensor, exactly."""

import pytest
import torch
from torch import nn

from lorakit.changes import Change, changes, snapshot
from lorakit.lora import LoRAConfig, inject
from lorakit.merging import remove


def test_nothing_changed_is_zero_of_every_tensor(model):
    found = changes(model, snapshot(model))
    assert [change.name for change in found] == [name for name, _ in model.named_parameters()]
    assert {(change.changed, change.size) for change in found} == {(0, 0.0)}
    assert sum(change.numbers for change in found) == sum(p.numel() for p in model.parameters())


def test_a_change_is_counted_and_its_size_is_the_root_mean_square():
    layer = nn.Linear(4, 2)
    before = snapshot(layer)
    with torch.no_grad():
        layer.weight.zero_()
        before["weight"].zero_()
        layer.weight[0, 0], layer.weight[1, 2] = 3.0, -4.0
    assert changes(layer, before) == [
        Change(name="weight", numbers=8, changed=2, size=(25 / 8) ** 0.5),
        Change(name="bias", numbers=2, changed=0, size=0.0),
    ]


def test_the_smallest_change_there_is_counts(model):
    before = snapshot(model)
    weight = model.model.norm.weight
    with torch.no_grad():
        weight[3] = torch.nextafter(weight[3], torch.tensor(9.0))
    assert [c.name for c in changes(model, before) if c.changed] == ["model.norm.weight"]
    assert [c.changed for c in changes(model, before) if c.changed] == [1]


def test_a_small_change_of_a_half_precision_weight_is_measured_in_full():
    layer = nn.Linear(2, 1, bias=False).bfloat16()
    with torch.no_grad():
        layer.weight.fill_(1.0)
        before = snapshot(layer)
        layer.weight[0, 0] += 2**-7
    assert changes(layer, before)[0].size == pytest.approx(2**-7 / 2**0.5)


def test_a_snapshot_does_not_change_with_the_model(model):
    before = snapshot(model)
    kept = {name: tensor.clone() for name, tensor in before.items()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)
    assert all(torch.equal(before[name], kept[name]) for name in kept)
    assert not any(tensor.requires_grad for tensor in before.values())
    assert all(change.changed == change.numbers for change in changes(model, before))


def test_adapters_count_as_tensors_of_their_own(model, perturb):
    inject(model, LoRAConfig(rank=2))
    before = snapshot(model)
    perturb(model)
    moved = {c.name.rpartition(".")[2] for c in changes(model, before) if c.changed}
    assert moved == {"B"}


@pytest.mark.parametrize("order", ["injected since", "removed since"])
def test_a_model_of_other_parameters_is_refused_and_told_why(model, order):
    config = LoRAConfig(rank=2)
    if order == "removed since":
        inject(model, config)
    before = snapshot(model)
    if order == "removed since":
        remove(model)
    else:
        inject(model, config)
    with pytest.raises(
        ValueError, match=r"\d+ parameters are not in both \(first: .*take the snap"
    ):
        changes(model, before)
