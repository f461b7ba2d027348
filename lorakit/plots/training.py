"""Training as it goes: loss by step, and how long a step takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from lorakit.plots.style import COLORS, SMALL, dress, log_limits, log_y


def draw_loss(
    ax: Axes,
    losses: Sequence[float],
    *,
    total_steps: int,
    label: str,
    color: str,
    **style: Any,
) -> None:
    """One run's loss by step, so far; call it once a run to lay runs over each other.

    The step axis shows the whole run from the start, and the loss axis moves in jumps of 1, 2, 5:
    a live curve grows in a still picture.
    """
    steps = range(1, len(losses) + 1)
    ax.plot(steps, losses, **{"color": color, "linewidth": 2, "label": label, **style})
    ax.plot(steps[-1:], losses[-1:], color=color, marker="o", markersize=6)
    ax.set_xlim(0, 1.02 * total_steps)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    log_y(ax, *log_limits([loss for line in ax.lines for loss in np.asarray(line.get_ydata())]))
    dress(ax, x="step", y="loss (log scale)", loc="upper right")


def draw_pace(ax: Axes, seconds: Mapping[str, float]) -> None:
    """One bar a method: seconds that a step takes."""
    milliseconds = [1000 * value for value in seconds.values()]
    bars = ax.barh(list(seconds), milliseconds, color=[COLORS[name] for name in seconds])
    ax.bar_label(bars, [f" {value:.0f} ms" for value in milliseconds], fontsize=SMALL)
    ax.set_xlim(0, 1.2 * max(milliseconds))
    ax.invert_yaxis()
    dress(ax, x="milliseconds a training step")
