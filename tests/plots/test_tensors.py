"""A tile a tensor, in its layer's row and its kind's column, coloured by how much it changed."""

import pytest
import torch
from drawings import texts
from matplotlib.colors import to_hex

from lorakit.changes import Change, changes, snapshot
from lorakit.lora import LoRAConfig, inject
from lorakit.plots import draw_tensors, figure
from lorakit.plots.style import STILL


def change(name: str, size: float) -> Change:
    return Change(name=name, numbers=100, changed=100 if size else 0, size=size)


def tiles(ax, found, concept="lora") -> dict[str, object]:
    draw_tensors(ax, found, concept=concept)
    return {c.name: tile for c, tile in zip(found, ax.patches, strict=True)}


def shade(tile) -> str:
    return to_hex(tile.get_facecolor())


def place(tile) -> tuple[float, float]:
    return tile.get_x(), tile.get_y()


LAYER = "model.layers.{}.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    "lora", [None, LoRAConfig(rank=2), LoRAConfig(rank=2, targets=("q_proj",))]
)
def test_every_tensor_of_a_model_has_a_tile_of_its_own(ax, model, lora):
    if lora:
        inject(model, lora)
    found = changes(model, snapshot(model))
    drawn = tiles(ax, found)
    assert len(drawn) == len(found)
    assert len({place(tile) for tile in drawn.values()}) == len(found)
    assert {shade(tile) for tile in drawn.values()} == {STILL}


def test_grey_is_what_did_not_change_at_all(ax):
    drawn = tiles(ax, [change(LAYER.format(0), 0.0), change(LAYER.format(1), 1e-9)])
    assert shade(drawn[LAYER.format(0)]) == STILL
    assert shade(drawn[LAYER.format(1)]) != STILL


@pytest.mark.parametrize("concept", ["full", "lora"])
def test_what_changed_more_is_darker(ax, concept):
    found = [change(LAYER.format(i), 10.0**-i) for i in range(1, 5)]
    light = [sum(tile.get_facecolor()[:3]) for tile in tiles(ax, found, concept).values()]
    assert light == sorted(light) and len(set(light)) == 4


def test_the_methods_have_their_own_colors():
    found = [change(LAYER.format(0), 1e-2)]
    shades = {shade(*tiles(figure(700, 400)[1], found, c).values()) for c in ("full", "lora")}
    assert len(shades) == 2


def test_a_row_is_a_layer_and_a_column_a_kind(ax):
    names = [
        f"model.layers.{i}.{kind}.weight"
        for i in range(2)
        for kind in ("self_attn.q_proj", "mlp.up_proj", "input_layernorm")
    ]
    drawn = tiles(ax, [change(name, 1e-3) for name in names])
    assert place(drawn[names[0]])[1] == place(drawn[names[1]])[1]
    assert place(drawn[names[3]])[1] - place(drawn[names[0]])[1] == pytest.approx(1)
    assert place(drawn[names[0]])[0] == place(drawn[names[3]])[0]
    assert {"layer 0", "layer 1", "q_proj", "up_proj", "norm 1"} <= set(texts(ax))


def test_an_adapted_layer_is_w_b_and_a_side_by_side(ax):
    layer = "model.layers.0.self_attn.q_proj"
    found = [change(f"{layer}.{part}", 1e-3) for part in ("base.weight", "A", "B")]
    W, A, B = tiles(ax, found).values()
    assert W.get_x() + W.get_width() < B.get_x()
    assert B.get_x() + B.get_width() < A.get_x()
    assert {"W", "A", "B"} <= set(texts(ax))


def test_the_embedding_stands_above_the_layers_and_the_last_norm_below(ax):
    names = ["model.embed_tokens.weight", LAYER.format(0), "model.norm.weight"]
    above, layer, below = (
        place(tile)[1] for tile in tiles(ax, [change(name, 1e-3) for name in names]).values()
    )
    assert above < layer < below
    assert "embed_tokens, 100 numbers" in texts(ax)


def test_the_color_of_the_smallest_change_is_told_from_grey(ax):
    tile = tiles(ax, [change(LAYER.format(0), 1e-30)])[LAYER.format(0)]
    difference = torch.tensor(tile.get_facecolor()[:3]) - torch.tensor([0xE8 / 255] * 3)
    assert difference.abs().max() > 0.1


def test_a_head_of_its_own_stands_beside_the_embedding(ax):
    names = ("model.embed_tokens.weight", LAYER.format(0), "model.norm.weight", "lm_head.weight")
    found = tiles(ax, [change(name, 1e-3) for name in names])
    head, embedding = found["lm_head.weight"], found["model.embed_tokens.weight"]
    assert place(head)[1] == place(embedding)[1]
    assert place(head)[0] >= place(embedding)[0] + embedding.get_width()
