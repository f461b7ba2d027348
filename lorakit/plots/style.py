"""How every figure looks, and what of it stands still while a slider moves.

Figures are matplotlib's `Figure`, never pyplot: no global state, nothing to close. Sizes are pixels
at 100 dpi, letters are made for a projector, and one colour stands for one idea in the whole lab.

    with frame(ax, limit) as bare:          what stands still: dressed once for each `limit`
        if bare:
            ax.set_xlim(0, limit)
    ax.barh(...)                            what moves: gone when the next frame begins

Axes, letters and ticks are nearly all of a drawing's time. A picture keeps the pixels of a frame,
and draws over them what moves.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from lorakit.files import replacing

# What meets in one figure differs for every kind of colour vision, on a white page and inverted on
# a dark one: tests/plots/test_legible.py says by how much.
COLORS = {
    "base": "#7f7f7f",  # the model as it came; what is frozen
    "full": "#d55e00",  # full fine-tuning
    "lora": "#0072b2",
    "qlora": "#332288",
    "random": "#000000",  # what chance gives
    "expected": "#733d1d",  # what a student predicted
    "own": "#a000f0",  # what a student measured
}
# The parts of a training step's memory, each with an edge; neighbours in a bar also differ in grey.
PARTS = {
    "weights": "#56b4e9",
    "gradients": "#e6d41e",
    "optimizer": "#d68fb8",
    "activations": "#008560",
    "temporaries": "#a6e0cd",  # what activations are for a moment: a tint of their colour
    "overhead": "#999999",
}
# From nothing to most of what that colour stands for.
MAPS = {"full": "Oranges", "lora": "Blues", "qlora": "Purples"}
EDGE = "#666666"  # of what would be lost on black or on white
SMALL, LARGE = 11, 13  # points: ticks and notes, titles
TIMES = "\N{MULTIPLICATION SIGN}"
OVER = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind letters that a line meets
STILL = "#e8e8e8"  # where there is nothing, or nothing has changed
UNCHANGED = "nothing has changed yet"


def figure(width: int, height: int) -> tuple[Figure, Axes]:
    """A white figure of so many pixels with one pair of axes."""
    fig = Figure((width / 100, height / 100), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.add_subplot()


def png(fig: Figure) -> bytes:
    """The figure as it looks now, as a PNG; packed for speed, not for size."""
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=100, pil_kwargs={"compress_level": 1})
    return file.getvalue()


def save_picture(
    path: Path | str, draw: Callable[[Axes], None], *, width: int = 800, height: int = 450
) -> None:
    """Write what `draw(ax)` draws as a PNG file of so many pixels; `path` changes at the end."""
    fig, ax = figure(width, height)
    draw(ax)
    with replacing(path) as fresh:
        fresh.write_bytes(png(fig))


# An artist knows its axes: held on to, it would keep them, and their figure, for ever.
_frames: WeakKeyDictionary[Axes, tuple[tuple, WeakSet[Artist]]] = WeakKeyDictionary()


@contextmanager
def frame(ax: Axes, *key: Any) -> Iterator[bool]:
    """True if the axes are bare and want dressing; False if they are dressed for `key` already.

    In either case nothing that moves is left on them. `key` holds everything that the dressing
    depends on.
    """
    dressed = ax in _frames and _frames[ax][0] == key
    if dressed:
        for artist in moving(ax):
            artist.remove()
        ax.containers.clear()  # of bars that are gone
    else:
        _frames.pop(ax, None)
        ax.clear()
        if place := ax.get_subplotspec():
            ax.set_subplotspec(place)  # else the layout starts from where the last one ended
    yield not dressed
    if not dressed:
        _frames[ax] = key, WeakSet(ax.get_children())


def frame_key(ax: Axes) -> tuple | None:
    """What the axes are dressed for; None if they were drawn without a frame."""
    return _frames[ax][0] if ax in _frames else None


def moving(ax: Axes) -> list[Artist]:
    """What was drawn since the frame, from the lowest to the uppermost; without one, nothing."""
    if ax not in _frames:
        return []
    still = _frames[ax][1]
    artists = [artist for artist in ax.get_children() if artist not in still]
    return sorted(artists, key=lambda artist: artist.get_zorder())


def dress(ax: Axes, *, x: str, y: str = "", **legend: Any) -> None:
    """Letters that the last row can read, no more frame than needed; a legend where told to."""
    ax.set_xlabel(x, fontsize=SMALL)
    ax.set_ylabel(y, fontsize=SMALL)
    ax.title.set_fontsize(LARGE)
    ax.tick_params(labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    if legend:
        ax.legend(frameon=False, fontsize=SMALL, **legend)


def below(ax: Axes, parts: Sequence[str]) -> dict[str, Any]:
    """For `dress`: a legend of these `PARTS` in one row below the axes and their label."""
    return {
        "loc": "upper center",
        "handles": [Patch(facecolor=PARTS[part], edgecolor=EDGE, label=part) for part in parts],
        "ncols": len(parts),
        "handlelength": 1.3,
        "handletextpad": 0.5,
        "columnspacing": 1.1,
        "bbox_to_anchor": (0.5, 0),
        "bbox_transform": ax.transAxes + ScaledTranslation(0, -0.55, ax.figure.dpi_scale_trans),
    }


def log_limits(values: Sequence[float], decades: float = 300) -> tuple[float, float]:
    """Limits in steps of 1, 2, 5 that hold `values`, at most so many decades of them."""
    seen = [value for value in values if 0 < value < math.inf] or [1.0]
    low, high = max(min(seen), max(seen) / 10**decades), max(seen)
    return _round_down(low / 1.05), 1 / _round_down(1 / (1.05 * high))


def log_y(ax: Axes, low: float, high: float) -> None:
    """A log axis from `low` to `high`, with plain numbers on it."""
    ax.set_ylim(low, high)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())


def score_y(ax: Axes, what: str, low: float, high: float) -> str:
    """The y axis of "exact match", or on a log scale of any other score; returns its label."""
    if what == "exact match":
        ax.set_ylim(low, high)
        return what
    log_y(ax, low, high)
    return f"{what} (log scale)"


def _round_down(value: float) -> float:
    """The next of ..., 0.5, 1, 2, 5, 10, ... from `value` on down."""
    decade = 10.0 ** math.floor(math.log10(value))
    return decade * max(step for step in (0.5, 1, 2, 5) if step * decade <= value)


def round_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, ... from `value` on up."""
    decade = 10.0 ** math.floor(math.log10(value))
    return next(step * decade for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * decade >= value)


def unit(largest: float) -> tuple[int, str]:
    """What an axis up to so many bytes counts in: MB, or GB where MB would be long numbers."""
    return (10**9, "GB") if largest >= 10**10 else (10**6, "MB")


def size(bytes_: float) -> str:
    """1.3 MB, 282 GB, 1,443 GB: 10^6 and 10^9 bytes."""
    scale, name = (1e9, "GB") if bytes_ >= 1e9 else (1e6, "MB")
    value = bytes_ / scale
    return f"{value:,.0f} {name}" if value >= 100 else f"{value:.3g} {name}"


def luminance(color: Any) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ink(color: Any) -> str:
    """Black or white, whichever has more contrast with `color`."""
    # The contrast of two colors is the ratio of their luminances, each and 0.05 (WCAG 2.2).
    return "black" if (luminance(color) + 0.05) ** 2 > 0.05 * 1.05 else "white"
