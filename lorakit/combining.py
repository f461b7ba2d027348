"""Adapters over one base added to a single one: exactly, cut to a rank, or by a shortcut.

    sum of w_i s_i B_i A_i        what is wanted; w_i weights, s_i scales
    concatenated    B = [w_1 s_1 B_1, w_2 s_2 B_2, ...], A = [A_1; A_2; ...]: exact, ranks add
    compressed      the first k singular directions of the sum: Eckart and Young, 1936
    shortcut        B = sum of sqrt(w_i s_i) B_i, A = sum of sqrt(w_i s_i) A_i: of one rank, but
                    B A holds every B_i A_j as well, products of strangers

They are "cat", "svd" and "linear" of PEFT's `add_weighted_adapter`. How far each is from the sum is
measured, never assumed. A result goes on a `Shelf` with `put`, and from there into a file.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorakit.deltas import Delta, delta_of_product
from lorakit.lora import LoRAConfig, LoRALinear
from lorakit.mixing import Adapter


@dataclass(frozen=True, kw_only=True, eq=False)
class Combined:
    """An adapter made of others, and how far its deltas are from their sum.

    `errors` are relative, in the Frobenius norm, by the layer's path; `error` is that of all
    layers taken together.
    """

    layers: dict[str, LoRALinear]
    errors: Mapping[str, float]
    error: float


Terms = list[tuple[float, LoRALinear]]  # what is added in one layer: weights and adapters


def concatenated(adapters: Sequence[Adapter], weights: Sequence[float] | None = None) -> Combined:
    """The exact sum: its rank is the sum of theirs. `weights` None are all 1.

    A layer that an adapter lacks has zeros in its place. Raises ValueError for no adapters, another
    number of weights, a weight that is not finite, or adapters over different bases.
    """
    return _combined(adapters, weights, _stacked)


def compressed(
    adapters: Sequence[Adapter], rank: int, weights: Sequence[float] | None = None
) -> Combined:
    """The adapter of this rank that is nearest to the sum, layer by layer.

    No rank below that of the sum does better; the errors say what the cut costs. Raises ValueError
    for a rank below 1, and as `concatenated` does.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}")
    return _combined(adapters, weights, lambda terms: _delta("", terms).factors(rank))


def shortcut(adapters: Sequence[Adapter], weights: Sequence[float] | None = None) -> Combined:
    """Weighted A's and weighted B's added, each for itself: cheap, and not the sum.

    n unrelated adapters of one size make n (n - 1) products of strangers, as long each as a delta:
    together sqrt(n - 1) times as long as the sum. What was trained from one start is farther off.

    Raises ValueError for adapters that differ in a layer's rank, and as `concatenated` does.
    """
    return _combined(adapters, weights, _added_apart)


def _combined(
    adapters: Sequence[Adapter],
    weights: Sequence[float] | None,
    make: Callable[[Terms], tuple[Tensor, Tensor]],
) -> Combined:
    terms = _terms(adapters, weights)
    made = {path: make(those) for path, those in terms.items()}
    rank = max(A.shape[0] for _, A in made.values())
    config = LoRAConfig(rank=rank, alpha=float(rank), targets=_targets(adapters, made))
    layers, errors, norms = {}, {}, {}
    for path, (B, A) in made.items():
        like = terms[path][0][1]
        layer = layers[path] = _layer(like, config, B, A)
        wanted = _delta(path, terms[path])
        apart = _delta(path, [(1.0, layer), *((-w, other) for w, other in terms[path])])
        norms[path] = wanted.norm
        errors[path] = apart.norm / wanted.norm if wanted.norm else 0.0
    total = math.hypot(*norms.values())
    missed = math.hypot(*(errors[path] * norm for path, norm in norms.items()))
    return Combined(layers=layers, errors=errors, error=missed / total if total else 0.0)


def _terms(adapters: Sequence[Adapter], weights: Sequence[float] | None) -> dict[str, Terms]:
    """By path, what is to be added there."""
    weights = [1.0] * len(adapters) if weights is None else weights
    if not adapters or len(adapters) != len(weights):
        raise ValueError(
            f"{len(adapters)} adapters and {len(weights)} weights: give at least one, and as many"
        )
    found: dict[str, Terms] = {}
    for weight, adapter in zip(weights, adapters, strict=True):
        if not math.isfinite(weight):
            raise ValueError(f"a weight must be a finite number, got {weight!r}")
        for path, layer in adapter.items():
            found.setdefault(path, []).append((weight, layer))
    for path, terms in found.items():
        if len({id(layer.base) for _, layer in terms}) > 1:
            raise ValueError(
                f"the adapters of {path} are over different bases: put all of them on one shelf"
            )
    return found


def _targets(adapters: Sequence[Adapter], paths: Mapping[str, object]) -> tuple[str, ...] | str:
    """A name for these layers that one of the adapters has, or else all their paths."""
    for adapter in adapters:
        if adapter.keys() == paths.keys():
            return next(iter(adapter.values())).config.targets
    return tuple(paths)


@torch.no_grad()
def _layer(like: LoRALinear, config: LoRAConfig, B: Tensor, A: Tensor) -> LoRALinear:
    """An adapter beside the same base as `like`; what its rank leaves free is zero."""
    # A generator of its own: a fresh A is drawn only to be written over.
    layer = LoRALinear(like.base, config, torch.Generator(like.A.device))
    layer.to(like.A.device)
    layer.A.zero_()
    layer.A[: A.shape[0]] = A.to(layer.A)
    layer.B[:, : B.shape[1]] = B.to(layer.B)
    return layer


@torch.no_grad()
def _stacked(terms: Terms) -> tuple[Tensor, Tensor]:
    """B (out, sum of ranks) and A (sum of ranks, in), whose product is the sum."""
    B = torch.cat([weight * layer.config.scale * layer.B for weight, layer in terms], dim=1)
    return B, torch.cat([layer.A for _, layer in terms])


@torch.no_grad()
def _added_apart(terms: Terms) -> tuple[Tensor, Tensor]:
    ranks = sorted({layer.config.rank for _, layer in terms})
    if len(ranks) > 1:
        raise ValueError(
            f"the shortcut adds A's of one rank, these are of {ranks}: concatenated adds any"
        )
    factors = [weight * layer.config.scale for weight, layer in terms]
    # A negative weight has no root: its sign goes to A, as in PEFT.
    roots = [math.copysign(math.sqrt(abs(factor)), factor) for factor in factors]
    A = sum(root * layer.A for root, (_, layer) in zip(roots, terms, strict=True))
    B = sum(abs(root) * layer.B for root, (_, layer) in zip(roots, terms, strict=True))
    assert isinstance(A, Tensor) and isinstance(B, Tensor)
    return B, A


def _delta(path: str, terms: Terms) -> Delta:
    """The sum of the terms as singular directions, in float64."""
    B, A = _stacked(terms)
    return delta_of_product(path, B.cpu().double(), A.cpu().double())
