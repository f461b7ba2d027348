"""What runs have learnt: singular values against chance, a rank to cut at, and alpha afterwards."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

import ipywidgets

from lorakit.merging import rescaled, twin
from lorakit.plots import draw_layers, draw_spectrum
from lorakit.run import Result
from lorakit.scoring import Score, score
from lorakit.spectrum import Spectrum, energy
from lorakit.tasks import load_task
from lorakit.text import encode_example
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture, caption
from lorakit.widgets.settings import ALPHAS, dropdown, slider

CUTS = (1, 2, 4, 8, 16, 32, 64)
ALL = "all layers"


def on_show(results: Mapping[str, Result], layer: str, alpha: float) -> dict[str, list[Spectrum]]:
    """The spectra of one layer or all, by method; LoRA's delta is multiplied from its alpha's.

    A method that did not train the layer is left out.
    """
    found = {
        method: [
            spectrum.scaled(alpha / result.run.alpha) if result.run.lora else spectrum
            for spectrum in result.spectra
            if layer in (ALL, spectrum.layer)
        ]
        for method, result in results.items()
    }
    return {method: spectra for method, spectra in found.items() if spectra}


def rescored(
    result: Result, alpha: float, progress: Callable[[int], None] = lambda done: None
) -> Score:
    """The finished adapter with another alpha, on the run's held-out examples; nothing trains.

    `progress` hears how many are judged.
    """
    examples = load_task(result.run.task).heldout[: result.run.heldout]
    encoded = [encode_example(result.tokenizer, example) for example in examples]
    # A slider's callback may run beside a cell that uses the model: it is left alone.
    model = twin(result.model)
    with rescaled(model, alpha):
        found = score(model, encoded, pad_id=result.tokenizer.pad_id, progress=progress)
    assert found is not None  # nothing stops it
    return found


def describe(spectra: Mapping[str, Sequence[Spectrum]], cut: int) -> str:
    """How much of each delta's energy the first `cut` values hold, and how much by chance."""
    parts = []
    for method, layers in spectra.items():
        share = median(spectrum.energy(cut) for spectrum in layers)
        chance = median(energy(spectrum.random, cut) for spectrum in layers)
        parts.append(f"{share:.0%} of {method}'s energy (random: {chance:.0%})")
    values = f"first {cut} singular values hold" if cut > 1 else "first singular value holds"
    return f"the {values} {' and '.join(parts)}"


class SpectrumExplorer(Explorable):
    """Results of runs; a layer, a rank to cut at, alpha -> spectra, energies, the loss rescaled.

    At most one result a method. The run's held-out examples tell what another alpha does to the
    finished adapter.
    """

    def __init__(self, *results: Result):
        self.results = {result.run.method: result for result in results}
        methods = [result.run.method for result in results]
        if len({result.run.lora is None for result in results}) != len(results) or not results:
            raise ValueError(f"give a result of full, one of lora, or both, got {methods}")
        spectra = [s for result in results for s in result.spectra]
        longest = max(len(spectrum.values) for spectrum in spectra)
        names = {s.layer.removeprefix("model.layers."): s.layer for s in spectra}
        self.layer = dropdown("layer", {ALL: ALL, **names}, ALL)
        self.cut = slider("cut at rank", [cut for cut in CUTS if cut <= longest], 1)
        self.controls: list[ipywidgets.Widget] = [self.layer, self.cut]
        self.values = Picture(720, 400, alt="singular values of the delta")
        self.maps = [
            Picture(720, 300, alt=f"where {method} changed the weights") for method in self.results
        ]
        self.loss = caption()
        self._adapted = next((result for result in results if result.run.lora), None)
        if self._adapted is not None:
            alpha = self._adapted.run.alpha
            self.alpha = slider("alpha", ALPHAS, alpha, on_release=True)
            self.controls.append(self.alpha)
            after = self._adapted.after
            self.scores: dict[float, Score] = {} if after is None else {alpha: after}
        super().__init__(
            [*self.controls, self.loss, self.values, *self.maps],
            alt="explorable: what the delta is made of",
        )
        for control in self.controls:
            control.observe(self.refresh, names="value")
        for picture, result in zip(self.maps, results, strict=True):
            with picture.drawing() as ax:
                draw_layers(ax, result.spectra, concept=result.run.method)
            picture.text = (
                f"{result.run.method}: the norm of each layer's delta, over that of its weight; "
                "as trained"
            )
        self.refresh()

    @property
    def spectra(self) -> dict[str, list[Spectrum]]:
        """What the controls stand for, by method."""
        alpha = self.alpha.value if self._adapted else 1.0
        return on_show(self.results, self.layer.value, alpha)

    @shown
    def refresh(self, change=None) -> None:
        with self.values.drawing(blit=True) as ax:
            spectra, cut = self.spectra, self.cut.value  # read here: the last to draw has the last
            draw_spectrum(ax, spectra, cut=cut)
            self.values.text = f"{self.layer.label}: {describe(spectra, cut)}"
        if self._adapted is not None:
            self._judge(self._adapted, self.alpha.value)

    def _judge(self, lora: Result, alpha: float) -> None:
        """Say what the finished adapter is worth with this alpha; each is judged once."""
        if alpha not in self.scores:

            def tell(done: int) -> None:
                self.loss.value = f"alpha {alpha:g}: judging, {done} of {lora.run.heldout}"

            tell(0)
            self.scores[alpha] = rescored(lora, alpha, tell)
        found = self.scores[alpha]
        how = "as trained" if alpha == lora.run.alpha else "rescaled, not retrained"
        scale = alpha / lora.run.rank
        self.loss.value = (
            f"LoRA's delta with alpha {alpha:g} ({how}), alpha / rank = {scale:g}: loss "
            f"{found.loss:.3g}, {found.right} of {found.count} held-out answers right"
        )

    def close(self) -> None:
        """Take it off the page, and let go of the models."""
        super().close()
        self.results, self._adapted = {}, None
