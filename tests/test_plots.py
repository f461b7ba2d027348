"""Drawings: what is drawn is what was given, letters are large, one colour is one idea."""

import io
import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from PIL import Image

from lorakit.plots import (
    COLORS,
    PARTS,
    draw_layers,
    draw_loss,
    draw_matrices,
    draw_memory,
    draw_parameters,
    draw_spectrum,
    figure,
    png,
    save_picture,
)
from lorakit.spectrum import Spectrum

LOSSES = [2.5, 1.2, 0.6, 0.31]
SPECTRA = [
    Spectrum(
        layer=f"model.layers.{layer}.self_attn.{name}",
        shape=(24, 40),
        values=tuple(size * 2.0**-i for i in range(6)),
    )
    for layer in range(3)
    for name, size in (("q_proj", 1.0 + layer), ("v_proj", 0.5))
]
RUNS = {
    "full": SimpleNamespace(
        weights=538_000_000, gradients=538_000_000, optimizer=1_076_000_000, activations=10**9
    ),
    "LoRA": SimpleNamespace(
        weights=548_000_000, gradients=9_800_000, optimizer=19_600_000, activations=10**9
    ),
}


def loss(ax, losses=LOSSES, total_steps=40):
    draw_loss(ax, losses, total_steps=total_steps, label="LoRA", color=COLORS["lora"])


def spectrum(ax):
    draw_spectrum(ax, SPECTRA, cut=2)


def layers(ax):
    draw_layers(ax, SPECTRA)


def memory(ax):
    draw_memory(ax, RUNS)


def matrices(ax):
    draw_matrices(ax, 576, 1536, 8)


def parameters(ax):
    draw_parameters(ax, 2_442_240, 134_515_008)


EVERY = pytest.mark.parametrize("draw", [loss, spectrum, layers, memory, matrices, parameters])


@pytest.fixture
def ax():
    return figure(700, 400)[1]


def drawn(draw) -> bytes:
    fig, ax = figure(700, 400)
    draw(ax)
    return png(fig)


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.figure.findobj(Text) if text.get_text()]


# What holds for every drawing


@EVERY
def test_the_same_drawing_twice_gives_the_same_bytes(draw):
    assert drawn(draw) == drawn(draw)


@EVERY
def test_every_letter_can_be_read_on_a_projector(ax, draw):
    draw(ax)
    ax.figure.canvas.draw()
    hidden = [] if ax.axison else [*ax.xaxis.findobj(Text), *ax.yaxis.findobj(Text)]
    letters = [t for t in ax.figure.findobj(Text) if t.get_text() and t not in hidden]
    assert letters and min(t.get_fontsize() for t in letters) >= 11


@EVERY
def test_a_picture_is_white_and_as_large_as_asked(draw):
    image = Image.open(io.BytesIO(drawn(draw))).convert("RGB")
    assert image.size == (700, 400)
    assert image.getpixel((0, 0)) == (255, 255, 255)


def test_colors_that_meet_in_one_figure_differ():
    for table in (COLORS, PARTS):
        assert len(set(table.values())) == len(table)
    assert not set(PARTS.values()) & set(COLORS.values())


def test_neighbours_in_a_bar_differ_in_grey():
    grey = [np.dot(to_rgb(color), (0.299, 0.587, 0.114)) for color in PARTS.values()]
    assert min(abs(a - b) for a, b in pairwise(grey)) > 0.1


def test_a_saved_picture_is_the_drawn_one(tmp_path):
    save_picture(tmp_path / "loss.png", loss, width=700, height=400)
    assert (tmp_path / "loss.png").read_bytes() == drawn(loss)


def test_a_drawing_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "loss.png"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        save_picture(path, lambda ax: 1 / 0)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_cut_short_never_takes_the_place_of_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "loss.png"
    path.write_bytes(b"old")

    def full_disk(self, data):
        with self.open("wb") as file:
            file.write(data[:9])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_picture(path, loss)
    assert path.read_bytes() == b"old"


# Loss


def test_the_loss_curve_is_the_losses_from_step_1(ax):
    loss(ax)
    assert list(ax.lines[0].get_xdata()) == [1, 2, 3, 4]
    assert list(ax.lines[0].get_ydata()) == LOSSES
    assert ax.lines[0].get_color() == COLORS["lora"]


