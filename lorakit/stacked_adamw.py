"""AdamW for many runs at once: every tensor has a first dimension, the run.

    g = g * min(1, most / |g|)                          |g| over all of a run's tensors
    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g g
    w = w - lr decay w - lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)

arXiv 1711.05101, algorithm 2. A run whose loss or gradient is not finite is dead from then on: its
weights stay. Knows no model.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from lorakit.step import TrainConfig

Schedule = tuple[Tensor, float, float]


class StackedAdamW:
    """The moments of all runs, and which are `alive`, (runs,); parameters are (runs, ...)."""

    betas, eps = (0.9, 0.999), 1e-8  # torch.optim.AdamW's own

    def __init__(self, parameters: Iterable[nn.Parameter], configs: Sequence[TrainConfig]):
        self.parameters, self.configs = list(parameters), list(configs)
        device = self.parameters[0].device
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]
        self.alive = torch.ones(len(configs), dtype=torch.bool, device=device)
        self.most = torch.tensor([c.max_grad_norm for c in configs], device=device)
        self.decay = torch.tensor([c.weight_decay for c in configs], device=device)

    @property
    def state(self) -> list[Tensor]:
        """Everything that an update changes."""
        return [*self.parameters, *(m for pair in self.moments for m in pair), self.alive]

    def schedule(self, step: int) -> Schedule:
        """What `update` is told of `step`, from 1: each run's learning rate (runs,), on the CPU,
        and what the moments are divided by, as they started from zero.
        """
        b1, b2 = self.betas
        lr = torch.tensor([config.learning_rate(step) for config in self.configs])
        return lr, 1 - b1**step, 1 - b2**step

    @torch.no_grad()
    def update(
        self,
        grads: Sequence[Tensor],
        losses: Tensor,
        lr: Tensor,
        first_share: Tensor | float,
        second_share: Tensor | float,
    ) -> None:
        """Clip each run's gradient and change its weights, in place; nothing waits for a GPU."""
        norm = torch.stack([g.flatten(1).square().sum(1) for g in grads]).sum(0).sqrt()
        self.alive &= losses.isfinite() & norm.isfinite()
        dead = ~self.alive
        clip = (self.most / (norm + 1e-6)).clamp(max=1)
        rate = lr.masked_fill(dead, 0)
        b1, b2 = self.betas
        for p, g, (first, second) in zip(self.parameters, grads, self.moments, strict=True):
            each = (-1, *[1] * (p.ndim - 1))
            g = (g * clip.view(each)).masked_fill(dead.view(each), 0)
            first.lerp_(g, 1 - b1)
            second.mul_(b2).addcmul_(g, g, value=1 - b2)
            p.mul_(1 - (rate * self.decay).view(each))
            p.sub_(
                (rate / first_share).view(each)
                * first
                / ((second / second_share).sqrt() + self.eps)
            )
