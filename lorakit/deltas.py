"""What training changed, layer by layer, as singular directions: cut it, or make an adapter of it.

    delta = W_after - W_before = U diag(values) V^T          full fine-tuning: one SVD
    delta = scale * B A                                      LoRA: from QR of B and of A^T
    cut at k:    W_before + U[:, :k] diag(values[:k]) V[:, :k]^T      Eckart and Young, 1936
    extracted:   B = U[:, :k] sqrt(values[:k]) / scale, A = sqrt(values[:k]) V[:, :k]^T

All work is done on the CPU, at least in float32. Knows models and their layers; no files, no tasks.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lorakit.fingerprint import remember_file
from lorakit.lora import ALL_LINEAR, LoRAConfig, inject, lora_layers, target_layers
from lorakit.model import Llama
from lorakit.spectrum import Spectrum


@dataclass(frozen=True, kw_only=True, eq=False)
class Delta:
    """One layer's change: U (out, r), values (r,), largest first, V (in, r)."""

    layer: str
    U: Tensor
    values: Tensor
    V: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight, (out, in)."""
        return self.U.shape[0], self.V.shape[0]

    @property
    def norm(self) -> float:
        """The Frobenius norm."""
        return self.values.norm().item()

    @property
    def spectrum(self) -> Spectrum:
        """The values without the directions."""
        return Spectrum(layer=self.layer, shape=self.shape, values=tuple(self.values.tolist()))

    def matrix(self, k: int | None = None) -> Tensor:
        """The delta of its first k directions, or of all: (out, in)."""
        if k is not None and k < 0:
            raise ValueError(f"k must be at least 0, or None for all, got {k}")
        return (self.U[:, :k] * self.values[:k]) @ self.V[:, :k].T

    def factors(self, k: int) -> tuple[Tensor, Tensor]:
        """B (out, k) and A (k, in) of as equal a size, whose product is `matrix(k)`.

        Of fewer than k directions, B and A have as many.
        """
        root = self.values[:k].sqrt()
        return self.U[:, :k] * root, (self.V[:, :k] * root).T


@torch.no_grad()
def delta_of_matrix(layer: str, matrix: Tensor) -> Delta:
    """The directions of a dense change (out, in). Raises ValueError if an entry is not finite."""
    _check_finite(layer, matrix)
    wide = matrix.to("cpu", torch.promote_types(matrix.dtype, torch.float32))
    U, values, Vh = torch.linalg.svd(wide, full_matrices=False)
    return Delta(layer=layer, U=U, values=values, V=Vh.mT)


@torch.no_grad()
def delta_of_product(layer: str, B: Tensor, A: Tensor, scale: float = 1.0) -> Delta:
    """The directions of scale * B @ A, B (out, rank), A (rank, in), without forming it.

    Raises ValueError if an entry is not finite.
    """
    _check_finite(layer, B, A)
    dtype = torch.promote_types(torch.promote_types(B.dtype, A.dtype), torch.float32)
    # B = Qb Rb and A^T = Qa Ra, so B A = Qb (Rb Ra^T) Qa^T: only the small middle needs an SVD.
    Qb, Rb = torch.linalg.qr(B.to("cpu", dtype))
    Qa, Ra = torch.linalg.qr(A.to("cpu", dtype).T)
    U, values, Vh = torch.linalg.svd(scale * (Rb @ Ra.T), full_matrices=False)
    return Delta(layer=layer, U=Qb @ U, values=values, V=Qa @ Vh.mT)


@torch.no_grad()
def deltas(model: Llama, base: Llama | None = None) -> list[Delta]:
    """What training changed in every targeted linear layer, in the model's order.

    From its adapters if the model has them; else against `base`, the model before training. Raises
    ValueError if there are neither adapters nor a base, or the base has other layers.
    """
    if layers := lora_layers(model):
        return [delta_of_product(n, m.B, m.A, m.config.scale) for n, m in layers]
    if base is None:
        raise ValueError("a model without adapters has a delta only against its base: give both")
    before = _weights(base)
    found = []
    for name, W in _weights(model).items():
        if name not in before or before[name].shape != W.shape:
            raise ValueError(
                f"the base has no {name} of shape {tuple(W.shape)}: load the base that the model "
                "was trained from, without adapters"
            )
        # On the CPU, and as wide as both: in half precision the difference would be rounded.
        dtype = torch.promote_types(W.dtype, torch.float32)
        change = W.to("cpu", dtype) - before[name].to("cpu", dtype)
        found.append(delta_of_matrix(name, change))
    return found


def random_deltas(deltas: Sequence[Delta], seed: int = 0) -> list[Delta]:
    """A random delta for each, of the same shape, norm and number of directions: control group.

    Gaussian, or a product of Gaussian factors where the delta is of low rank.
    """
    draw, found = torch.Generator().manual_seed(seed), []
    for delta in deltas:
        (out_features, in_features), rank = delta.shape, len(delta.values)
        if rank < min(delta.shape):
            B = torch.randn(out_features, rank, generator=draw)
            A = torch.randn(rank, in_features, generator=draw)
            chance = delta_of_product(delta.layer, B, A)
        else:
            matrix = torch.randn(out_features, in_features, generator=draw)
            chance = delta_of_matrix(delta.layer, matrix)
        found.append(replace(chance, values=chance.values * (delta.norm / chance.norm)))
    return found


@torch.no_grad()
def cut(
    model: Llama, base: Llama, deltas: Sequence[Delta], k: int | None, rest: Llama | None = None
) -> None:
    """Make `model` the base with each delta's first k directions (None: all), in place.

    What has no delta, as embedding and norms, is as in `rest`, by default as in the base. A slider
    does this to one model again and again. Raises ValueError, nothing changed, if `model` shares
    weights with base or rest: they would change too.
    """
    rest = base if rest is None else rest
    parameters, original = dict(model.named_parameters()), dict(base.named_parameters())
    others = dict(rest.named_parameters())
    held = {p.data_ptr() for p in [*original.values(), *others.values()]}
    if shared := [name for name, p in parameters.items() if p.data_ptr() in held]:
        raise ValueError(
            f"the model to change shares {len(shared)} weights with its base or rest (first: "
            f"{shared[0]}): give it weights of its own, copy.deepcopy(base)"
        )
    changes = {f"{delta.layer}.weight": delta for delta in deltas}
    if missing := [name for name in changes if name not in parameters]:
        raise ValueError(
            f"the model has no {missing[0]}: give a plain one, copy.deepcopy(base) without adapters"
        )
    remember_file(model, None)
    for name, p in parameters.items():
        if name in changes:
            p.copy_(original[name].to(p.device) + changes[name].matrix(k).to(p.device))
        else:
            p.copy_(others[name])


@torch.no_grad()
def extract(
    base: Llama, deltas: Sequence[Delta], rank: int, *, alpha: float | None = None
) -> Llama:
    """A copy of `base` with adapters that hold each delta's first `rank` directions.

    `alpha` None is `rank`, a scale of 1. A layer with fewer directions has zeros beyond them.
    Embedding and norms are the base's: an adapter carries none. Raises ValueError for no deltas, or
    for a rank that is below 1.
    """
    if not deltas:
        raise ValueError("there are no deltas to make an adapter of")
    layers = tuple(delta.layer for delta in deltas)
    everything = layers == tuple(target_layers(base, ALL_LINEAR))
    config = LoRAConfig(
        rank=rank,
        alpha=float(rank) if alpha is None else alpha,
        targets=ALL_LINEAR if everything else layers,
    )
    model = copy.deepcopy(base)
    # A generator of its own: a fresh A is drawn only to be written over.
    inject(model, config, generator=torch.Generator(model.lm_head.weight.device))
    adapters = dict(lora_layers(model))
    for delta in deltas:
        adapter, (B, A) = adapters[delta.layer], delta.factors(rank)
        adapter.A.zero_()
        adapter.A[: len(A)] = A.to(adapter.A)
        adapter.B[:, : len(A)] = (B / config.scale).to(adapter.B)
    return model


def _weights(model: Llama) -> dict[str, Tensor]:
    return {name: layer.weight for name, layer in target_layers(model, ALL_LINEAR).items()}


def _check_finite(layer: str, *matrices: Tensor) -> None:
    for matrix in matrices:
        if not matrix.isfinite().all():
            raise ValueError(
                f"the delta of {layer} holds a number that is not finite: it has no singular values"
            )
