"""Parameters: counted on the real module, drawn as counted, and untouched by alpha."""

import pytest
from explorables import look

from lorakit.adapters import save_adapter
from lorakit.lora import ALL_LINEAR, LoRAConfig, inject, lora_layers, trainable
from lorakit.model import Llama
from lorakit.plots.style import size
from lorakit.presets import PRESETS
from lorakit.widgets.parameters import TARGETS, ParametersExplorer, parameters

MINI = PRESETS["mini"]


@pytest.fixture
def explorer() -> ParametersExplorer:
    return ParametersExplorer("mini", rank=8, alpha=16)


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("rank", [1, 16])
def test_the_count_is_that_of_a_model_with_memory(targets, rank):
    lora = LoRAConfig(rank=rank, targets=targets)
    found, real = parameters(MINI, lora), Llama(MINI)
    assert found.count.total == sum(p.numel() for p in real.parameters())
    assert found.copy == 4 * found.count.total
    inject(real, lora)
    assert found.count.trainable == sum(p.numel() for p in trainable(real))


def test_the_adapters_bytes_are_those_of_its_file(tmp_path):
    lora, model = LoRAConfig(rank=4), Llama(MINI)
    inject(model, lora)
    save_adapter(model, tmp_path / "adapter", base="mini", allow_zero=True)
    written = sum(path.stat().st_size for path in (tmp_path / "adapter").glob("*.safetensors"))
    assert parameters(MINI, lora).adapter == pytest.approx(written, rel=0.02)


@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_shapes_and_adapted_weights_are_those_of_the_first_layer(targets):
    model = Llama(MINI)
    inject(model, LoRAConfig(rank=1, targets=targets))
    adapted = [
        n.rpartition(".")[2] for n, _ in lora_layers(model) if n.startswith("model.layers.0.")
    ]
    found = parameters(MINI, LoRAConfig(rank=3, targets=targets))
    assert list(found.adapted) == adapted
    assert list(found.shapes) == [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    ]
    assert found.shapes["q_proj"] == (128, 128)
    assert found.shapes["up_proj"] == (352, 128)
    assert found.shapes["down_proj"] == (128, 352)


@pytest.mark.parametrize(
    ("model", "rank", "targets"),
    [
        ("mini", 8, ALL_LINEAR),
        ("llama-3-8b", 16, ("q_proj", "v_proj")),
        ("llama-3-70b", 64, ALL_LINEAR),
    ],
)
def test_the_point_stands_at_the_percent_that_train(explorer, model, rank, targets):
    explorer.model.value, explorer.rank.value, explorer.targets.value = model, rank, targets
    found = parameters(PRESETS[model], LoRAConfig(rank=rank, targets=targets))
    point = explorer.share.axes.lines[-1]
    assert list(point.get_xdata()) == [found.count.percent]


@pytest.mark.parametrize("rank", [1, 8, 64])
@pytest.mark.parametrize("targets", TARGETS.values(), ids=TARGETS)
def test_every_w_is_drawn_and_b_and_a_beside_the_adapted_ones(explorer, rank, targets):
    explorer.rank.value, explorer.targets.value = rank, targets
    found = parameters(MINI, LoRAConfig(rank=rank, targets=targets))
    sizes = [(p.get_height(), p.get_width()) for p in explorer.matrices.axes.patches]
    factors = [(found.shapes[n][0], rank) for n in found.adapted]
    factors_and_a = [
        s
        for n, B in zip(found.adapted, factors, strict=True)
        for s in (B, (rank, found.shapes[n][1]))
    ]
    assert sizes == [*found.shapes.values(), *factors_and_a]


def test_the_words_hold_the_numbers(explorer):
    explorer.model.value, explorer.rank.value = "llama-3-8b", 16
    explorer.targets.value = ("q_proj", "v_proj")
    assert "6,815,744 of 8,030,261,248 parameters train" in explorer.share.text
    assert "alpha / rank = 1 " in explorer.share.text
    found = parameters(PRESETS["llama-3-8b"], explorer.lora)
    assert (
        f"{size(found.adapter)} an adapter, {size(found.copy)} a full copy" in explorer.share.text
    )
    factors, weights = 16 * (4096 + 4096 + 1024 + 4096), 4096 * 4096 + 1024 * 4096
    assert f"have {factors:,} numbers" in explorer.matrices.text
    assert f"{weights:,} ({factors / weights:.2%})" in explorer.matrices.text


def test_alpha_changes_the_multiplier_in_words_and_no_picture_and_no_count(explorer):
    before = look(explorer)
    for alpha in (64, 1):
        explorer.alpha.value = alpha
        share, matrices = look(explorer)
        assert share[0] == before[0][0]
        assert matrices == before[1]
        expected = before[0][1].replace("alpha / rank = 2 ", f"alpha / rank = {alpha / 8:g} ")
        assert share[1] == expected != before[0][1]
    explorer.alpha.value = 16
    assert look(explorer) == before


@pytest.mark.parametrize("alpha", [0.5, 64.0])
def test_nothing_that_is_counted_depends_on_alpha(alpha):
    assert parameters(MINI, LoRAConfig(alpha=alpha)) == parameters(MINI, LoRAConfig(alpha=16.0))


@pytest.mark.parametrize(("rank", "alpha"), [(12, 16), (8, 2.5)])
def test_a_start_between_the_sliders_marks_is_kept(rank, alpha):
    explorer = ParametersExplorer("mini", rank=rank, alpha=alpha)
    assert explorer.lora == LoRAConfig(rank=rank, alpha=alpha)


def test_other_models_stand_beside_the_one_on_show_and_it_does_not_stand_twice():
    explorer = ParametersExplorer("mini", beside=("mini", "llama-3.2-1b"))
    alone = ParametersExplorer("mini")
    assert explorer.share.text == f"{alone.share.text} llama-3.2-1b: 0.46%."
    assert explorer.share.value != alone.share.value
    explorer.model.value = "llama-3.2-1b"
    assert explorer.share.text.endswith(" mini: 9.4%.")
    assert "llama-3.2-1b: " not in explorer.share.text
