"""What a run has learnt: singular values against chance, and where the weights changed most."""

from collections.abc import Sequence
from statistics import median

import ipywidgets

from lorakit.plots import draw_layers, draw_spectrum
from lorakit.spectrum import Spectrum, energy
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture

CUTS = (1, 2, 4, 8, 16, 32, 64)


class SpectrumExplorer(Explorable):
    """A rank to cut at -> the share of the delta's energy within -> two pictures."""

    def __init__(self, spectra: Sequence[Spectrum], *, method: str = "lora"):
        self.spectra, self.method = spectra, method
        longest = max(len(spectrum.values) for spectrum in spectra)
        self.cut = ipywidgets.SelectionSlider(
            options=[cut for cut in CUTS if cut <= longest],
            description="cut at rank",
            layout=ipywidgets.Layout(width="420px"),
            style={"description_width": "90px"},
        )
        self.values = Picture(720, 380, alt="singular values of the delta, layer by layer")
        self.layers = Picture(720, 420, alt="norm of the delta, layer by layer")
        super().__init__(
            [self.cut, self.values, self.layers], alt="explorable: what the delta is made of"
        )
        self.cut.observe(self.refresh, names="value")
        with self.layers.drawing() as ax:
            draw_layers(ax, spectra)
        self.refresh()

    @shown
    def refresh(self, change=None) -> None:
        cut = self.cut.value
        with self.values.drawing() as ax:
            draw_spectrum(ax, self.spectra, cut=cut, concept=self.method)
        share = median(spectrum.energy(cut) for spectrum in self.spectra)
        chance = median(energy(spectrum.random, cut) for spectrum in self.spectra)
        self.values.text = (
            f"the first {cut} singular values of a layer hold {share:.0%} of its delta's energy, "
            f"those of a random matrix of the same shape and rank {chance:.0%}"
        )
