"""Do two changes point the same way: overlaps of subspaces, amplification, intruder directions.

    phi(i, j) = ||U1[:, :i]^T U2[:, :j]||_F^2 / min(i, j)       1: one subspace holds the other
                                                                0: at right angles
    factor    = ||delta||_F / ||U^T W V||_F                     U, V: the delta's own directions

An overlap says nothing alone: two random subspaces have max(i, j) / d of it, so each measure has
its random twin here. All work is done on the CPU. This file knows tensors only: no model, no LoRA.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@torch.no_grad()
def overlaps(U1: Tensor, U2: Tensor, most: int | None = None) -> Tensor:
    """phi(i, j) for the first i directions of one and the first j of the other; row 0 is i = 1.

    U1 (d, k1), U2 (d, k2), orthonormal columns -> (k1, k2), float64, from 0 to 1. With `most` only
    so many directions of each. LoRA, arXiv 2106.09685, section 7.2, equation 4. Raises ValueError
    if the columns are not orthonormal, or not of the same length.
    """
    if most is not None and most < 1:
        raise ValueError(f"most must be at least 1, or None for all, got {most}")
    if U1.ndim != 2 or U2.ndim != 2 or U1.shape[0] != U2.shape[0]:
        raise ValueError(
            f"directions {tuple(U1.shape)} and {tuple(U2.shape)} cannot be compared: both are "
            "(d, k), with the same d"
        )
    first, second = (_orthonormal(U[:, :most]) for U in (U1, U2))
    shared = (first.T @ second).square().cumsum(0).cumsum(1)
    i = torch.arange(1, shared.shape[0] + 1, dtype=shared.dtype)
    j = torch.arange(1, shared.shape[1] + 1, dtype=shared.dtype)
    return shared / torch.minimum(i[:, None], j)


def random_overlaps(d: int, k1: int, k2: int, seed: int = 0) -> Tensor:
    """`overlaps` of two random subspaces of d dimensions, of k1 and of k2 directions: (k1, k2).

    The control group; max(i, j) / d on average. Raises ValueError unless both k are 1 to d.
    """
    if not (1 <= k1 <= d and 1 <= k2 <= d):
        raise ValueError(f"{d} dimensions hold 1 to {d} directions, got {k1} and {k2}")
    draw = torch.Generator().manual_seed(seed)
    first, second = (
        torch.linalg.qr(torch.randn(d, k, generator=draw, dtype=torch.float64)).Q for k in (k1, k2)
    )
    return overlaps(first, second)


@dataclass(frozen=True, kw_only=True)
class Amplification:
    """Frobenius norms of a delta, and of W as seen in the directions of the delta, W, and chance.

    A small `in_delta` beside `in_W`: training strengthened what W has, but hardly uses.
    """

    delta_norm: float
    in_delta: float
    in_W: float
    in_random: float

    @property
    def factor(self) -> float:
        """How much larger the delta is than what W had in its directions; inf if W had nothing."""
        return self.delta_norm / self.in_delta if self.in_delta else math.inf


@torch.no_grad()
def amplification(
    delta_U: Tensor, delta_values: Tensor, delta_V: Tensor, W: Tensor, rank: int, seed: int = 0
) -> Amplification:
    """||U^T W V||_F with U, V the first `rank` directions of the delta, of W, of a random matrix.

    delta_U (out, r), delta_values (r,), delta_V (in, r), W (out, in); the delta's norm is that of
    its first `rank` values. LoRA, arXiv 2106.09685, section 7.3, table 7. Raises ValueError if the
    shapes do not meet, or `rank` is not 1 to r.
    """
    r = len(delta_values)
    if delta_U.shape != (W.shape[0], r) or delta_V.shape != (W.shape[1], r):
        raise ValueError(
            f"directions {tuple(delta_U.shape)} and {tuple(delta_V.shape)} of {r} values are not "
            f"of a delta of W {tuple(W.shape)}: they are (out, r) and (in, r)"
        )
    if not 1 <= rank <= r:
        raise ValueError(f"rank must be 1 to {r}, the delta's own, got {rank}")
    wide = _wide(W)
    U, V = _orthonormal(delta_U[:, :rank]), _orthonormal(delta_V[:, :rank])
    draw = torch.Generator().manual_seed(seed)
    # The singular directions of a Gaussian matrix are random, and so are these.
    left, right = (
        torch.linalg.qr(torch.randn(n, rank, generator=draw, dtype=torch.float64)).Q
        for n in W.shape
    )
    return Amplification(
        delta_norm=_wide(delta_values)[:rank].norm().item(),
        in_delta=(U.T @ wide @ V).norm().item(),
        in_W=torch.linalg.svdvals(wide)[:rank].norm().item(),
        in_random=(left.T @ wide @ right).norm().item(),
    )


@torch.no_grad()
def intruders(
    before: Tensor, after: Tensor, k: int = 10, threshold: float = 0.5
) -> tuple[int, list[float]]:
    """How many of the first k output directions of `after` are like none that `before` had.

    before, after (out, in) -> the count of those whose largest |cosine| with any left singular
    direction of `before` is below `threshold`, and that cosine for each of the k (fewer if the
    matrix has fewer). "LoRA vs full fine-tuning", arXiv 2410.21228, section 3. Raises ValueError
    for matrices of two shapes, k below 1, or a threshold that is not above 0 and at most 1.
    """
    if before.ndim != 2 or before.shape != after.shape:
        raise ValueError(
            f"before {tuple(before.shape)} and after {tuple(after.shape)} are not one matrix "
            "(out, in) at two times"
        )
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1, got {threshold}")
    old, new = (torch.linalg.svd(_wide(W), full_matrices=False).U for W in (before, after))
    cosines = (old.T @ new[:, :k]).abs().amax(0)
    return int((cosines < threshold).sum()), cosines.tolist()


def random_cosine(d: int, among: int | None = None, seed: int = 0) -> float:
    """The largest |cosine| of a random direction with `among` orthonormal ones: 1000 draws' mean.

    d dimensions; `among` None is d of them, a whole basis. Raises ValueError unless it is 1 to d.
    """
    among = d if among is None else among
    if not 1 <= among <= d:
        raise ValueError(f"{d} dimensions hold 1 to {d} orthonormal directions, got {among}")
    draw = torch.Generator().manual_seed(seed)
    # Turned together they stay as random as they were: the axes are as good as any.
    directions = torch.randn(1000, d, generator=draw, dtype=torch.float64)
    directions /= directions.norm(dim=1, keepdim=True)
    return directions[:, :among].abs().amax(1).mean().item()


def _wide(matrix: Tensor) -> Tensor:
    return matrix.detach().to("cpu", torch.float64)


def _orthonormal(U: Tensor) -> Tensor:
    """The columns in float64. Raises ValueError if they are not of length 1 and at right angles."""
    wide = _wide(U)
    off = (wide.T @ wide - torch.eye(U.shape[1], dtype=torch.float64)).abs().max().item()
    if not off < 1e-3:  # written so that what is not a number is refused too
        raise ValueError(
            f"the columns of a matrix {tuple(U.shape)} are not orthonormal (off by {off:.2g}): "
            "give singular directions, or the Q of torch.linalg.qr"
        )
    return wide