def test_the_step_axis_holds_the_whole_run_from_the_start(ax):
    loss(ax, LOSSES[:1])
    at_first = ax.get_xlim()
    loss(ax, LOSSES)
    assert ax.get_xlim() == at_first
    assert at_first[0] <= 1 and at_first[1] >= 40


def test_the_loss_axis_holds_every_run(ax):
    loss(ax, [0.5, 0.04])
    loss(ax, [9.0, 0.7])
    low, high = ax.get_ylim()
    assert low < 0.04 and high > 9.0


def test_the_loss_axis_stands_still_between_round_numbers(ax):
    loss(ax, [2.5, 1.2])
    before = ax.get_ylim()
    loss(ax, [2.5, 1.2, 1.1, 1.06])
    assert ax.get_ylim() == before == (1.0, 5.0)


@pytest.mark.parametrize("losses", [[0.8], [], [math.nan], [0.5, math.inf], [0.105, 1.0]])
def test_a_curve_of_any_losses_is_drawn(losses):
    def at_once(ax):
        loss(ax, losses)
        low, high = ax.get_ylim()
        assert 0 < low < high < math.inf

    assert drawn(at_once)


def test_a_single_loss_is_a_visible_point():
    blank = drawn(lambda ax: loss(ax, []))
    assert ink(drawn(lambda ax: loss(ax, [1.0])), "lora") > ink(blank, "lora") + 50


