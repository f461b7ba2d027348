"""The memory of a training step from instant to instant, one method beside the other."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from lorakit.plots.style import EDGE, LARGE, OVER, PARTS, below, dress, frame, round_up, size, unit

GAP = 0.3  # between two methods; a phase is 1 wide


def draw_timeline(ax: Axes, memories: Mapping[str, Any], *, title: str = "") -> None:
    """Areas by part, stacked, over forward, backward and optimizer; the peak's bytes above it.

    A memory is anything with `timeline`, bytes (instants, parts) in the order of `PARTS`, and
    `starts`, the first instant of each phase. Phases are equally wide, however long they take. All
    share one y axis, so that heights compare; it moves in jumps, and live areas move before it.
    """
    everything = np.concatenate([memory.timeline for memory in memories.values()])
    largest = everything.sum(axis=1).max()
    scale, unit_name = unit(largest)
    limit = round_up(1.12 * largest / scale)
    parts = [part for part, held in zip(PARTS, everything.T, strict=True) if held.any()]
    phases = {name: tuple(memory.starts) for name, memory in memories.items()}
    with frame(ax, tuple(phases.items()), tuple(parts), scale, limit, bool(title)) as bare:
        if bare:
            _dress(ax, phases, limit, lines=1 + bool(title))
            label = f"memory in {unit_name}"
            dress(ax, x="instants of one step, in order", y=label, **below(ax, parts))
    for left, memory in zip(_lefts(phases), memories.values(), strict=True):
        _draw_one(ax, left, memory, scale)
    # Where the title would be; it moves, for a live one tells the step.
    ax.text(0.5, 1, title, ha="center", fontsize=LARGE, transform=ax.title.get_transform())


def _draw_one(ax: Axes, left: float, memory: Any, scale: float) -> None:
    x = left + _places(tuple(memory.starts.values()), len(memory.timeline))
    # The last instant lasts as well: it has an end of its own.
    edges = np.append(memory.timeline, memory.timeline[-1:], axis=0).cumsum(axis=1) / scale
    bottom = np.zeros(len(x))
    for color, top in zip(PARTS.values(), edges.T, strict=True):
        ax.fill_between(x, bottom, top, step="post", color=color, linewidth=0)
        bottom = top
    ax.step(x, bottom, where="post", color=EDGE, linewidth=1)
    for boundary in range(1, len(memory.starts)):
        ax.axvline(left + boundary, color="black", linewidth=1, linestyle=":")
    peak = bottom.argmax()
    ax.annotate(
        size(scale * bottom[peak]),
        ((x[peak] + x[peak + 1]) / 2, bottom[peak]),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center",
        bbox=OVER,
        fontsize=LARGE,
        weight="bold",
    )


def _dress(ax: Axes, phases: Mapping[str, tuple[str, ...]], limit: float, *, lines: int) -> None:
    """Names of methods above and of phases below, and room above for so many lines of letters."""
    ticks: dict[float, str] = {}
    for left, (method, names) in zip(_lefts(phases), phases.items(), strict=True):
        middle = left + len(names) / 2
        ax.text(middle, limit, method, ha="center", va="bottom", fontsize=LARGE, weight="bold")
        ticks |= {left + place + 0.5: name for place, name in enumerate(names)}
        right = left + len(names)
    ax.set_xlim(0, right)
    ax.set_ylim(0, limit)
    ax.set_xticks(list(ticks), list(ticks.values()))
    ax.tick_params(axis="x", length=0)
    ax.set_title(" ", pad=6 + 20 * (lines - 1))


def _lefts(phases: Mapping[str, tuple[str, ...]]) -> list[float]:
    """Where each method begins."""
    widths = [len(names) + GAP for names in phases.values()]
    return [sum(widths[:place]) for place in range(len(widths))]


def _places(starts: tuple[int, ...], count: int) -> np.ndarray:
    """Where each of `count` instants begins, and where the last one ends; a phase is 1 wide."""
    ends = (*starts[1:], count)
    phases = [
        number + np.arange(end - start) / (end - start)
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]
    return np.append(np.concatenate(phases), len(starts))
