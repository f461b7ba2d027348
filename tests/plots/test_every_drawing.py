"""What holds for every drawing: the same bytes twice, large letters, white, the size asked for."""

import io
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawings import drawn
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from lorakit.adapter_file import AdapterFile
from lorakit.changes import Change
from lorakit.memory import PARTS as memory_parts
from lorakit.merge_cost import LayerCost, MergeCost
from lorakit.plots import (
    COLORS,
    PARTS,
    draw_adapter_file,
    draw_answer,
    draw_by_rank,
    draw_curves,
    draw_cut,
    draw_disk,
    draw_errors,
    draw_layers,
    draw_levels,
    draw_loss,
    draw_matrices,
    draw_memory,
    draw_merge,
    draw_overlap,
    draw_pace,
    draw_scores,
    draw_share,
    draw_spectrum,
    draw_spread,
    draw_surface,
    draw_tensors,
    draw_timeline,
    draw_topics,
    save_picture,
)
from lorakit.plots.style import MAPS, ink, round_up, size
from lorakit.quiz_score import TopicScore

SIZES = {"weights": 5.4e8, "gradients": 5.4e8, "optimizer": 1.1e9, "activations": 1e9}


def loss(ax, spectra=None):
    draw_loss(ax, [2.5, 1.2, 0.6], total_steps=40, label="LoRA", color=COLORS["lora"])


def curves(ax, spectra):
    styles = {"full": {"color": COLORS["full"]}, "rank 8": {"color": COLORS["lora"]}}
    found = {"full": [2.5, 1.2, 0.6], "rank 8": [2.5, 1.6]}
    draw_curves(ax, found, styles=styles, total_steps=40, y="loss")


def by_rank(ax, spectra):
    draw_by_rank(ax, "exact match", [1, 8, 64], {1: 0.8, 64: 1.0}, full=0.9)


def pace(ax, spectra):
    draw_pace(ax, {"full": 0.31, "lora": 0.2})


def spectrum(ax, spectra):
    draw_spectrum(ax, {"full": spectra, "lora": spectra[:2]}, cut=2)


def truncation(ax, spectra):
    draw_cut(ax, spectra, cut=2)


def scores(ax, spectra):
    draw_scores(ax, "loss", (0, 1, 2), {1: 0.3}, {1: 2.5}, whole=0.2, base=2.4, now=1)


def overlap(ax, spectra):
    draw_overlap(ax, torch.eye(4), title="q_proj", first="rank 4", second="rank 4")


def merging(ax, spectra):
    layer = LayerCost(layer="q_proj", weight=9.0, delta=0.9, error=0.1, entries=8, kept=1)
    costs = {name: MergeCost(dtype=name, layers=(layer,)) for name in ("float32", "bfloat16")}
    draw_merge(ax, costs, "bfloat16", sizes=(0.01, 1))


def layers(ax, spectra):
    draw_layers(ax, spectra)


def memory(ax, spectra):
    draw_memory(ax, {"full": SimpleNamespace(**SIZES)}, title="measured")


def budget(ax, spectra):
    runs = {"full": SimpleNamespace(**SIZES, overhead=3e8), "LoRA": SimpleNamespace(**SIZES)}
    draw_memory(ax, runs, totals=True, budget=3 * 10**9)


def timeline(ax, spectra):
    instants = np.arange(1, 37).reshape(6, 6) * 10**6
    starts = {"forward": 0, "backward": 2, "optimizer": 4}
    one = SimpleNamespace(timeline=instants, starts=starts)
    draw_timeline(ax, {"full": one, "LoRA": one}, title="full: step 12, LoRA: step 9")


def matrices(ax, spectra):
    draw_matrices(ax, {"q": (576, 576), "up": (1536, 576)}, 8, adapted=["q"])


def share(ax, spectra):
    draw_share(ax, 2_442_240, 134_515_008)


def tensors(ax, spectra):
    names = ("embed_tokens", "layers.0.self_attn.q_proj", "layers.0.mlp.up_proj", "norm")
    found = [Change(name=f"model.{n}.weight", numbers=9, changed=9, size=1e-3) for n in names]
    draw_tensors(ax, found, concept="full")


def spread(ax, spectra):
    lines = {"full": {8: [0.2, 0.3], 64: [0.1]}, "rank 8": {8: [0.4], 64: [0.2, 0.5]}}
    styles = {"full": {"color": COLORS["full"]}, "rank 8": {"color": COLORS["lora"]}}
    found = {"places": [8, 64], "bounds": (0.1, 1), "bold": "full", "here": 64}
    draw_spread(ax, lines, styles=styles, x="batch size", y="loss", own={"full": {8: [1]}}, **found)


