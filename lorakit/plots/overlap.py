"""Do two changes of a weight share directions: phi(i, j) as a map, always from 0 to 1."""

import math

from matplotlib.axes import Axes
from torch import Tensor

from lorakit.plots.style import MAPS, SMALL, dress, ink


def draw_overlap(ax: Axes, phi: Tensor, *, title: str, first: str, second: str) -> None:
    """phi (k1, k2): the first i directions of `first` by rows, the first j of `second` by columns.

    LoRA, arXiv 2106.09685, figure 3. Two maps are comparable at a glance: one scale, from 0 to 1.
    """
    image = ax.imshow(phi.numpy(), cmap=MAPS["lora"], vmin=0, vmax=1, aspect="auto")
    rows, columns = phi.shape
    ax.set_yticks(*_ticks(rows))
    ax.set_xticks(*_ticks(columns))
    if max(rows, columns) <= 6:  # room for numbers
        for i in range(rows):
            for j in range(columns):
                value = phi[i, j].item()
                color = ink(image.cmap(value))  # the scale is from 0 to 1 as it is
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", color=color, fontsize=SMALL)
    bar = ax.figure.colorbar(image, ax=ax)
    bar.set_label("overlap", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    ax.set_title(title)
    dress(ax, x=f"first j of {second}", y=f"first i of {first}")


def _ticks(count: int) -> tuple[list[int], list[str]]:
    """Places and labels: 1, and the multiples of a step that leaves at most eight."""
    step = 2 ** math.ceil(math.log2(max(1, count / 8)))
    numbers = sorted({1, *range(step, count + 1, step)})
    return [number - 1 for number in numbers], [str(number) for number in numbers]
