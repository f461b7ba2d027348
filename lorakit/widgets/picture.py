"""A picture in a notebook: one kept figure, drawn again in place, at a size that never changes.

    with picture.drawing() as ax:
        draw_memory(ax, runs)
    picture.text = "LoRA takes 53% of the memory of full fine-tuning"

With `blit` the axes are kept from one drawing to the next, and so are the pixels of what stands
still on them (`plots.style.frame`), of some frames before, too: then only what moves is drawn.

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
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox
from PIL import Image

from lorakit.plots.style import figure, frame_key, moving, png

# White pictures glare on a dark page, of Jupyter's, VS Code's or Colab's: there they are inverted,
# with every hue kept.
DARK_THEME = (
    '<style>:is(body[data-jp-theme-light="false"], body.vscode-dark, html[theme="dark"]) .figure '
    "{filter: invert(.93) hue-rotate(180deg)}</style>"
)
# VS Code gives the button that is down the colour of the others.
CHOSEN = (
    "<style>.widget-toggle-buttons .mod-active "
    "{box-shadow: inset 0 -3px 0 var(--jp-brand-color1, #1976d2) !important}</style>"
)
# Not by the style of a line: of ipywidgets 7 that has no letters.
CAPTIONS = "<style>.jupyter-widgets.figure-words {font-size: 15px}</style>"
STYLE = DARK_THEME + CHOSEN + CAPTIONS
VIEW = "application/vnd.jupyter.widget-view+json"  # the live widget in an output
# matplotlib is not made for threads, and callbacks and a training run draw in threads of their own.
DRAWING = threading.RLock()
FRAMES = 8  # kept of a picture, one or two megabytes each
KEPT = 160  # of the 256 colours of a stored picture: a fill keeps its own, an edge may take another
FRAMELESS = "only a drawing that begins with frame(ax, ...) can be blitted"


class Picture(ipywidgets.VBox):
    """A drawing of fixed size in pixels, with a line of text that tells what is to be seen.

    `alt` says what the picture is of, in words that never change; it is also the first text.
    """

    def __init__(self, width: int, height: int, alt: str):
        self.alt = alt
        self._figure, self.axes = figure(width, height)
        # By a frame's key its pixels, and where the axes are in them; the last one used comes last.
        self._kept: dict[tuple, tuple[Any, Bbox]] = {}
        self.image = ipywidgets.Image(format="png", layout=_fixed(width, height))
        self.image.add_class("figure")
        self.image.layout.visibility = "hidden"  # until there is one: a frame would look broken
        self._line = caption(layout=ipywidgets.Layout(width=f"{width}px", min_height="28px"))
        self.text = alt
        style = ipywidgets.HTML(STYLE, layout=ipywidgets.Layout(display="none"))
        super().__init__([style, self.image, self._line])

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
    def drawing(self, *, blit: bool = False) -> Iterator[Axes]:
        """Draw on empty axes; the new picture shows when the block ends, the old one if it fails.

        With `blit`, draw on the axes as they are: what draws begins with `frame`, which clears them
        as far as needed. Other threads wait: nothing slow belongs in the block.
        """
        with DRAWING:
            kept, self._kept = self._kept, {}  # nothing is kept of a drawing that fails
            if not kept or not blit:
                self._figure.clear()
                self.axes = self._figure.add_subplot()
            old = moving(self.axes)
            yield self.axes
            if set(old) & set(moving(self.axes)):
                raise ValueError(FRAMELESS)
            if blit:
                self._kept = self._blit(kept)
            else:
                self.image.value = png(self._figure)
            self.image.layout.visibility = "visible"

    def _blit(self, kept: dict[tuple, tuple[Any, Bbox]]) -> dict[tuple, tuple[Any, Bbox]]:
        """Show the frame's pixels, kept or made, and over them what moves."""
        canvas = self._figure.canvas
        assert isinstance(canvas, FigureCanvasAgg)
        if (key := frame_key(self.axes)) is None:
            raise ValueError(FRAMELESS)
        movers = moving(self.axes)
        if key in kept:
            pixels, place = kept.pop(key)
            canvas.restore_region(pixels)
            self.axes.set_position(place)
            self.axes.set_in_layout(True)  # where the next frame is laid out, it is asked again
        else:
            for artist in movers:
                artist.set_visible(False)
            canvas.draw()
            pixels, place = canvas.copy_from_bbox(self._figure.bbox), self.axes.get_position()
            for artist in movers:
                artist.set_visible(True)
        kept[key] = pixels, place
        if len(kept) > FRAMES:
            del kept[next(iter(kept))]
        for artist in movers:
            self.axes.draw_artist(artist)
        file = io.BytesIO()
        Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(
            file, "png", compress_level=1
        )
        self.image.value = file.getvalue()
        return kept

    def close(self) -> None:
        """Take it off the page; a drawing's pixels are megabytes, and nobody needs them now."""
        self._kept = {}
        super().close()

    _ipython_display_ = None  # ipywidgets 7 has one, which goes before a mime bundle

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        return with_still(self, self.alt, [self])


def caption(text: str = "", **traits: Any) -> ipywidgets.HTML:
    """A line of HTML in the letters of those under pictures, on a page that has a picture."""
    line = ipywidgets.HTML(text, **traits)
    line.add_class("figure-words")
    return line


def with_still(widget: ipywidgets.Widget, alt: str, pictures: Sequence[Picture]) -> dict[str, Any]:
    """A widget's mime bundle, with its pictures as one PNG and with a text that never changes."""
    bundle = {VIEW: widget.get_view_spec(), "text/plain": alt}
    if drawn := [picture.value for picture in pictures if picture.value]:
        bundle["image/png"] = base64.b64encode(stacked(drawn)).decode("ascii")
    return bundle


def stacked(pngs: Sequence[bytes]) -> bytes:
    """PNGs one under the other as a single one, packed for size: with a palette of 256 colours."""
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in pngs]
    size = max(image.width for image in images), sum(image.height for image in images)
    sheet = Image.new("RGB", size, "white")
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    file = io.BytesIO()
    packed(sheet).save(file, "png", optimize=True)
    return file.getvalue()


def packed(image: Image.Image) -> Image.Image:
    """An RGB image in 256 colours: those met most as they are, the others by the nearest."""
    pixels = np.asarray(image)
    codes = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    met, places, times = np.unique(codes.ravel(), return_inverse=True, return_counts=True)
    colours = np.stack([met >> 16, met >> 8 & 255, met & 255], axis=1).astype(np.float32)
    palette = colours
    if len(met) > 256:
        most = colours[np.argsort(-times, kind="stable")[:KEPT]]
        rest = image.quantize(256 - KEPT, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        spread = np.array((rest.getpalette() or [])[: 3 * (256 - KEPT)], dtype=np.float32)
        palette = np.concatenate([most, spread.reshape(-1, 3)])
    off = (palette**2).sum(axis=1) - 2 * colours @ palette.T  # squared, less what all share
    few = Image.fromarray(off.argmin(axis=1).astype(np.uint8)[places].reshape(pixels.shape[:2]))
    few.putpalette(palette.astype(np.uint8).tobytes())
    return few


def _fixed(width: int, height: int) -> ipywidgets.Layout:
    """A place that does not stretch; on a narrower page the picture keeps its proportions."""
    return ipywidgets.Layout(
        width=f"{width}px", height=f"{height}px", flex="0 0 auto", object_fit="contain"
    )
