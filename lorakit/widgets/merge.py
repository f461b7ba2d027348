"""What merging would lose, live: a small delta beside its weight is rounded away."""

import threading

import torch

from lorakit.merge_cost import MergeCost, logit_change, merge_cost, share
from lorakit.merging import rescaled, twin
from lorakit.model import Llama
from lorakit.plots import draw_merge
from lorakit.plots.style import log_limits
from lorakit.run import Result
from lorakit.tasks import load_task
from lorakit.text import collate, encode_example
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import choice, slider

DTYPES = ("float32", "float16", "bfloat16")
ALPHAS = (1 / 64, 1 / 16, 1 / 4, 1, 4, 16, 64, 256)
PROBE = 8  # held-out examples that the logits are of


class MergeExplorer(Explorable):
    """A LoRA result; alpha, a dtype -> `merge_cost` in three dtypes -> a dot a layer, and a line.

    Nothing is merged in the result's model. `costs` are those on show, by dtype, and `change` is
    how far the merge in the chosen dtype moves a logit, as a share of the largest. What is measured
    is known as long as no number of the model changes.
    """

    def __init__(self, result: Result):
        if result.run.lora is None:
            raise ValueError(
                f"a merge needs adapters, got a run of {result.run.method!r}: give a result of "
                'Run(method="lora")'
            )
        self.model: Llama | None = twin(result.model)
        heldout = load_task(result.run.task).heldout[:PROBE]
        encoded = [encode_example(result.tokenizer, example) for example in heldout]
        tokens, _ = collate(encoded, result.tokenizer.pad_id)
        self.tokens = tokens.to(result.model.lm_head.weight.device)
        self.costs: dict[str, MergeCost] = {}
        self.change = 0.0
        self._known: dict[tuple, tuple[dict[str, MergeCost], float]] = {}
        self._rescaling = threading.Lock()
        self.alpha = slider("alpha", ALPHAS, result.run.alpha)
        self.dtype = choice("merged in", DTYPES, "bfloat16")
        self.picture = Picture(800, 380, alt="share of the delta that a merge loses, by layer")
        super().__init__(
            [self.alpha, self.dtype, self.picture], alt="explorable: what merging an adapter loses"
        )
        alphas = [alpha for _, alpha in self.alpha.options]
        layers = merge_cost(self.model).layers
        scales = [a / result.run.alpha for a in (alphas[0], alphas[-1])]
        self._sizes = log_limits([cost.size * scale for cost in layers for scale in scales])
        for control in (self.alpha, self.dtype):
            control.observe(self.refresh, names="value")
        self.refresh()

    @shown
    def refresh(self, change=None) -> None:
        if self.model is None:
            raise ValueError("the explorable is closed and its model is gone: make another")
        with self._rescaling:  # one model for all: what is measured is what is shown
            alpha, chosen = self.alpha.value, self.dtype.value
            numbers = sum(p._version for p in self.model.parameters())  # how often they changed
            if (at := (numbers, alpha, chosen)) not in self._known:
                self._known[at] = self._measure(self.model, alpha, chosen)
            self.costs, self.change = self._known[at]
            with self.picture.drawing(blit=True) as ax:
                draw_merge(ax, self.costs, chosen, sizes=self._sizes)
            self.picture.text = describe(self.costs[chosen], alpha, self.change)

    def _measure(
        self, model: Llama, alpha: float, chosen: str
    ) -> tuple[dict[str, MergeCost], float]:
        with rescaled(model, alpha):
            costs = {name: merge_cost(model, getattr(torch, name)) for name in DTYPES}
            return costs, logit_change(model, self.tokens, getattr(torch, chosen))

    def close(self) -> None:
        """Take it off the page, and let go of the model."""
        super().close()
        self.model = None


def describe(cost: MergeCost, alpha: float, change: float) -> str:
    """What a merge at this alpha loses, and how far it moves a logit at most."""
    return (
        f"alpha {alpha:g}, merged in {cost.dtype}: {_told(cost.loss)} of the delta is lost (median "
        f"of {len(cost.layers)} layers), {_told(cost.unchanged)} of the entries do not change; a "
        f"logit moves by {_told(change)} of the largest, at most"
    )


def _told(part: float) -> str:
    return "under 0.001%" if 0 < part < 1e-5 else share(part)
