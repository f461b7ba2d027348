"""What can be told apart: contrast on a white page and a dark one, and by every kind of eye."""

import re
from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lorakit.plots.claims import SHADES
from lorakit.plots.curves import shades
from lorakit.plots.style import COLORS, EDGE, PARTS, ink, luminance
from lorakit.widgets.picture import DARK_THEME

MARK, TEXT = 3.0, 4.5  # WCAG 2.2, success criteria 1.4.11 and 1.4.3 (AA)
APART = 15.0  # of two colors, by CIE 1976's difference; about 2.3 can just be seen side by side

# How a dichromat sees linear RGB: Machado, Oliveira, Fernandes, "A physiologically-based model for
# simulation of color vision deficiency", IEEE TVCG 15(6), 2009, table 1, severity 1.0.
EYES = {
    "all three cones": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
# sRGB's primaries and its white, D65: IEC 61966-2-1.
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = TO_XYZ.sum(axis=1)


def on_white(color) -> tuple[float, ...]:
    return to_rgb(color)


def on_dark(color) -> tuple[float, ...]:
    """A color as the page's own rule shows it in the dark theme.

    `invert(a)` takes c to a + c (1 - 2 a); hue-rotate(180deg) is the matrix below with cos = -1 and
    sin = 0, of Rec. 709's luma weights (W3C, Filter Effects Module Level 1, section 7).
    """
    (amount, angle) = re.findall(r"invert\(([.\d]+)\) hue-rotate\((\d+)deg\)", DARK_THEME)[0]
    assert angle == "180"
    luma = np.array([0.213, 0.715, 0.072])
    turned = 2 * luma - np.eye(3)
    inverted = float(amount) + (1 - 2 * float(amount)) * np.array(to_rgb(color))
    return tuple(np.clip(turned @ inverted, 0, 1))


THEMES = pytest.mark.parametrize("theme", [on_white, on_dark], ids=["white", "dark"])
EVERY_EYE = pytest.mark.parametrize("eye", EYES)


def contrast(one, other) -> float:
    """1 to 21, as WCAG 2.2 has it."""
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def difference(one, other, eye: str) -> float:
    """Between two colors in CIE L*a*b*, as that eye sees them."""
    return float(np.linalg.norm(lab(one, eye) - lab(other, eye)))


def lab(color, eye: str) -> np.ndarray:
    c = np.array(to_rgb(color))
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    x = TO_XYZ @ np.clip(EYES[eye] @ linear, 0, 1) / WHITE
    f = np.where(x > (6 / 29) ** 3, np.cbrt(x), x / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


# Contrast


@THEMES
@pytest.mark.parametrize("idea", COLORS)
def test_a_line_of_any_idea_is_seen_on_its_ground(idea, theme):
    assert contrast(theme(COLORS[idea]), theme("white")) >= MARK


@THEMES
@pytest.mark.parametrize("color", [*SHADES, *shades("lora", 7)])
def test_so_is_every_shade(color, theme):
    assert contrast(theme(color), theme("white")) >= MARK


@THEMES
def test_the_edge_of_an_area_is_seen_on_its_ground(theme):
    assert contrast(theme(EDGE), theme("white")) >= MARK


@THEMES
@pytest.mark.parametrize("part", PARTS)
def test_a_number_on_a_part_of_memory_can_be_read(part, theme):
    assert contrast(theme(ink(PARTS[part])), theme(PARTS[part])) >= TEXT


@THEMES
def test_letters_on_the_ground_can_be_read(theme):
    assert contrast(theme("black"), theme("white")) >= TEXT


@pytest.mark.parametrize("part", ["weights", "gradients", "optimizer", "activations", "overhead"])
def test_no_part_is_dim_on_a_dark_page(part):
    assert contrast(on_dark(PARTS[part]), on_dark("white")) >= 2


@pytest.mark.parametrize("idea", COLORS)
def test_a_hue_is_kept_in_the_dark(idea):
    light, dark = (np.array(theme(COLORS[idea])) for theme in (on_white, on_dark))
    grey = light.max() - light.min() < 0.01
    assert grey or light.argmin() == dark.argmin()


# Kinds of colour vision


@EVERY_EYE
@pytest.mark.parametrize(("one", "other"), [*combinations(COLORS, 2)])
def test_two_ideas_differ_for_every_eye(one, other, eye):
    assert difference(COLORS[one], COLORS[other], eye) >= APART


@EVERY_EYE
@pytest.mark.parametrize(("one", "other"), [*pairwise(PARTS)])
def test_neighbours_in_a_bar_differ_for_every_eye(one, other, eye):
    assert difference(PARTS[one], PARTS[other], eye) >= APART


@EVERY_EYE
@pytest.mark.parametrize(("one", "other"), [*combinations(SHADES[:3], 2)])
def test_lines_without_an_idea_of_their_own_differ_for_every_eye(one, other, eye):
    assert difference(one, other, eye) >= APART


# One colour, one idea


def test_no_two_ideas_parts_or_free_shades_share_a_color():
    every = [*COLORS.values(), *PARTS.values(), *SHADES]
    assert len(set(every)) == len(every)


# The asking itself


def test_black_on_white_has_the_highest_contrast_and_a_color_with_itself_none():
    assert contrast("black", "white") == pytest.approx(21)
    assert contrast("red", "red") == 1


def test_red_and_green_of_one_lightness_are_alike_without_a_cone_and_not_with_all_three():
    red, green = "#cd6a5b", "#8d8a43"
    assert difference(red, green, "all three cones") > 40
    assert difference(red, green, "deuteranopia") < 15


def test_white_turns_nearly_black_in_the_dark_and_black_nearly_white():
    assert max(on_dark("white")) < 0.08
    assert min(on_dark("black")) > 0.92
