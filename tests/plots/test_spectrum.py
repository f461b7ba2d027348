"""Singular values on show are those given; the map holds the norm of every layer."""

from dataclasses import replace

import numpy as np
import pytest
from drawings import drawn, inked, texts

from lorakit.plots import COLORS, draw_layers, draw_spectrum, figure, png
from lorakit.spectrum import Spectrum


def short() -> Spectrum:
    return Spectrum(layer="layers.0.k_proj", shape=(3, 40), values=(1.0, 0.5, 0.1))


def test_a_spectrum_shows_every_layer_their_median_and_chance(ax, spectra):
    draw_spectrum(ax, {"lora": spectra}, cut=2)
    n = len(spectra)
    faint, (middle, chance) = ax.lines[:n], ax.lines[n : n + 2]
    assert [tuple(line.get_ydata()) for line in faint] == [s.values for s in spectra]
    assert list(middle.get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert middle.get_ydata()[0] == np.median([s.values[0] for s in spectra])
    assert chance.get_ydata()[3] == pytest.approx(np.median([s.random[3] for s in spectra]))
    assert len(chance.get_ydata()) == 6
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_one_layer_is_one_curve_and_its_chance(ax, spectra):
    draw_spectrum(ax, {"lora": spectra[:1]}, cut=2)
    curve, chance, _ = ax.lines
    assert tuple(curve.get_ydata()) == spectra[0].values
    assert tuple(chance.get_ydata()) == spectra[0].random


def test_two_runs_have_a_color_each_and_chance_its_own(ax, spectra):
    draw_spectrum(ax, {"full": spectra[:1], "lora": spectra[1:2]}, cut=2)
    full, chance, lora, other, _ = ax.lines
    assert (full.get_color(), lora.get_color()) == (COLORS["full"], COLORS["lora"])
    assert chance.get_color() == other.get_color() == COLORS["random"]
    assert tuple(full.get_ydata()) == spectra[0].values
    assert tuple(lora.get_ydata()) == spectra[1].values
    assert {"full fine-tuning", "LoRA", "random: same shape, norm, rank"} <= set(texts(ax))


@pytest.mark.parametrize("cut", [1, 4])
def test_the_cut_is_marked_and_named(ax, spectra, cut):
    draw_spectrum(ax, {"lora": spectra}, cut=cut)
    assert ax.lines[-1].get_xdata()[0] == cut
    assert f" rank {cut}" in texts(ax)


def test_layers_of_different_shapes_meet_as_far_as_all_go(ax, spectra):
    draw_spectrum(ax, {"lora": [spectra[0], short()]}, cut=1)
    middle, chance = ax.lines[2:4]
    assert len(middle.get_ydata()) == len(chance.get_ydata()) == 3
    assert ax.get_xlim()[1] >= 6


def test_the_axes_hold_the_largest_value_of_every_layer(ax, spectra):
    large = replace(spectra[0], values=(90.0, 1.0))
    draw_spectrum(ax, {"full": spectra, "lora": [large]}, cut=1)
    assert ax.get_ylim()[1] >= 90


def test_a_spectrum_of_rank_1_is_a_visible_point():
    one = Spectrum(layer="layers.0.q_proj", shape=(24, 40), values=(0.7,))

    def without_legend(ax):
        draw_spectrum(ax, {"lora": [one]}, cut=1)
        ax.get_legend().remove()

    assert inked(drawn(without_legend), "lora") > 20


def test_an_untrained_adapter_is_said_to_have_changed_nothing(ax):
    zeros = Spectrum(layer="layers.0.q_proj", shape=(24, 40), values=(0.0, 0.0), base_norm=1.0)
    draw_layers(ax, [zeros])
    assert ax.get_title() == "nothing has changed yet"
    assert ax.images[0].get_clim() == (0, 1)
    other = figure(700, 400)[1]
    draw_spectrum(other, {"lora": [zeros]}, cut=1)
    assert png(other.figure)


# Layers


@pytest.mark.parametrize(("concept", "name"), [("lora", "LoRA"), ("full", "full fine-tuning")])
def test_the_map_holds_every_layer_s_change_relative_to_its_weight(ax, spectra, concept, name):
    spectra[3] = replace(spectra[3], base_norm=1.0)
    draw_layers(ax, spectra, concept=concept)
    shares = ax.images[0].get_array()
    assert shares.shape == (3, 2)
    assert shares[2, 0] == spectra[4].norm / 20 and shares[1, 1] == spectra[3].norm
    assert [t.get_text() for t in ax.get_xticklabels()] == ["q_proj", "v_proj"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "1", "2"]
    assert ax.get_title() == f"{name}: v_proj of layer 1 changed most"
    assert {"58%", "17%", "5.8%", "2.9%", "norm of the change, over that of W"} < set(texts(ax))


@pytest.mark.parametrize("base_norm", [None, 0.0])
def test_a_layer_whose_weight_s_norm_is_unknown_or_zero_is_left_out(ax, spectra, base_norm):
    spectra[3] = replace(spectra[3], base_norm=base_norm)
    draw_layers(ax, spectra)
    assert ax.images[0].get_array().mask.tolist() == [[False, False], [False, True], [False, False]]
    with pytest.raises(ValueError, match="no spectrum has the norm of its weight"):
        draw_layers(ax, spectra[3:4])


def test_the_two_methods_maps_have_different_colors(spectra):
    full, lora = (
        drawn(lambda ax, concept=concept: draw_layers(ax, spectra, concept=concept))
        for concept in ("full", "lora")
    )
    assert full != lora


def test_a_layer_without_a_delta_is_left_out(ax, spectra):
    draw_layers(ax, spectra[:3])
    assert ax.images[0].get_array().mask.tolist() == [[False, False], [False, True]]
    assert "nan" not in texts(ax)


def test_a_layer_whose_place_is_unknown_is_refused(ax):
    stray = Spectrum(layer="lm_head", shape=(3, 3), values=(1.0,), base_norm=1.0)
    with pytest.raises(ValueError, match="'lm_head' is not a path like"):
        draw_layers(ax, [stray])
