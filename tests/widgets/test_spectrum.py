"""The spectrum's picture follows the cut, and says how much of the delta it keeps."""

import pytest
import torch

from lorakit.spectrum import Spectrum
from lorakit.widgets.spectrum import SpectrumExplorer


def spectra(rank: int) -> list[Spectrum]:
    draw = torch.Generator().manual_seed(0)
    return [
        Spectrum(
            layer=f"model.layers.{layer}.self_attn.{name}",
            shape=(32, 32),
            values=tuple(torch.rand(rank, generator=draw).sort(descending=True).values.tolist()),
        )
        for layer in range(2)
        for name in ("q_proj", "v_proj")
    ]


def test_the_picture_follows_the_cut_there_and_back():
    explorer = SpectrumExplorer(spectra(8))
    before = explorer.values.value, explorer.values.text
    explorer.cut.value = 4
    assert explorer.values.value != before[0]
    assert "the first 4 singular values" in explorer.values.text
    explorer.cut.value = 1
    assert (explorer.values.value, explorer.values.text) == before


def test_the_whole_rank_holds_all_of_the_energy():
    explorer = SpectrumExplorer(spectra(8))
    explorer.cut.value = 8
    assert "hold 100% of its delta's energy" in explorer.values.text
    assert "of the same shape and rank 100%" in explorer.values.text


@pytest.mark.parametrize("rank", [1, 3, 32])
def test_no_cut_is_offered_beyond_what_there_is(rank):
    explorer = SpectrumExplorer(spectra(rank))
    assert max(explorer.cut.options) <= rank
    assert explorer.layers.value
