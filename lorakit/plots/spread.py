"""Lines over one axis with their spread over seeds: means, bars from the lowest to the highest."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from lorakit.plots.curves import Style
from lorakit.plots.style import COLORS, SMALL, STILL, dress, frame, log_y

Place = float | str  # on the x axis: a number, or a word
Values = Mapping[Place, Sequence[float]]  # what the seeds gave at each place

WIDTH = 8  # points that the lines at one place share, so that no bar hides another
OWN: dict[str, Any] = {
    "linestyle": "",
    "marker": "*",
    "markersize": 19,
    "markerfacecolor": COLORS["own"],
    "markeredgewidth": 1.5,
    "zorder": 6,
}
SEEDS: dict[str, Any] = {
    "linestyle": "",
    "marker": "o",
    "markersize": 4,
    "color": "black",
    "alpha": 0.35,
    "zorder": 5,
}
RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 20,
    "markerfacecolor": "none",
    "markeredgecolor": "black",
    "markeredgewidth": 2,
    "zorder": 5,
    "clip_on": False,
}
BAR: dict[str, Any] = {"linewidth": 1.5, "marker": "_", "markersize": 9, "markeredgewidth": 1.5}


def draw_spread(
    ax: Axes,
    lines: Mapping[str, Values],
    *,
    styles: Mapping[str, Style],
    x: str,
    y: str,
    places: Sequence[Place],
    bounds: tuple[float, float],
    bold: str = "",
    here: Place | None = None,
    levels: Sequence[str] = (),
    own: Mapping[str, Values] | None = None,
) -> None:
    """A line a name, and a stripe `here`; the one called `bold` is thick, with its seeds, ringed.

    `places` are all there are on the x axis: words in their order, or numbers on a log axis. The y
    axis has `bounds`; it is logarithmic, but for exact match. The means of `levels` go across.
    `own` are a student's runs, as stars. What is not finite is left off.
    """
    plain = {"linewidth": 2, "marker": "o", "markersize": 6}
    look: dict[str, dict[str, Any]] = {name: {**plain, **styles[name]} for name in lines}
    key = tuple((name, *sorted(style.items())) for name, style in look.items())
    with frame(ax, key, x, y, tuple(places), bounds) as bare:
        if bare:
            _dress_x(ax, places)
            _dress_y(ax, bounds, linear=y == "exact match")
            handles = [Line2D([], [], label=name, **style) for name, style in look.items()]
            yours = {**OWN, "markersize": 13, "markeredgecolor": "black"}
            yours["markeredgewidth"] = 0.7
            handles.append(Line2D([], [], label="yours", **yours))
            label = y if y == "exact match" else f"{y} (log scale)"
            dress(ax, x=x, y=label, handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))
    if here is not None and here in places:
        ax.axvline(_at(places, here), color=STILL, linewidth=12, zorder=0.5)
    apart = min(4.0, WIDTH / len(lines)) if lines else 0.0
    for number, (name, points) in enumerate(lines.items()):
        shift = apart * (number - (len(lines) - 1) / 2) / 72
        move = ax.transData + ScaledTranslation(shift, 0, ax.figure.dpi_scale_trans)
        style = look[name]
        if name in levels:
            for values in points.values():
                ax.axhline(_finite(fmean(values)), **{**style, "marker": "", "linewidth": 1.5})
        if name == bold:
            style = style | {"linewidth": 3.5, "markersize": 8, "zorder": 4}
            ax.plot(*_columns(points, places, list), **SEEDS, transform=move)
            ringed = {place: values for place, values in points.items() if place == here}
            ax.plot(*_columns(ringed, places, _mean), **RING, transform=move)
        bars = _columns(points, places, lambda values: [min(values), max(values), math.nan])
        ax.plot(*bars, **BAR, color=style["color"], transform=move)
        ax.plot(*_columns(points, places, _mean), **style, transform=move)
        stars = _columns((own or {}).get(name, {}), places, list)
        ax.plot(*stars, **OWN, markeredgecolor=style["color"], transform=move)


def _columns(
    points: Values, places: Sequence[Place], chosen: Callable[[Sequence[float]], list[float]]
) -> tuple[list[float], list[float]]:
    """x and y of what is chosen of the values at each place."""
    found = [
        (_at(places, place), _finite(value))
        for place, values in points.items()
        if values
        for value in chosen(values)
    ]
    return [x for x, _ in found], [y for _, y in found]


def _at(places: Sequence[Place], place: Place) -> float:
    return float(places.index(place)) if isinstance(place, str) else place


def _mean(values: Sequence[float]) -> list[float]:
    return [fmean(values)]


def _finite(value: float) -> float:
    """What matplotlib leaves off is nan: infinity would move what lies beside it."""
    return value if math.isfinite(value) else math.nan


def _dress_x(ax: Axes, places: Sequence[Place]) -> None:
    """Every word; every number, or 1, 2, 5 of each decade where numbers stand close."""
    numbers = [place for place in places if not isinstance(place, str)]
    if not numbers:
        ax.set_xlim(-0.5, len(places) - 0.5)
        ax.set_xticks(range(len(places)), [str(place) for place in places])
        return
    ax.set_xlim(min(numbers) / 1.25, max(numbers) * 1.25)
    ax.set_xscale("log")
    if all(later > 1.9 * earlier for earlier, later in pairwise(sorted(numbers))):
        ax.set_xticks(numbers, [f"{number:,g}" for number in numbers])
    else:
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())


def _dress_y(ax: Axes, bounds: tuple[float, float], *, linear: bool) -> None:
    if linear:
        ax.set_ylim(bounds)
    else:
        log_y(ax, *bounds)
    ax.grid(axis="y", color="#e8e8e8")
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=SMALL)
