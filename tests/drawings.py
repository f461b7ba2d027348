"""Drawings by themselves: as bytes, as letters, as pixels of a colour."""

import io
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from PIL import Image

from lorakit.plots import COLORS, figure, png


def drawn(draw: Callable[[Axes], None]) -> bytes:
    fig, ax = figure(700, 400)
    draw(ax)
    return png(fig)


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.figure.findobj(Text) if text.get_text()]


def inked(data: bytes, color: str) -> int:
    """How many pixels have that colour."""
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    return (abs(pixels - np.array(to_rgb(COLORS[color])) * 255).sum(-1) < 6).sum()
