"""Many runs as one program, each with its own weights, data, schedule and optimizer state.

The model is the real one with stacked layers in place of its own. A run meets the same batches,
learning rates, clipping and AdamW as in `train.py`, and ends with the same weights up to rounding.
Small runs fill a GPU only together; on a CPU a stack takes as long as its runs one by one. A small
stack leaves a GPU idle between its kernels: there the whole step is one CUDA graph (capture.py).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorakit.capture import Captured
from lorakit.lora import LoRAConfig, inject, lora_layers, unfreeze
from lorakit.model import Llama
from lorakit.scoring import Score
from lorakit.stacked_adamw import StackedAdamW
from lorakit.stacked_layers import stack_adapters, stack_weights
from lorakit.step import TrainConfig
from lorakit.text import IGNORE, Batches, Encoded, collate

SMALL = 16  # runs: so many or fewer are captured where it can be done


@dataclass(frozen=True)
class StackedRun:
    """One run of a stack: its adapter (None trains every weight), data and schedule."""

    lora: LoRAConfig | None
    batches: Batches
    config: TrainConfig
    seed: int = 0  # of the adapter


class Stack:
    """Several runs in progress over one base, all LoRA or all full, each with its own everything.

    `capture` says whether a step is one CUDA graph: None, on a GPU and up to `SMALL` runs. Raises
    ValueError, naming the field, if runs differ in what one program cannot vary: method, targets,
    dropout, number of steps, batch size, accumulation; or if `capture` asks for a GPU's graph
    elsewhere.
    """

    def __init__(self, base: Llama, runs: Sequence[StackedRun], *, capture: bool | None = None):
        _check_alike(runs)
        self.runs = list(runs)
        self.base = base
        self.device = base.lm_head.weight.device
        can = self.device.type == "cuda"
        if capture and not can:
            raise ValueError(
                f"capture=True needs a base on a GPU, this one is on {self.device}: leave it out"
            )
        self.captures = can and len(self.runs) <= SMALL if capture is None else capture
        self.model = copy.deepcopy(base)
        if runs[0].lora is None:
            stack_weights(self.model, len(runs))
        else:
            generators = [torch.Generator().manual_seed(run.seed) for run in runs]
            stack_adapters(self.model, [run.lora for run in runs if run.lora], generators)
        self.parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.adamw = StackedAdamW(self.parameters.values(), [run.config for run in runs])
        self.position = 0
        self._captured: Captured | None = None

    @property
    def steps(self) -> int:
        return self.runs[0].config.steps

    @property
    def alive(self) -> Tensor:
        """Which runs have met nothing but finite losses and gradients, (runs,)."""
        return self.adamw.alive

    def step(self) -> Tensor:
        """One update of every run; the losses (runs,), mean over each run's response tokens.

        A run whose loss or gradient is not finite is dead from then on: its weights stay. Does not
        wait for a GPU: whoever reads the losses does.
        """
        self.position += 1
        tokens, labels = self._batch(self.position - 1)
        lr, *shares = self.adamw.schedule(self.position)
        self.model.train()
        if not self.captures:
            tokens, labels, lr = (t.to(self.device) for t in (tokens, labels, lr))
            return self._advance(tokens, labels, lr, *shares)
        inputs = (tokens, labels, lr, *torch.tensor(shares, dtype=torch.float64))
        if self._captured is None:  # not before: until now the weights were anyone's to exchange
            self._captured = Captured(
                self._advance, [t.to(self.device) for t in inputs], state=self.adamw.state
            )
        return self._captured(*inputs)

    def _advance(
        self,
        tokens: Tensor,
        labels: Tensor,
        lr: Tensor,
        first_share: Tensor | float,
        second_share: Tensor | float,
    ) -> Tensor:
        """A step as a function of tensors, which a graph can hold; it changes tensors alone."""
        losses = self._losses(tokens, labels)
        count = (labels[:, 1:] != IGNORE).view(len(self.runs), -1).sum(1)
        means = losses / count
        grads = torch.autograd.grad(means.sum(), list(self.parameters.values()))
        self.adamw.update(grads, means.detach(), lr, first_share, second_share)
        return means.detach()

    def _batch(self, position: int) -> tuple[Tensor, Tensor]:
        """Tokens and labels (runs * batch, longest), on the CPU; what runs share is made once.

        The longest is the batch's own; of a captured step the data's, as its shapes are fixed.
        """
        shared = {id(run.batches): run.batches for run in self.runs}
        made = {key: batches.batch(position) for key, batches in shared.items()}
        if self.captures:
            longest = max(batches.longest for batches in shared.values())
        else:
            longest = max(tokens.shape[1] for tokens, _ in made.values())

        def joined(part: int, filler: int) -> Tensor:
            padded = {
                key: F.pad(pair[part], (0, longest - pair[part].shape[1]), value=filler)
                for key, pair in made.items()
            }
            return torch.cat([padded[id(run.batches)] for run in self.runs])

        return joined(0, self.runs[0].batches.pad_id), joined(1, IGNORE)

    def _losses(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """The summed loss of each run's response tokens, (runs,)."""
        logits = self.model(tokens)[:, :-1].float()
        losses = F.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="none"
        )
        return losses.view(len(self.runs), -1).sum(1)

    def plain(self) -> Llama:
        """The base as a full stack: weights to be exchanged, then judged by `score`."""
        model = copy.deepcopy(self.base)
        stack_weights(model, len(self.runs))
        return model

    @torch.no_grad()
    def score(
        self,
        examples: Sequence[Encoded],
        *,
        model: nn.Module | None = None,
        tokens_at_once: int = 2**18,
    ) -> list[Score]:
        """Judge every run by the same examples, as `scoring.score` judges one model.

        `model` is another stack of as many runs, judged in place of the one that trains.
        """
        model = self.model if model is None else model
        pad_id = self.runs[0].batches.pad_id
        if not examples:
            raise ValueError("there are no examples to judge by")
        examples = sorted(examples, key=lambda example: len(example.tokens))
        size = max(1, tokens_at_once // (len(self.runs) * len(examples[-1].tokens)))
        model.eval()
        totals = torch.zeros(2, len(self.runs), dtype=torch.float64)
        labelled = 0
        for start in range(0, len(examples), size):
            tokens, labels = collate(examples[start : start + size], pad_id)
            labelled += int((labels[:, 1:] != IGNORE).sum())
            tokens, expected = tokens.to(self.device), labels[:, 1:].to(self.device)
            logits = model(tokens.repeat(len(self.runs), 1))[:, :-1].float()
            logits = logits.view(len(self.runs), *expected.shape, -1)
            hits = (logits.argmax(-1) == expected) | (expected == IGNORE)
            totals[0] += hits.all(-1).sum(1).cpu()
            losses = F.cross_entropy(
                logits.flatten(0, 2),
                expected.repeat(len(self.runs), 1, 1).flatten(),
                ignore_index=IGNORE,
                reduction="none",
            )
            totals[1] += losses.view(len(self.runs), -1).sum(1).double().cpu()
        right, loss = totals.tolist()
        return [
            Score(right=int(r), count=len(examples), loss=total / labelled)
            for r, total in zip(right, loss, strict=True)
        ]

    @torch.no_grad()
    def model_of(self, index: int) -> Llama:
        """One run's model on its own: an injected one, or one with every weight trained."""
        run = self.runs[index]
        one = copy.deepcopy(self.base)
        if run.lora is None:
            for name, weight in one.named_parameters():
                weight.copy_(self.parameters[name][index])
            unfreeze(one)
            return one
        inject(one, run.lora)
        for name, layer in lora_layers(one):
            layer.A.copy_(self.parameters[f"{name}.A"][index, : run.lora.rank])
            layer.B.copy_(self.parameters[f"{name}.B"][index, :, : run.lora.rank])
        return one


def _check_alike(runs: Sequence[StackedRun]) -> None:
    if not runs:
        raise ValueError("there are no runs to stack")
    alike: dict[str, set] = {
        "method": {run.lora is None for run in runs},
        "targets": {run.lora and run.lora.targets for run in runs},
        "dropout": {run.lora.dropout if run.lora else 0.0 for run in runs},
        "steps": {run.config.steps for run in runs},
        "batch_size": {run.batches.batch_size for run in runs},
        "accumulation": {run.config.accumulation for run in runs},
        "autocast": {run.config.autocast for run in runs},
    }
    for what, values in alike.items():
        if len(values) > 1:
            raise ValueError(f"runs of one stack must agree in {what}, these do not: {values}")
    if alike["dropout"] != {0.0} or alike["accumulation"] != {1} or alike["autocast"] != {False}:
        raise ValueError("a stack knows no dropout, no accumulation and no autocast: run alone")
