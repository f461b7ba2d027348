"""The merge explorable: its numbers are those of a merge done by hand, and nothing is merged."""

import copy
import gc
import weakref
from statistics import median

import pytest
import torch
from explorables import assert_keeps_nothing, assert_moves, look
from weights import assert_same_weights, weights

from lorakit.lora import lora_layers
from lorakit.merge_cost import merge_cost, share
from lorakit.merging import merge_and_unload, rescaled
from lorakit.widgets.merge import ALPHAS, DTYPES, MergeExplorer, describe


@pytest.fixture
def explorer(lora) -> MergeExplorer:
    return MergeExplorer(lora)


def by_hand(result, alpha: float, dtype: torch.dtype) -> tuple[float, float]:
    """The median share of the delta that is lost, and the share of entries that stay."""
    losses, kept, entries = [], 0, 0
    for _, layer in lora_layers(result.model):
        W = layer.base.weight.to(dtype)
        delta = alpha / result.run.rank * layer.B.double() @ layer.A.double()
        merged = (W.double() + delta).float().to(dtype)
        losses.append(((merged.double() - W.double() - delta).norm() / delta.norm()).item())
        kept, entries = kept + (merged == W).sum().item(), entries + W.numel()
    return median(losses), kept / entries


def told(part: float) -> str:
    """No powers of ten in a sentence."""
    return "under 0.001%" if 0 < part < 0.000_01 else share(part)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("alpha", [1 / 16, 8, 64])
def test_the_words_hold_the_cost_of_a_merge_by_hand(explorer, lora, alpha, dtype):
    explorer.alpha.value, explorer.dtype.value = alpha, dtype
    cost = explorer.costs[dtype]
    loss, unchanged = by_hand(lora, alpha, getattr(torch, dtype))
    # By hand the product is exact; a merge takes it in float32, and float32 shows it.
    assert cost.loss == pytest.approx(loss, rel=0.02, abs=1e-7)
    assert cost.unchanged == pytest.approx(unchanged, abs=0.002)
    assert "e-0" not in explorer.picture.text
    assert explorer.picture.text == (
        f"alpha {alpha:g}, merged in {dtype}: {told(cost.loss)} of the delta is lost (median of "
        f"7 layers), {told(cost.unchanged)} of the entries do not change; a logit moves by "
        f"{told(explorer.change)} of the largest, at most"
    )


@torch.no_grad()
def test_the_change_of_a_logit_is_that_of_a_model_merged_by_hand(explorer, lora):
    explorer.alpha.value, explorer.dtype.value = 64, "bfloat16"
    kept = copy.deepcopy(lora.model)
    with rescaled(kept, 64.0):
        for _, layer in lora_layers(kept):
            layer.base.bfloat16()
        merged = copy.deepcopy(kept)
        merge_and_unload(merged)
        expected, found = kept.float()(explorer.tokens), merged.float()(explorer.tokens)
    change = (found - expected).abs().max() / expected.abs().max()
    assert explorer.change == pytest.approx(change.item(), rel=1e-3)
    assert change > 1e-4


def test_the_dots_are_every_layer_in_every_dtype(explorer, lora):
    lines = [line for line in explorer.picture.axes.lines if line.get_linestyle() == "None"]
    assert [len(line.get_xdata()) for line in lines] == [7, 7, 7]
    low, high = explorer.picture.axes.get_xlim()
    for alpha in (ALPHAS[0], ALPHAS[-1]):
        explorer.alpha.value = alpha
        for cost in explorer.costs.values():
            assert all(low < layer.size < high for layer in cost.layers)


def test_a_larger_alpha_is_a_larger_delta_of_which_less_is_lost(explorer):
    found = {}
    for alpha in (1, 16):
        explorer.alpha.value = alpha
        found[alpha] = explorer.costs["bfloat16"]
    for small, large in zip(found[1].layers, found[16].layers, strict=True):
        assert large.size == pytest.approx(16 * small.size)
    assert found[16].loss < 0.5 * found[1].loss


def test_controls_move_picture_and_words_there_and_back(explorer):
    assert_moves(explorer, explorer.alpha, 64, [explorer.picture])
    assert_moves(explorer, explorer.dtype, "float16", [explorer.picture])
    at_first = look(explorer)
    explorer.alpha.value = ALPHAS[0]
    assert look(explorer) != at_first


def test_it_measures_once_until_a_number_of_the_model_changes(explorer, monkeypatch):
    seen, measure = [], explorer._measure
    monkeypatch.setattr(
        explorer, "_measure", lambda model, *at: seen.append(at) or measure(model, *at)
    )
    first = explorer.alpha.value
    for alpha in (256, first, 256):
        explorer.alpha.value = alpha
    assert seen == [(256, "bfloat16")]
    with torch.no_grad():
        next(explorer.model.parameters()).mul_(1)
    explorer.refresh()
    assert seen == [(256, "bfloat16")] * 2


def test_it_starts_from_the_runs_alpha(explorer, lora):
    assert explorer.alpha.value == lora.run.alpha == 8
    assert explorer.costs["float32"] == merge_cost(lora.model)
    assert explorer.picture.text == describe(explorer.costs["bfloat16"], 8, explorer.change)


def test_the_runs_model_is_neither_merged_nor_rescaled(explorer, lora):
    before = weights(lora.model)
    for alpha in ALPHAS:
        explorer.alpha.value = alpha
    assert_same_weights(lora.model, before)
    assert {layer.config.alpha for _, layer in lora_layers(lora.model)} == {8}
    assert not any(layer.merged for _, layer in lora_layers(lora.model))


def test_sliding_keeps_no_tensors(explorer):
    def slide() -> None:
        for alpha in (1, 64):
            explorer.alpha.value = alpha

    assert_keeps_nothing(slide, 3)


def test_a_full_fine_tune_is_refused_with_what_to_give(full):
    with pytest.raises(ValueError, match="adapters, got a run of 'full': give a result of Run"):
        MergeExplorer(full)
    gc.collect()


def test_closed_it_lets_go_of_the_model(explorer):
    held = weakref.ref(explorer.model)
    explorer.close()
    gc.collect()
    assert held() is None
    with pytest.raises(ValueError, match="closed and its model is gone"):
        explorer.refresh()
