"""The overlap explorable: phi is that of the factors' own SVD, beside chance at the same scale."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch

from lorakit.experiment import finetune
from lorakit.lora import lora_layers
from lorakit.subspaces import random_overlaps
from lorakit.widgets.overlap import INPUT, OUTPUT, OverlapExplorer, describe

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"


@pytest.fixture
def explorer(lora, other_lora) -> OverlapExplorer:
    return OverlapExplorer(lora, other_lora)


def by_hand(first, second, layer: str, side: str) -> list[list[float]]:
    """Equation 4 with the directions of the dense B A, by PyTorch's own SVD."""
    found = []
    for result in (first, second):
        B_A = dict(lora_layers(result.model))[layer].delta().double()
        U, _, Vh = torch.linalg.svd(B_A, full_matrices=False)
        found.append((Vh.T if side == INPUT else U)[:, : result.run.rank])
    U1, U2 = found
    return [
        [
            ((U1[:, :i].T @ U2[:, :j]).norm() ** 2 / min(i, j)).item()
            for j in range(1, U2.shape[1] + 1)
        ]
        for i in range(1, U1.shape[1] + 1)
    ]


@pytest.mark.parametrize("side", [INPUT, OUTPUT])
@pytest.mark.parametrize("layer", [Q, DOWN])
def test_map_and_words_are_those_of_the_layer_and_the_side(explorer, lora, other_lora, layer, side):
    explorer.layer.value, explorer.side.value = layer, side
    expected = by_hand(lora, other_lora, layer, side)
    found, _ = explorer.overlaps
    assert found.shape == (4, 2)
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=1e-4)
    (image,) = explorer.found.axes.images
    assert image.get_array().tolist() == found.tolist()
    name = layer.removeprefix("model.layers.")
    words = f"phi(1, 1) = {expected[0][0]:.2f}, phi(4, 2) = {expected[-1][-1]:.2f}"
    assert explorer.found.text == f"{name}, {side}: {words}"


@pytest.mark.parametrize(("side", "d"), [(INPUT, 48), (OUTPUT, 32)])
def test_beside_it_are_random_directions_of_as_many_dimensions(explorer, side, d):
    explorer.layer.value, explorer.side.value = DOWN, side
    expected = random_overlaps(d, 4, 2)
    (image,) = explorer.random.axes.images
    assert image.get_array().tolist() == expected.tolist()
    assert explorer.random.text == (
        f"random directions of {d} dimensions: phi(1, 1) = {expected[0, 0].item():.2f}, "
        f"phi(4, 2) = {expected[-1, -1].item():.2f}"
    )


def test_both_maps_have_one_scale(explorer):
    scales = [picture.axes.images[0].get_clim() for picture in explorer.pictures]
    assert scales == [(0, 1), (0, 1)]


def test_a_run_overlaps_itself_wholly(lora):
    explorer = OverlapExplorer(lora, lora)
    assert "phi(1, 1) = 1.00, phi(4, 4) = 1.00" in explorer.found.text
    assert "1.00" not in explorer.random.text


def test_the_axes_name_the_runs(explorer):
    axes = explorer.found.axes
    assert axes.get_ylabel() == "first i of rank 4, seed 0"
    assert axes.get_xlabel() == "first j of rank 2, seed 1"
    assert explorer.random.axes.get_xlabel() == "first j of 2 random ones"


def test_only_layers_that_both_adapt_can_be_chosen(run, lora):
    explorer = OverlapExplorer(lora, finetune(replace(run, targets=("q_proj", "v_proj"), steps=1)))
    assert dict(explorer.layer.options) == {
        "0.self_attn.q_proj": Q,
        "0.self_attn.v_proj": "model.layers.0.self_attn.v_proj",
    }


def test_runs_without_a_layer_in_common_are_refused(run):
    runs = [finetune(replace(run, targets=(name,), steps=1)) for name in ("q_proj", "v_proj")]
    with pytest.raises(ValueError, match=r"no layer has adapters in both .*q_proj.*v_proj"):
        OverlapExplorer(*runs)


@pytest.mark.parametrize("place", [0, 1])
def test_a_full_fine_tune_is_refused_on_either_side(lora, full, place):
    results = [lora, lora]
    results[place] = full
    with pytest.raises(ValueError, match="two LoRA runs, got a run of 'full'"):
        OverlapExplorer(*results)


def test_runs_of_two_bases_are_refused(run, lora, small_base):
    other = finetune(replace(run, base=small_base, steps=1))
    with pytest.raises(ValueError, match="can only be compared in one base"):
        OverlapExplorer(lora, other)


def test_closed_it_lets_go_of_the_deltas(explorer):
    held = [weakref.ref(delta) for found in explorer.deltas for delta in found.values()]
    assert len(held) == 14
    explorer.close()
    gc.collect()
    assert [delta() for delta in held] == [None] * 14
    explorer.close()


def test_the_words_of_a_map_are_its_corners():
    phi = torch.tensor([[0.25, 0.5], [0.5, 0.75]])
    assert describe(phi) == "phi(1, 1) = 0.25, phi(2, 2) = 0.75"
