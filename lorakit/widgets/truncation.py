"""How many directions of a full fine-tune are needed: its delta cut at a rank, and judged again."""

import copy
import threading
from collections.abc import Sequence
from statistics import median

import ipywidgets

from lorakit.checkpoint import load_base
from lorakit.deltas import Delta, cut, deltas, extract, random_deltas
from lorakit.model import Llama
from lorakit.plots import draw_cut, draw_scores
from lorakit.run import Result
from lorakit.scoring import Score, score
from lorakit.spectrum import Spectrum, energy
from lorakit.tasks import load_task
from lorakit.text import Encoded, encode_example
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.later import Later
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import choice, slider

LEAST = 64  # held-out examples that judge, if the task has them
TRAINED, BASE = "as trained", "of the base"


class TruncationExplorer(Explorable):
    """A full fine-tune's result; a rank, and whose embedding and norms -> the cut model's score.

    Each layer's delta keeps its first directions, and so does a random delta of its norm, the
    control group. The line follows the slider; the cut model is judged when the slider rests, and
    each choice once. Takes a singular value decomposition of every layer: made for small models.
    """

    def __init__(self, result: Result):
        self._later = Later(self._judge, seconds=0.05)
        if result.run.method != "full":
            raise ValueError(
                f"a delta to cut is that of a full fine-tune, got a run of {result.run.method!r}: "
                'give a result of Run(method="full")'
            )
        self.result: Result | None = result
        weight = result.model.lm_head.weight
        base, _ = load_base(result.run.base, dtype=weight.dtype, device=weight.device)
        self.base: Llama | None = base
        self.deltas = deltas(result.model, base)
        self.chance = random_deltas(self.deltas)
        self.spectra = [delta.spectrum for delta in self.deltas]
        self.examples = _examples(result)
        self._plain: Llama | None = copy.deepcopy(base)
        self._cutting = threading.Lock()
        self.cuts: dict[tuple[str, int], Score] = {}  # by rest and rank
        self.chances: dict[tuple[str, int], Score] = {}
        most = max(len(delta.values) for delta in self.deltas)
        ranks = [0, *(2**n for n in range(most.bit_length()) if 2**n < most), most]
        self.rank = slider("rank", ranks, min(8, most))
        self.ranks = tuple(rank for _, rank in self.rank.options)
        self.rest = choice("other weights", [TRAINED, BASE], TRAINED)
        self.rest.tooltips = ["embedding and norms stay", "embedding and norms go back, too"]
        self.values = Picture(800, 330, alt="singular values of the delta, cut at a rank")
        self.match = Picture(400, 300, alt="exact match by rank")
        self.loss = Picture(400, 300, alt="loss by rank")
        self.status = ipywidgets.Label("")
        super().__init__(
            [
                self.rank,
                self.rest,
                self.status,
                self.values,
                ipywidgets.HBox([self.match, self.loss]),
            ],
            alt="explorable: a full fine-tune cut to a few directions",
        )
        self.whole = self._known(result.after) or self._score(result.model)
        self.before = self._known(result.before) or self._score(base)
        self.rank.observe(self.refresh, names="value")
        self.rest.observe(self.refresh, names="value")
        self.refresh()

    @shown
    def refresh(self, change=None) -> None:
        with self.values.drawing(blit=True) as ax:
            rank = self.rank.value
            draw_cut(ax, self.spectra, cut=rank)
            self.values.text = describe(self.spectra, rank)
        self._later.ask()

    @shown
    def _judge(self) -> None:
        """Judge what the controls stand for, each choice once, and show it; chance comes after."""
        rest, rank = key = self.rest.value, self.rank.value
        if key not in self.cuts:
            self.cuts[key] = self._cut_and_score(self.deltas, rank, rest)
        if key not in self.chances:
            self._show(rest, rank)
            self.chances[key] = self._cut_and_score(self.chance, rank, rest)
        self._show(rest, rank)

    def scores(self) -> tuple[Score, Score]:
        """Of what the controls stand for, and of its control group; judged here if they are not.

        A cell that moves a slider need not wait for it to rest.
        """
        self._later.cancel()
        self._judge()
        key = self.rest.value, self.rank.value
        return self.cuts[key], self.chances[key]

    def _show(self, rest: str, rank: int) -> None:
        """Draw and say what is known so far of the cuts with these other weights."""
        found = {
            "cut": self.cuts[rest, rank],
            "random delta": self.chances.get((rest, rank)),
            "whole fine-tune": self.whole,
            "base": self.before,
        }
        for picture, what in ((self.match, "exact match"), (self.loss, "loss")):
            cuts, chances = (
                {k: _number(s, what) for (whose, k), s in scores.items() if whose == rest}
                for scores in (self.cuts, self.chances)
            )
            whole, base = _number(self.whole, what), _number(self.before, what)
            with picture.drawing(blit=True) as ax:
                draw_scores(ax, what, self.ranks, cuts, chances, whole=whole, base=base, now=rank)
        where = f"rank {rank}, other weights {rest}"
        right = ", ".join(f"{name} {s.right if s else '...'}" for name, s in found.items())
        loss = ", ".join(f"{name} {f'{s.loss:.3g}' if s else '...'}" for name, s in found.items())
        self.match.text = f"{where}, right of {len(self.examples)}: {right}"
        self.loss.text = f"{where}, loss: {loss}"

    def _cut_and_score(self, changes: Sequence[Delta], rank: int, rest: str) -> Score:
        with self._cutting:  # one model for all: what is cut is what is judged
            assert self.result and self.base and self._plain
            source = self.result.model if rest == TRAINED else self.base
            cut(self._plain, self.base, changes, rank, rest=source)
            return self._score(self._plain)

    def _score(self, model: Llama) -> Score:
        assert self.result is not None

        def tell(done: int) -> None:
            self.status.value = f"judging, {done} of {len(self.examples)}"

        pad_id = self.result.tokenizer.pad_id
        try:
            found = score(model, self.examples, pad_id=pad_id, batch_size=32, progress=tell)
        finally:
            self.status.value = ""
        assert found is not None  # nothing stops it
        return found

    def _known(self, found: Score | None) -> Score | None:
        """The run's own score, if the same examples gave it."""
        return found if found is not None and found.count == len(self.examples) else None

    def adapter(self, rank: int | None = None) -> Llama:
        """The base with adapters that hold the cut delta, by default at the slider's rank.

        `save_adapter` writes it as a file that PEFT reads. Embedding and norms are the base's.
        Raises ValueError for rank 0, of which there is no adapter, or if it is closed.
        """
        if self.base is None:
            raise ValueError("the explorable is closed and its models are gone: make another")
        return extract(self.base, self.deltas, self.rank.value if rank is None else rank)

    def close(self) -> None:
        """Take it off the page, and let go of the models and their deltas."""
        self._later.cancel()
        super().close()
        self.result = self.base = self._plain = None
        self.deltas, self.chance = [], []


def describe(spectra: Sequence[Spectrum], rank: int) -> str:
    """How much of the deltas' energy the first `rank` values hold, and how much by chance."""
    share = median(spectrum.energy(rank) for spectrum in spectra)
    chance = median(energy(spectrum.random, rank) for spectrum in spectra)
    most = max(len(spectrum.values) for spectrum in spectra)
    return (
        f"rank {rank} of {most}: keeps {share:.1%} of the delta's energy, of a random delta's "
        f"{chance:.1%} (medians over {len(spectra)} layers)"
    )


def _examples(result: Result) -> list[Encoded]:
    heldout = load_task(result.run.task).heldout[: max(LEAST, result.run.heldout)]
    return [encode_example(result.tokenizer, example) for example in heldout]


def _number(found: Score, what: str) -> float:
    return found.exact_match if what == "exact match" else found.loss