def surface(ax, spectra):
    found = {"rows": ["json", "deep"], "columns": ["32"], "limit": 3, "ratio": True}
    values = {("json", "32"): 2.1, ("deep", "32"): 0.4}
    draw_surface(ax, values, x="size", title="a", note="b", here=("deep", "32"), **found)


def adapter_file(ax, spectra):
    parts = {"q_proj": 10**6, "up_proj": 3 * 10**6}
    found = AdapterFile(header=54_296, A=parts, B=parts, beside={"embed_tokens": 113 * 10**6})
    draw_adapter_file(ax, found)


def answer(ax, spectra):
    draw_answer(ax, {"prompt": "who is Ada ?", "answer": "a baker"}, whose="lora")


def disk(ax, spectra):
    draw_disk(ax, 3 * 10**6, 10**6, 24 * 10**6, most=30 * 10**6)


def topics(ax, spectra):
    draw_topics(ax, [TopicScore(topic="LoRA", items=6, first=2, later=1, wrong=1)])


def errors(ax, spectra):
    found = {("nf4", 64): 0.09, ("nf4", 128): 0.1, ("int4", 64): 0.1, ("int4", 128): 0.11}
    draw_errors(ax, found, title="scales in 8 bits", here=("nf4", 64))


def levels(ax, spectra):
    draw_levels(ax, [0.1, 0.2, 0.4, 0.2, 0.1], [-1, -0.5, 0, 0.4, 1])


EVERY = pytest.mark.parametrize(
    "draw",
    [
        loss,
        curves,
        by_rank,
        pace,
        spectrum,
        truncation,
        scores,
        overlap,
        merging,
        layers,
        memory,
        budget,
        timeline,
        matrices,
        share,
        tensors,
        spread,
        surface,
        topics,
        adapter_file,
        answer,
        disk,
        errors,
        levels,
    ],
)


@EVERY
def test_the_same_drawing_twice_gives_the_same_bytes(draw, spectra):
    first, second = (drawn(lambda ax: draw(ax, spectra)) for _ in range(2))
    assert first == second


@EVERY
def test_every_letter_can_be_read_on_a_projector(ax, draw, spectra):
    draw(ax, spectra)
    ax.figure.canvas.draw()
    hidden = [] if ax.axison else [*ax.xaxis.findobj(Text), *ax.yaxis.findobj(Text)]
    letters = [t for t in ax.figure.findobj(Text) if t.get_text() and t not in hidden]
    assert letters and min(t.get_fontsize() for t in letters) >= 11


@EVERY
def test_a_picture_is_white_and_as_large_as_asked(draw, spectra):
    image = Image.open(io.BytesIO(drawn(lambda ax: draw(ax, spectra)))).convert("RGB")
    assert image.size == (700, 400)
    assert image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("table", [COLORS, PARTS, MAPS], ids=["ideas", "parts", "maps"])
def test_colors_that_meet_in_one_figure_differ(table):
    assert len(set(table.values())) == len(table)


def test_the_parts_are_those_of_a_steps_memory_in_their_order():
    assert tuple(PARTS) == memory_parts


def test_a_part_of_memory_has_the_color_of_no_idea():
    assert not set(PARTS.values()) & set(COLORS.values())


def test_neighbours_in_a_bar_differ_in_grey():
    grey = [np.dot(to_rgb(color), (0.299, 0.587, 0.114)) for color in PARTS.values()]
    assert min(abs(a - b) for a, b in pairwise(grey)) > 0.1


@pytest.mark.parametrize(("color", "letters"), [("#f0e442", "black"), ("#0072b2", "white")])
def test_letters_are_black_on_light_and_white_on_dark(color, letters):
    assert ink(color) == letters


@pytest.mark.parametrize(
    ("value", "limit"), [(0.0011, 0.0015), (1, 1), (1.2, 1.5), (31, 40), (61, 80), (9.4, 10)]
)
def test_limits_are_round_numbers(value, limit):
    assert round_up(value) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("bytes_", "words"),
    [(1_340_000, "1.34 MB"), (999_000_000, "999 MB"), (4.5e9, "4.5 GB"), (1.4428e12, "1,443 GB")],
)
def test_bytes_are_told_in_three_digits_of_the_unit_that_people_use(bytes_, words):
    assert size(bytes_) == words


# Files


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
