"""A picture in a notebook: one kept figure, drawn again in place, at a size that never changes.

    with picture.drawing() as ax:
        draw_memory(ax, runs)
    picture.text = "LoRA takes 53% of the memory of full fine-tuning"

A page without a kernel shows the picture as it last was: it travels in the output itself. This file
knows no control and no number.
"""

import base64
import html
import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ipywidgets
from matplotlib.axes import Axes
from PIL import Image

from lorakit.plots import figure, png

# White pictures glare on a dark page: there they are inverted, with every hue kept.
DARK_THEME = (
    '<style>body[data-jp-theme-light="false"] .figure '
    "{filter: invert(.93) hue-rotate(180deg)}</style>"
)
# matplotlib is not made for threads, and callbacks and a training run draw in threads of their own.
DRAWING = threading.RLock()


class Picture(ipywidgets.VBox):
    """A drawing of fixed size in pixels, with a line of text that tells what is to be seen.

    `alt` says what the picture is of, in words that never change; it is also the first text.
    """

    def __init__(self, width: int, height: int, alt: str):
        self.alt = alt
        self._figure, _ = figure(width, height)
        self.image = ipywidgets.Image(format="png", layout=_fixed(width, height))
        self.image.add_class("figure")
        self._line = ipywidgets.HTML(
            layout=ipywidgets.Layout(width=f"{width}px", min_height="28px"),
            style={"font_size": "15px"},
        )
        self.text = alt
        theme = ipywidgets.HTML(DARK_THEME, layout=ipywidgets.Layout(display="none"))
        super().__init__([theme, self.image, self._line])

    @property
    def value(self) -> bytes:
        """The PNG on show; empty before the first drawing."""
        return bytes(self.image.value)

    @property
    def text(self) -> str:
        """What is to be seen, in words: for those who cannot see it, and for the last row."""
        return self._text

    @text.setter
    def text(self, text: str) -> None:
        self._text = text
        self._line.value = html.escape(text)

    @contextmanager
    def drawing(self) -> Iterator[Axes]:
        """Draw on empty axes; the new picture shows when the block ends, the old one if it fails.

        Other threads wait: nothing slow belongs in the block.
        """
        with DRAWING:
            self._figure.clear()
            yield self._figure.add_subplot()
            self.image.value = png(self._figure)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return with_still(super()._repr_mimebundle_(**kwargs), self.alt, [self])


def with_still(bundle: dict[str, Any], alt: str, pictures: Sequence[Picture]) -> dict[str, Any]:
    """A widget's mime bundle, with its pictures as one PNG and with a text that never changes."""
    bundle = {**bundle, "text/plain": alt}
    if drawn := [picture.value for picture in pictures if picture.value]:
        bundle["image/png"] = base64.b64encode(stacked(drawn)).decode("ascii")
    return bundle


def stacked(pngs: Sequence[bytes]) -> bytes:
    """PNGs one under the other as a single one, packed for size."""
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in pngs]
    size = max(image.width for image in images), sum(image.height for image in images)
    sheet = Image.new("RGB", size, "white")
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    file = io.BytesIO()
    sheet.save(file, "png", optimize=True)
    return file.getvalue()


def _fixed(width: int, height: int) -> ipywidgets.Layout:
    """A place that does not stretch; on a narrower page the picture keeps its proportions."""
    return ipywidgets.Layout(
        width=f"{width}px", height=f"{height}px", flex="0 0 auto", object_fit="contain"
    )