def ink(data: bytes, color: str) -> int:
    """How many pixels have that colour."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    return (abs(pixels - np.array(to_rgb(COLORS[color])) * 255).sum(-1) < 6).sum()


# Spectra


def test_a_spectrum_shows_every_layer_their_median_and_chance(ax):
    spectrum(ax)
    faint, (middle, chance) = ax.lines[: len(SPECTRA)], ax.lines[len(SPECTRA) : len(SPECTRA) + 2]
    assert [tuple(line.get_ydata()) for line in faint] == [s.values for s in SPECTRA]
    assert list(middle.get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert middle.get_ydata()[0] == np.median([s.values[0] for s in SPECTRA])
    assert chance.get_ydata()[3] == pytest.approx(np.median([s.random[3] for s in SPECTRA]))
    assert len(chance.get_ydata()) == 6
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_the_cut_tells_the_energy_beside_that_of_chance(ax):
    spectrum(ax)
    share = 100 * SPECTRA[0].energy(2)
    assert f"the first 2 values hold {share:.0f}% of the energy (random: " in ax.get_title()
    assert ax.lines[-1].get_xdata()[0] == 2


def test_layers_of_different_shapes_meet_as_far_as_all_go(ax):
    short = Spectrum(layer="layers.0.k_proj", shape=(3, 40), values=(1.0, 0.5, 0.1))
    draw_spectrum(ax, [SPECTRA[0], short])
    middle, chance = ax.lines[2:]
    assert len(middle.get_ydata()) == len(chance.get_ydata()) == 3
    assert ax.get_xlim()[1] >= 6


def test_a_spectrum_of_rank_1_is_a_visible_point():
    one = Spectrum(layer="layers.0.q_proj", shape=(24, 40), values=(0.7,))

    def without_legend(ax):
        draw_spectrum(ax, [one])
        ax.get_legend().remove()

    assert ink(drawn(without_legend), "lora") > 20


def test_an_untrained_adapter_is_said_to_have_changed_nothing(ax):
    zeros = Spectrum(layer="layers.0.q_proj", shape=(24, 40), values=(0.0, 0.0))
    draw_spectrum(ax, [zeros], cut=1)
    assert ax.get_title() == "nothing has changed yet"
    assert png(ax.figure)
    other = figure(700, 400)[1]
    draw_layers(other, [zeros])
    assert other.get_title() == "nothing has changed yet"
    assert other.images[0].get_clim() == (0, 1)


# Layers


def test_the_map_holds_the_norm_of_every_layer(ax):
    layers(ax)
    norms = ax.images[0].get_array()
    assert norms.shape == (3, 2)
    assert norms[2, 0] == SPECTRA[4].norm and norms[1, 1] == SPECTRA[3].norm
    assert [t.get_text() for t in ax.get_xticklabels()] == ["q_proj", "v_proj"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "1", "2"]
    assert ax.get_title() == "q_proj of layer 2 changed most"
    assert f"{SPECTRA[4].norm:#.2g}" in texts(ax)
    assert "norm of the change" in texts(ax)


def test_a_layer_without_a_delta_is_left_out(ax):
    draw_layers(ax, SPECTRA[:3])
    assert ax.images[0].get_array().mask.tolist() == [[False, False], [False, True]]
    assert "nan" not in texts(ax)


def test_a_layer_whose_place_is_unknown_is_refused(ax):
    stray = Spectrum(layer="lm_head", shape=(3, 3), values=(1.0,))
    with pytest.raises(ValueError, match="'lm_head' is not a path like"):
        draw_layers(ax, [stray])


# Memory


def test_a_memory_bar_is_the_sum_of_its_parts_in_order(ax):
    memory(ax)
    for bars, (part, color) in zip(ax.containers, PARTS.items(), strict=True):
        megabytes = [getattr(run, part) / 10**6 for run in RUNS.values()]
        assert [bar.get_width() for bar in bars] == pytest.approx(megabytes)
        assert to_hex(bars[0].get_facecolor()) == color
        assert bars.get_label() == part
    ends = [bars[0].get_x() + bars[0].get_width() for bars in ax.containers]
    assert ends == [538, 1076, 2152, 3152]
    assert ax.get_xlabel() == "memory in MB"


def test_the_first_run_is_on_top(ax):
    memory(ax)
    top, bottom = ax.get_ylim()
    assert top > bottom
    assert [t.get_text() for t in ax.get_yticklabels()] == ["full", "LoRA"]


def test_a_bar_tells_the_parts_that_have_room(ax):
    memory(ax)
    assert {"538", "1,076", "548"} <= set(texts(ax))
    assert not {"9.8", "19.6"} & set(texts(ax))


def test_large_memory_is_told_in_gigabytes(ax):
    parts = {"weights": 32 * 10**9, "gradients": 0, "optimizer": 0, "activations": 10**9}
    draw_memory(ax, {"full": SimpleNamespace(**parts)})
    assert ax.get_xlabel() == "memory in GB"
    assert "32" in texts(ax)


# Matrices and parameters


@pytest.mark.parametrize(("out_features", "in_features", "rank"), [(576, 1536, 8), (40, 24, 48)])
def test_the_matrices_are_drawn_to_one_scale(ax, out_features, in_features, rank):
    draw_matrices(ax, out_features, in_features, rank)
    W, B, A = ax.patches
    assert (W.get_height(), W.get_width()) == (out_features, in_features)
    assert (B.get_height(), B.get_width()) == (out_features, rank)
    assert (A.get_height(), A.get_width()) == (rank, in_features)
    assert ax.get_aspect() == 1
    assert W.get_x() + W.get_width() < B.get_x() < B.get_x() + B.get_width() < A.get_x()
    low, high = ax.get_ylim()
    assert low <= -max(out_features, rank) / 2 and high >= max(out_features, rank) / 2


def test_the_matrices_tell_their_shapes_and_their_share(ax):
    matrices(ax)
    assert "B, trained\n576 \N{MULTIPLICATION SIGN} 8" in texts(ax)
    assert ax.get_title() == "B and A together have 1.91% as many numbers as W"


def test_the_thinnest_matrix_is_visible():
    thin = drawn(lambda ax: draw_matrices(ax, 8192, 28672, 1))
    assert ink(thin, "lora") > 200


def test_the_trained_share_stands_on_a_log_axis_beside_the_1_percent_line(ax):
    parameters(ax)
    line, point = ax.lines
    assert line.get_xdata()[0] == 1
    assert point.get_xdata()[0] == pytest.approx(1.8156, abs=1e-4)
    assert ax.get_xscale() == "log"
    assert ax.get_title() == "2,442,240 of 134,515,008 parameters train: 1.8%"


@pytest.mark.parametrize("trainable", [1, 10**9, 2 * 10**9])
def test_any_share_lies_within_the_axis(ax, trainable):
    draw_parameters(ax, trainable, 10**9)
    low, high = ax.get_xlim()
    assert low < 100 * trainable / 10**9 < high


@pytest.mark.parametrize(("trainable", "share"), [(1000, "100%"), (145, "14%"), (18, "1.8%")])
def test_the_share_that_trains_is_told_in_plain_figures(ax, trainable, share):
    draw_parameters(ax, trainable, 1000)
    assert ax.get_title().endswith(f"parameters train: {share}")
