"""A slider, the kernel and a picture: do they hear each other?"""

import ipywidgets

from lorakit.plots.style import COLORS, LARGE, dress, frame
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture


class Handshake(Explorable):
    """A number -> the kernel -> the same number in words and in a picture."""

    def __init__(self):
        self.number = ipywidgets.IntSlider(3, min=0, max=10, description="move me")
        self.picture = Picture(480, 130, alt="the number that the kernel heard")
        super().__init__([self.number, self.picture], alt="explorable: a slider handshake")
        self.number.observe(self.refresh, names="value")
        self.refresh()

    @shown
    def refresh(self, change=None) -> None:
        with self.picture.drawing(blit=True) as ax:
            with frame(ax) as bare:
                if bare:
                    ax.set_xlim(0, 11)
                    ax.set_yticks([])
                    dress(ax, x="what the kernel heard")
            ax.barh([0], [self.number.value], color=COLORS["lora"])
            ax.text(self.number.value + 0.1, 0, str(self.number.value), fontsize=LARGE)
        self.picture.text = f"you moved it to {self.number.value}"
