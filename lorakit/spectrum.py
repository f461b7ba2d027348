"""Singular values: how many directions a change of weights has, and how much lies in each.

    delta = U diag(values) V^T        norm(delta)^2 = sum(values^2)
    energy(k) = sum(values[:k]^2) / sum(values^2)

A spectrum says nothing alone: `random_values` is what chance gives at the same shape and norm.
All work is done on the CPU. This file knows tensors and numbers only: no model, no LoRA.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

Values = Tensor | Sequence[float]


@torch.no_grad()
def singular_values_of_product(B: Tensor, A: Tensor, scale: float = 1.0) -> Tensor:
    """The singular values of scale * B @ A, largest first, without forming it.

    B (out, rank), A (rank, in) -> (min(out, in, rank),), float32, or float64 if one of them is.
    Raises ValueError if the shapes do not multiply or an entry is not finite.
    """
    if B.ndim != 2 or A.ndim != 2 or B.shape[1] != A.shape[0]:
        raise ValueError(
            f"B {tuple(B.shape)} and A {tuple(A.shape)} do not multiply: "
            "B is (out, rank), A is (rank, in)"
        )
    _check_finite(B, A)
    # SVD has no half precision.
    dtype = torch.promote_types(torch.promote_types(B.dtype, A.dtype), torch.float32)
    # B = Qb Rb and A^T = Qa Ra, so B A = Qb (Rb Ra^T) Qa^T: the small middle has the same values.
    Rb = torch.linalg.qr(B.to("cpu", dtype), mode="r").R
    Ra = torch.linalg.qr(A.to("cpu", dtype).T, mode="r").R
    return abs(scale) * torch.linalg.svdvals(Rb @ Ra.T)


@torch.no_grad()
def singular_values(delta: Tensor) -> Tensor:
    """The singular values of a dense matrix, or of a batch of them, largest first.

    delta (..., out, in) -> (..., min(out, in)), float64, right to about 1e-8 of the largest.
    Raises ValueError if an entry is not finite.
    """
    _check_finite(delta)
    wide = delta.to("cpu", torch.float64)
    # The eigenvalues of the smaller Gram matrix are the squares of the values. In float64 that is
    # quicker than an SVD in float32, and more exact.
    gram = wide @ wide.mT if wide.shape[-2] <= wide.shape[-1] else wide.mT @ wide
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(-1)


def random_values(
    shape: tuple[int, int], norm: float, seed: int = 0, *, rank: int | None = None
) -> Tensor:
    """The singular values of a Gaussian matrix (out, in) scaled to Frobenius norm `norm`.

    With `rank`, of a product of two Gaussian factors of that rank. They do the duty of a control
    group: a spectrum is special as far as it differs from these.
    """
    return norm * _unit_random_values(*shape, seed, rank)


@lru_cache(maxsize=256)
def _unit_random_values(out_features: int, in_features: int, seed: int, rank: int | None) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if rank is None:
        values = singular_values(torch.randn(out_features, in_features, generator=generator))
    else:
        B = torch.randn(out_features, rank, generator=generator)
        A = torch.randn(rank, in_features, generator=generator)
        values = singular_values_of_product(B, A)
    return values / values.norm()


def energy(values: Values, k: int) -> float:
    """The share (0 to 1) of the squared norm that the first k values hold; 0.0 if all are zero."""
    if k < 0:
        raise ValueError(f"k must be at least 0, got {k}")
    shares = _cumulative_energy(values)[:k]
    return shares[-1].item() if len(shares) else 0.0


def rank_for(values: Values, share: float = 0.9) -> int:
    """The fewest values that hold `share` of the energy; 0 if all are zero."""
    if not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, got {share}")
    shares = _cumulative_energy(values)
    return int((shares < share).sum()) + 1 if shares.any() else 0


@torch.no_grad()
def truncate(delta: Tensor, k: int) -> Tensor:
    """The matrix of rank k nearest to `delta`: its first k singular values and directions.

    delta (..., out, in) -> the same shape, dtype and device. Eckart and Young, 1936.
    """
    _check_finite(delta)
    wide = delta.to("cpu", torch.float64)
    # With V the first eigenvectors of D^T D, D V V^T is the SVD cut off after k.
    vectors = torch.linalg.eigh(wide.mT @ wide).eigenvectors[..., max(0, wide.shape[-1] - k) :]
    return (wide @ vectors @ vectors.mT).to(delta)


def effective_rank(values: Values) -> float:
    """exp(entropy of values / sum(values)): k equal values give k; 0.0 if all are zero.

    Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    sizes = _as_tensor(values)
    if not sizes.any():
        return 0.0
    return torch.special.entr(sizes / sizes.sum()).sum().exp().item()


def stable_rank(values: Values) -> float:
    """sum(values^2) / max(values)^2: k equal values give k; 0.0 if all are zero.

    Small values hardly count, unlike in `effective_rank`. Rudelson and Vershynin, "Sampling from
    large matrices", Journal of the ACM 54, 2007.
    """
    sizes = _as_tensor(values)
    if not sizes.any():
        return 0.0
    return (sizes / sizes.max()).square().sum().item()


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """One layer's singular values, largest first; `shape` is that of its weight, (out, in).

    `base_norm` is the Frobenius norm of the weight that was changed, where that is known.
    """

    layer: str
    shape: tuple[int, int]
    values: tuple[float, ...]
    base_norm: float | None = None

    def __post_init__(self):
        if not 1 <= len(self.values) <= min(self.shape):
            raise ValueError(
                f"{self.layer}: a matrix {self.shape} has 1 to {min(self.shape)} singular values, "
                f"got {len(self.values)}"
            )
        sizes = _as_tensor(self.values)
        if not sizes.isfinite().all() or sizes[-1] < 0 or (sizes.diff() > 0).any():
            raise ValueError(
                f"{self.layer}: singular values must be finite, at least 0 and largest first"
            )

    @property
    def norm(self) -> float:
        """The Frobenius norm of the matrix."""
        return math.hypot(*self.values)

    @property
    def relative(self) -> float | None:
        """The norm over that of the weight that was changed; None where that is unknown or zero."""
        return self.norm / self.base_norm if self.base_norm else None

    @property
    def random(self) -> tuple[float, ...]:
        """What a random matrix of this shape, norm and rank has: that much is so by chance."""
        rank = len(self.values) if len(self.values) < min(self.shape) else None
        return tuple(random_values(self.shape, self.norm, rank=rank).tolist())

    def energy(self, k: int) -> float:
        return energy(self.values, k)

    def scaled(self, factor: float) -> "Spectrum":
        """The spectrum of `factor` times the matrix."""
        return replace(self, values=tuple(abs(factor) * value for value in self.values))


def _as_tensor(values: Values) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64, device="cpu")


def _cumulative_energy(values: Values) -> Tensor:
    sums = _as_tensor(values).square().cumsum(0)
    # The last sum divides all, so that the whole is exactly 1.
    return sums / sums[-1] if sums.any() else sums


def _check_finite(*matrices: Tensor) -> None:
    for matrix in matrices:
        if not matrix.isfinite().all():
            raise ValueError(
                f"a matrix {tuple(matrix.shape)} holds a number that is not finite: "
                "it has no singular values"
            )
