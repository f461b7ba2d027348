"""The 4-bit explorable: its numbers are those of `quantize`, each found out once, none kept."""

import gc
import weakref

import pytest
import torch
from explorables import look

from lorakit.model import Llama
from lorakit.qlora import quantize_
from lorakit.quantize import CODEBOOKS, dequantize, normalised, quantize
from lorakit.widgets import QuantizeExplorer
from lorakit.widgets import quantize as module
from lorakit.widgets.quantize import BINS, BLOCKS, DOUBLE, SINGLE, histogram

UP = "model.layers.0.mlp.up_proj"


@pytest.fixture
def model(shape) -> Llama:
    torch.manual_seed(0)
    return Llama(shape)


@pytest.fixture
def explorer(model) -> QuantizeExplorer:
    return QuantizeExplorer(model)


def by_hand(W, **options) -> float:
    return ((dequantize(quantize(W, **options)) - W).norm() / W.norm()).item()


@pytest.mark.parametrize("scales", [SINGLE, DOUBLE])
def test_the_map_holds_the_error_of_every_codebook_and_block_of_the_layer(explorer, model, scales):
    explorer.layer.value, explorer.scales.value = UP, scales
    W = model.get_submodule(UP).weight.detach()
    assert explorer.errors == {
        (codebook, block): by_hand(W, codebook=codebook, block=block, double=scales == DOUBLE)
        for codebook in CODEBOOKS
        for block in BLOCKS
    }


def test_the_words_hold_the_choice_its_error_and_its_bytes(explorer, model):
    explorer.layer.value, explorer.block.value, explorer.codebook.value = UP, 128, "fp4"
    held = quantize(model.get_submodule(UP).weight.detach(), block=128, codebook="fp4")
    error = explorer.errors["fp4", 128]
    assert explorer.bytes_a_weight == held.nbytes / (64 * 96)
    assert explorer.map.text == (
        f"0.mlp.up_proj: fp4 in blocks of 128, scales in 8 bits, moves the weights by {error:.2%} "
        f"of their norm and takes {held.nbytes / 6144:.4f} bytes a weight (float32 takes 4)"
    )


def test_it_begins_with_the_papers_choice(explorer):
    found = explorer.codebook.value, explorer.block.value, explorer.scales.value
    assert found == ("nf4", 64, DOUBLE)


@pytest.mark.parametrize("block", [16, 1024])
def test_the_bars_are_of_all_weights_and_of_no_filling(model, block):
    W = torch.randn(33, 31, generator=torch.Generator().manual_seed(0))
    shares = histogram(W, block)
    assert len(shares) == BINS and sum(shares) == pytest.approx(1, abs=1e-5)
    w = normalised(W, block)[0].flatten()[: W.numel()]
    assert shares[BINS // 2] == pytest.approx((w.abs() < 1 / BINS).float().mean().item(), abs=2e-3)


def test_the_words_count_how_the_levels_are_met(explorer, model):
    explorer.codebook.value = "int4"
    assert explorer.levels.text.startswith("15 of the 16 levels of int4 are used")
    explorer.codebook.value = "nf4"
    W = model.get_submodule(explorer.layer.value).weight.detach().flatten().view(-1, 64)
    scaled = W / W.abs().amax(1, keepdim=True)
    nearest = (scaled[..., None] - torch.tensor(CODEBOOKS["nf4"])).abs().argmin(-1)
    shares = nearest.flatten().bincount(minlength=16) / W.numel()
    assert explorer.levels.text == (
        f"16 of the 16 levels of nf4 are used, the one met most by {shares.max():.1%} of the "
        f"weights, the one met least by {shares.min():.1%}"
    )


def test_each_error_is_found_out_once(model, monkeypatch):
    seen = []
    find = module.off

    def counted(W, **options):
        seen.append(options)
        return find(W, **options)

    monkeypatch.setattr(module, "off", counted)
    explorer = QuantizeExplorer(model)
    assert len(seen) == len(CODEBOOKS) * len(BLOCKS)
    explorer.block.value, explorer.codebook.value = 256, "int4"
    explorer.block.value = 64
    assert len(seen) == len(CODEBOOKS) * len(BLOCKS)


def test_a_base_in_half_precision_shows_the_same_as_its_values_in_float32(model):
    half = look(QuantizeExplorer(model.bfloat16()))
    assert half == look(QuantizeExplorer(model.float()))


def test_a_model_in_4_bits_is_refused(model):
    quantize_(model)
    with pytest.raises(ValueError, match="model is in 4 bits already"):
        QuantizeExplorer(model)


def test_closed_it_holds_no_weight(model):
    explorer = QuantizeExplorer(model)
    weight = weakref.ref(explorer.weights[UP])
    explorer.close()
    del model
    gc.collect()
    assert explorer.weights == {} and weight() is None
