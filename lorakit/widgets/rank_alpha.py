"""Rank, alpha and learning rate: a short training for every setting, and how far the output moves.

    y = W x + multiplier * B A x        multiplier = alpha / r, or alpha / sqrt(r)

arXiv 2106.09685, section 4.1, divides by r; rank-stabilised LoRA (arXiv 2312.03732) by sqrt(r), so
that a high rank learns no slower.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ipywidgets
import torch
from torch import Tensor, nn

from lorakit.begin import begin
from lorakit.checkpoint import load_base
from lorakit.plots import COLORS, draw_curves
from lorakit.plots.curves import Style, mixed
from lorakit.plots.style import TIMES
from lorakit.run import Progress, Run
from lorakit.tasks import load_task
from lorakit.text import collate, encode_example
from lorakit.train import Diverged
from lorakit.widgets.explorable import shown
from lorakit.widgets.job import Job
from lorakit.widgets.later import Later
from lorakit.widgets.picture import Picture, caption
from lorakit.widgets.settings import ALPHAS, RANKS, choice, slider

RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0)
PLAIN, STABLE = "alpha / r", "alpha / sqrt(r)"
# Of earlier settings, from the last on back: so many stay in the pictures.
FAINT: tuple[dict[str, Any], ...] = ({"linestyle": "-"}, {"linestyle": "--"}, {"linestyle": ":"})
KEPT = len(FAINT)
PROBE = 8  # held-out examples on which the output is compared with the base's


@dataclass
class Trial:
    """One setting's training, as far as it is: after each step the loss before it, and the change.

    The change is ||logits - base's logits|| / ||base's logits|| on the same held-out examples.
    """

    run: Run
    losses: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    diverged: str = ""  # what was not finite, in words

    @property
    def ended(self) -> bool:
        """Whether it was trained to its end, one way or the other."""
        return bool(self.diverged) or len(self.losses) == self.run.steps

    @property
    def name(self) -> str:
        """rank 8, ×2, lr 0.005: what decides the training."""
        assert self.run.lora is not None
        scale = f"{TIMES}{self.run.lora.scale:.3g}"
        return f"rank {self.run.rank}, {scale}, lr {self.run.learning_rate:g}"


class RankAlphaExplorer(Job):
    """Sliders -> `begin`, trained anew in a thread when they rest -> two live pictures, `trials`.

    A setting that is asked for while another trains stops that one: nothing queues. `run` says how
    long a training is; `trials` are the settings tried, the last one at the end.
    """

    def __init__(self, run: Run):
        self._later = Later(self._train_anew)
        if run.lora is None:
            raise ValueError("full fine-tuning has no rank and no alpha: use a run with lora")
        self._run = run
        self.rank = slider("rank", RANKS, run.rank)
        self.alpha = slider("alpha", ALPHAS, run.alpha)
        self.lr = slider("learning rate", RATES, run.learning_rate)
        self.divisor = choice("multiplier", [PLAIN, STABLE], PLAIN)
        self.controls = (self.rank, self.alpha, self.divisor, self.lr)
        self.multiplier = caption()
        self.clear = ipywidgets.Button(description="Clear", icon="eraser")
        self.clear.tooltip = "forget the earlier settings"
        self.trials: list[Trial] = []
        self.loss = Picture(860, 300, alt="loss by step, of the last settings")
        self.change = Picture(860, 300, alt="change of the output by step, of the last settings")
        super().__init__(
            [*self.controls, self.multiplier, self.clear],
            [self.loss, self.change],
            alt="explorable: rank, alpha and learning rate",
        )
        for control in self.controls:
            control.observe(self.refresh, names="value")
        self.clear.on_click(self._forget)
        self._tell()
        self._draw()

    @property
    def run(self) -> Run:
        """What the controls stand for; alpha / sqrt(r) is a larger alpha over r."""
        rank, alpha = self.rank.value, float(self.alpha.value)
        if self.divisor.value == STABLE:
            alpha *= math.sqrt(rank)
        return replace(self._run, rank=rank, alpha=alpha, lr=self.lr.value)

    @shown
    def refresh(self, change=None) -> None:
        self._tell()
        self._later.ask()

    def _tell(self) -> None:
        rank, alpha = self.rank.value, self.alpha.value
        below = f"sqrt({rank})" if self.divisor.value == STABLE else f"{rank}"
        lora = self.run.lora
        assert lora is not None
        self.multiplier.value = f"{self.divisor.value} = {alpha:g} / {below} = {lora.scale:.3g}"

    def trial(self) -> Trial:
        """The training of what the controls stand for, done here and now if it is yet to be done.

        A cell that moves a slider need not wait for it to rest.
        """
        self._later.cancel()
        if self.running:
            self._stopping.set()
            self._thread.join(60)
        if not (self.trials and self.trials[-1].ended and self.trials[-1].run == self.run):
            self.go(wait=True)
        return self.trials[-1]

    @shown
    def _train_anew(self) -> None:
        """Train what the controls stand for; what trains now is stopped, and ends in a step."""
        if self.running:
            self._stopping.set()
            self._thread.join(60)
        self._on_start(None)

    def work(self) -> str:
        run = self.run
        self.show(Progress(stage="loading the base"))
        training = begin(run)
        change = changing(run, training.model)
        earlier = [trial for trial in self.trials if trial.ended and trial.run != run]
        trial = Trial(run)
        self.trials = [*earlier[-KEPT:], trial]
        began = time.monotonic()
        while training.position < run.steps and not self.stopping():
            try:
                record = training.step(stop=self.stopping)
            except Diverged as error:
                trial.diverged = str(error)
                break
            if record is None:
                break
            trial.changes.append(change())
            trial.losses.append(record.loss)
            self.advance("training", training.position, run.steps, began=began)
            if self.due():
                self._draw()
        self._draw()
        return f"{training.position} of {run.steps} steps"

    @shown
    def _forget(self, button) -> None:
        self.trials = self.trials[-1:]
        self._draw()

    def _draw(self) -> None:
        trials = self.trials
        styles = _styles(trials)
        for picture, y, attribute in (
            (self.loss, "loss", "losses"),
            (self.change, "change of the output", "changes"),
        ):
            curves = {trial.name: list(getattr(trial, attribute)) for trial in trials}
            with picture.drawing(blit=True) as ax:
                draw_curves(ax, curves, styles=styles, total_steps=self._run.steps, y=y)
        self.loss.text, self.change.text = (
            describe(trials[-1]) if trials else ("not trained yet",) * 2
        )

    def close(self) -> None:
        """Take it off the page; a training that is alive is stopped."""
        self._later.cancel()
        super().close()


def changing(run: Run, model: nn.Module) -> Callable[[], float]:
    """Asked after a step, it says how far the output of `model` is from the base's, as a share.

    Frobenius norms over the logits of all tokens of the first `PROBE` held-out examples.
    """
    weight = next(model.parameters())  # the embedding: the base's own precision
    base, tokenizer = load_base(run.base, dtype=weight.dtype, device=weight.device)
    heldout = load_task(run.task).heldout[:PROBE]
    encoded = [encode_example(tokenizer, example) for example in heldout]
    tokens, _ = collate(encoded, tokenizer.pad_id)
    tokens = tokens.to(weight.device)
    lengths = torch.tensor([len(example.tokens) for example in encoded], device=weight.device)
    real = torch.arange(tokens.shape[1], device=weight.device) < lengths[:, None]

    def logits(net: nn.Module) -> Tensor:
        with torch.no_grad():
            return net(tokens)[real].float()

    before = logits(base)
    norm = before.norm()
    return lambda: ((logits(model) - before).norm() / norm).item()


def describe(trial: Trial) -> tuple[str, str]:
    """What there is to say of its losses, and of its changes."""
    if not trial.losses:
        return (f"{trial.name}: {trial.diverged or 'no step yet'}",) * 2
    loss = f"{trial.name}: loss {trial.losses[0]:.3g} at first"
    loss += f", {trial.losses[-1]:.3g} at step {len(trial.losses)}"
    if trial.diverged:
        loss += f"; then it diverged: {trial.diverged}"
    change = (
        f"{trial.name}: the output has moved by {trial.changes[0]:.3g} of its size after one step, "
        f"by {trial.changes[-1]:.3g} after {len(trial.changes)}"
    )
    return loss, change


def _styles(trials: Sequence[Trial]) -> dict[str, Style]:
    """By name the line of each: faint and without a mark, but for the last."""
    pale = {"color": mixed(COLORS["lora"], "white", 0.5), "linewidth": 1.5, "marker": ""}
    found: dict[str, Style] = {
        trial.name: {"color": COLORS["lora"], "linewidth": 3} for trial in trials[-1:]
    }
    for trial, style in zip(reversed(trials[:-1]), FAINT, strict=False):
        found[trial.name] = pale | style
    return found
