"""Full fine-tuning and several ranks of LoRA, side by side on the same batches, live.

Every runner has the same examples in the same order, and its own optimizer state; full fine-tuning
has its method's learning rate, and the ranks share one. Alpha is the same for all, or twice the
rank, so that alpha / rank is.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import ipywidgets

from lorakit.plots import COLORS, draw_by_rank, draw_curves
from lorakit.plots.curves import MARKERS, shades
from lorakit.run import Progress, Run
from lorakit.scoring import Score
from lorakit.stacked import Stack
from lorakit.sweep import stack_runs
from lorakit.text import Encoded
from lorakit.widgets.job import Job
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import choice, dropdown, slider

RANKS = (1, 2, 4, 8, 16, 32)
RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2)
FIXED, TWICE = "fixed", "2 x rank"  # alpha
FULL = "full"
MOST = 100  # held-out examples that judge: about a second
AT_ONCE = 2**13  # tokens that are judged together: more are slower on a CPU


class RaceExplorer(Job):
    """Settings -> two stacks, stepped in turns in a thread -> live curves, `losses`, `scores`.

    `ranks` are those that may race, `tasks` others than the run's own, and `lr` is LoRA's at the
    start, by default the one that suits it. Both results are by the name of a runner: "full",
    "rank 8". Stopped before its end, a race is not judged.
    """

    def __init__(
        self,
        run: Run,
        ranks: Sequence[int] = RANKS,
        full: bool = True,
        tasks: Sequence[str] = (),
        lr: float | None = None,
    ):
        if not ranks or list(ranks) != sorted(set(ranks)):
            raise ValueError(f"ranks must be different and rise, at least one, got {tuple(ranks)}")
        self._run, self._full, self._styles = run, full, _styles(ranks)
        self.task = dropdown("task", list(dict.fromkeys([run.task, *tasks])), run.task)
        self.ranks = dropdown("ranks", _sets(tuple(ranks)), tuple(ranks))
        self.alpha = choice("alpha", [FIXED, TWICE], FIXED)
        self.alpha.tooltips = [f"{run.alpha:g} for every rank", "alpha / rank is 2 for every rank"]
        self.lr = slider("LoRA's lr", RATES, lr or run.with_method("lora").learning_rate)
        self.controls = (self.task, self.ranks, self.alpha, self.lr)
        self.losses: dict[str, list[float]] = {}
        self.scores: dict[str, Score] = {}
        self.picture = Picture(860, 380, alt="loss by step, of every runner")
        self.match = Picture(430, 270, alt="exact match by rank")
        self.loss = Picture(430, 270, alt="held-out loss by rank")
        super().__init__(
            self.controls,
            [self.picture, ipywidgets.HBox([self.match, self.loss])],
            alt="explorable: a race of full fine-tuning and LoRA's ranks",
        )
        self._begin(self.runs)

    @property
    def runs(self) -> dict[str, Run]:
        """The runners that the controls stand for, by name."""
        run = replace(self._run, task=self.task.value, heldout=min(MOST, self._run.heldout))
        lora = replace(run.with_method("lora"), lr=self.lr.value)
        found = {FULL: run.with_method("full")} if self._full else {}
        for rank in self.ranks.value:
            alpha = 2.0 * rank if self.alpha.value == TWICE else run.alpha
            found[_name(rank)] = replace(lora, rank=rank, alpha=alpha)
        return found

    def work(self) -> str:
        runs = self.runs
        self._begin(runs)
        self.show(Progress(stage="loading the base"))
        teams = [
            (names, *stack_runs([runs[name] for name in names]))
            for names in ([FULL], [name for name in runs if name != FULL])
            if names[0] in runs
        ]
        steps, dead = self._run.steps, list[str]()
        began = time.monotonic()
        for done in range(1, steps + 1):
            if self.stopping():
                break
            for names, stack, _ in teams:
                for name, loss in zip(names, stack.step().tolist(), strict=True):
                    self.losses[name].append(loss)
            self.advance("racing", done, steps, began=began)
            if self.due():
                self._draw(dead)
        for names, stack, _ in teams:
            alive = stack.alive.tolist()
            dead += [name for name, lives in zip(names, alive, strict=True) if not lives]
        self._draw(dead)
        if not self.stopping():
            self.show(Progress(stage="judging", done=steps, total=steps))
            for names, stack, judged in teams:
                self.scores |= self._judge(names, stack, judged.heldout)
            self._draw_scores(runs)
        done = min(map(len, self.losses.values()))
        spent = time.monotonic() - began
        named = ((name if name == FULL else "LoRA", run) for name, run in runs.items())
        rates = _listed({name: f"{run.learning_rate:g}" for name, run in named})
        stopped = "stopped: " if self.stopping() else ""
        done_so_far = f"{done} of {steps} steps of {len(runs)} runs in {spent:.0f} s"
        return f"{stopped}{done_so_far}; learning rates: {rates}"

    def _judge(
        self, names: Sequence[str], stack: Stack, examples: Sequence[Encoded]
    ) -> dict[str, Score]:
        scores = stack.score(examples, tokens_at_once=AT_ONCE)
        return dict(zip(names, scores, strict=True))

    def _begin(self, runs: dict[str, Run]) -> None:
        self.losses, self.scores = {name: [] for name in runs}, {}
        self._draw(())
        self._draw_scores(runs)

    def _draw(self, dead: Sequence[str]) -> None:
        styles = {name: self._styles[name] for name in self.losses}
        with self.picture.drawing(blit=True) as ax:
            draw_curves(ax, self.losses, styles=styles, total_steps=self._run.steps, y="loss")
        done = min(map(len, self.losses.values()))
        self.picture.text = "no step yet"
        if done:
            self.picture.text = f"loss at step {done}: " + _listed(
                {
                    name: "diverged" if name in dead else f"{losses[-1]:.3g}"
                    for name, losses in self.losses.items()
                }
            )

    def _draw_scores(self, runs: dict[str, Run]) -> None:
        ranks = [run.rank for name, run in runs.items() if name != FULL]
        for picture, what in ((self.match, "exact match"), (self.loss, "loss")):
            found = {name: _number(score, what) for name, score in self.scores.items()}
            full = found.pop(FULL, None)
            by_rank = {runs[name].rank: number for name, number in found.items()}
            with picture.drawing(blit=True) as ax:
                draw_by_rank(ax, what, ranks, by_rank, full=full)
        self.match.text = self.loss.text = "not judged yet"
        if self.scores:
            count = next(iter(self.scores.values())).count
            matches = {name: f"{score.exact_match:.2f}" for name, score in self.scores.items()}
            losses = {name: f"{score.loss:.3g}" for name, score in self.scores.items()}
            self.match.text = f"exact match of {count} held out: {_listed(matches)}"
            self.loss.text = f"loss on {count} held out: {_listed(losses)}"


def _sets(ranks: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """All ranks, every second, the two ends, and each alone, in words."""
    some = [ranks, ranks[::2], (ranks[0], ranks[-1]), *((rank,) for rank in ranks)]
    return {", ".join(map(str, ranks)): ranks for ranks in some}


def _styles(ranks: Sequence[int]) -> dict[str, dict[str, Any]]:
    """By the name of a runner, its line: LoRA's blue is darker the higher the rank."""
    kinds = zip(ranks, shades("lora", len(ranks)), cycle(MARKERS))
    ranked = {_name(rank): {"color": color, "marker": marker} for rank, color, marker in kinds}
    return {FULL: {"color": COLORS["full"], "linewidth": 3}, **ranked}


def _name(rank: int) -> str:
    return f"rank {rank}"


def _listed(words: dict[str, str]) -> str:
    return ", ".join(f"{name}: {word}" for name, word in words.items())


def _number(score: Score, what: str) -> float:
    return score.exact_match if what == "exact match" else score.loss
