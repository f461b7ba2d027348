"""Counts come from the real module; published numbers hold them."""

import pytest

from lorakit import counts
from lorakit.counts import count
from lorakit.lora import ALL_LINEAR, LoRAConfig, inject, trainable
from lorakit.presets import PRESETS


@pytest.mark.parametrize(
    ("preset", "published"),
    [
        ("smollm2-135m", 134_515_008),
        ("llama-3.2-1b", 1_235_814_400),
        ("llama-3-8b", 8_030_261_248),
        ("llama-3-70b", 70_553_706_496),
    ],
)
def test_presets_have_their_published_sizes(preset, published):
    assert count(PRESETS[preset]).total == published


def test_the_gpt2_sized_preset_has_about_124_million():
    assert count(PRESETS["gpt2-sized-124m"]).total == pytest.approx(124e6, rel=0.01)


def test_the_papers_formula_counts_adapters_on_square_layers():
    # LoRA, section 4.2: 2 * adapted layers * width * rank.
    config = PRESETS["mini"]
    adapted = 2 * config.num_hidden_layers
    lora = LoRAConfig(rank=4, targets=("q_proj", "v_proj"))
    assert count(config, lora).trainable == 2 * adapted * config.hidden_size * 4


def test_llama_3_8b_at_rank_16_on_q_and_v():
    lora = LoRAConfig(rank=16, targets=("q_proj", "v_proj"))
    assert count(PRESETS["llama-3-8b"], lora).trainable == 6_815_744


def test_the_count_is_that_of_a_model_with_memory(model):
    lora = LoRAConfig(rank=3)
    expected = count(model.config, lora)
    inject(model, lora)
    assert expected.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("rank", [1, 2, 7, 64])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("gate_proj", "down_proj"), ALL_LINEAR])
def test_a_count_at_rank_1_tells_every_ranks(model, rank, targets):
    lora = LoRAConfig(rank=rank, alpha=3.0, targets=targets)
    total = sum(p.numel() for p in model.parameters())
    expected = count(model.config, lora)
    inject(model, lora)
    assert expected.trainable == sum(p.numel() for p in trainable(model))
    assert expected.total == total


@pytest.mark.parametrize("rank_pattern", [{"q_proj": 1}, {r"layers\.1\..*": 7, "v_proj": 64}])
def test_layers_of_other_ranks_are_counted_at_theirs(model, rank_pattern):
    lora = LoRAConfig(rank=3, rank_pattern=rank_pattern, alpha_pattern={"v_proj": 2.0})
    expected = count(model.config, lora)
    inject(model, lora)
    assert expected.trainable == sum(p.numel() for p in trainable(model))


def test_every_rank_and_alpha_is_counted_once(model, monkeypatch):
    built, real = [], counts.skeleton
    monkeypatch.setattr(counts, "skeleton", lambda *args: built.append(args) or real(*args))
    counts._trainable.cache_clear()
    for rank in (1, 8, 64):
        for alpha in (1.0, 16.0):
            count(model.config, LoRAConfig(rank=rank, alpha=alpha))
    assert len(built) == 2  # the base, and the adapters at rank 1


def test_full_fine_tuning_trains_everything():
    full = count(PRESETS["mini"])
    assert full.trainable == full.total
    assert full.percent == 100
