"""A matrix in 4 bits a number: blocks that share a scale, and 16 levels to choose from.

    absmax = max |w| of a block        code = the level nearest to w / absmax
    w   is   level[code] * absmax      two codes a byte

    nf4     levels from the quantiles of a normal distribution
    fp4     sign, two bits of exponent, one of fraction
    int4    evenly spaced

Double quantisation keeps the scales themselves in 8 bits, in groups of 256, about their mean:

    absmax   is   mean + code * scale of the group

QLoRA, arXiv 2305.14314, section 3; the paper's 8 bits are floating point, these evenly spaced.
Knows tensors and nothing of layers or models.
"""

import math
from dataclasses import dataclass, fields
from statistics import NormalDist

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake

GROUP = 256  # scales that share a scale of their own


def _nf4() -> list[float]:
    """Quantiles of the normal: 8 positive levels, 7 negative ones and zero, the largest being 1.

    The outermost share is cut at 0.9677083, as in the code that was published with the paper.
    """
    offset, quantile = 0.9677083, NormalDist().inv_cdf

    def spaced(points: int) -> list[float]:
        step = (offset - 0.5) / (points - 1)
        return [quantile(offset - step * i) / quantile(offset) for i in range(points - 1)]

    return sorted([*spaced(9), 0.0, *(-value for value in spaced(8))])


def _fp4() -> list[float]:
    """E2M1, without infinities: 0, 1/12, 1/6, 1/4, 1/3, 1/2, 2/3, 1 and their negatives."""
    positive = [0, 0.5, *(2**e * (1 + m / 2) for e in range(3) for m in range(2))]
    return sorted(sign * value / max(positive) for value in positive for sign in (-1, 1))


# 16 levels each, from -1 to 1, rising. Zero is among them all, so a zero stays a zero; fp4 has it
# twice, and int4, whose 15 are symmetric, has 1 twice.
CODEBOOKS: dict[str, tuple[float, ...]] = {
    "nf4": tuple(_nf4()),
    "fp4": tuple(_fp4()),
    "int4": tuple(min(i, 7) / 7 for i in range(-7, 9)),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantized:
    """A matrix of `shape` in blocks of `block` numbers, row after row, filled up with zeros.

    packed (blocks * block / 2,) uint8, the first of two codes in the higher bits; levels (16,).
    absmax (blocks,) is float32, or int8 with double quantisation: then there are scales (groups,)
    and mean (), float32 both.
    """

    packed: Tensor
    levels: Tensor
    absmax: Tensor
    scales: Tensor | None = None
    mean: Tensor | None = None
    shape: tuple[int, ...]
    block: int

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All that is stored, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


@torch.no_grad()
def quantize(
    W: Tensor, *, block: int = 64, codebook: str = "nf4", double: bool = True, name: str = "W"
) -> Quantized:
    """The nearest level for each number of W, of any float dtype and shape; W is left as it was.

    Raises ValueError for another dtype, an empty tensor, a number that is not finite (`name` says
    whose), a block that is odd or below 2, or a codebook that there is not.
    """
    if not isinstance(block, int) or block < 2 or block % 2:
        raise ValueError(f"block must be an even whole number of at least 2, got {block!r}")
    if codebook not in CODEBOOKS:
        raise ValueError(f"codebook must be one of {', '.join(CODEBOOKS)}, got {codebook!r}")
    check_values(W, name)
    levels = torch.tensor(CODEBOOKS[codebook], dtype=torch.float32, device=W.device)
    w, absmax = normalised(W, block)
    codes = torch.bucketize(w, _borders(levels), out_int32=True).to(torch.uint8).flatten()
    held = {"packed": codes[0::2] << 4 | codes[1::2], "levels": levels, "absmax": absmax}
    if double:
        held |= _quantize_scales(absmax)
    return Quantized(**held, shape=tuple(W.shape), block=block)


def normalised(W: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """The numbers of W between -1 and 1, (blocks, block), filled up with zeros; absmax (blocks,).

    A block of zeros is divided by 1.
    """
    w = torch.nn.functional.pad(W.float().flatten(), (0, -W.numel() % block)).view(-1, block)
    absmax = w.abs().amax(dim=1)
    return w / torch.where(absmax == 0, 1, absmax)[:, None], absmax


def dequantize(held: Quantized, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix that `held` stands for: multiplied in float32, then rounded to `dtype` once."""
    # Row b is what byte b stands for: one lookup for two numbers.
    pairs = torch.cartesian_prod(held.levels, held.levels)
    blocks = pairs.index_select(0, held.packed.int()).view(-1, held.block)
    blocks.mul_(_scales(held)[:, None])
    return blocks.flatten()[: math.prod(held.shape)].view(held.shape).to(dtype)


def check_values(W: Tensor, name: str) -> None:
    """Raises ValueError, naming `name`, unless W holds finite numbers of a float dtype."""
    if not W.is_floating_point():
        raise ValueError(f"{name} is of {W.dtype}: only floating point numbers can be quantised")
    if not W.numel():
        raise ValueError(f"{name} of shape {tuple(W.shape)} is empty: there is nothing to quantise")
    # What takes no memory has no values to look at.
    if not (W.is_meta or is_fake(W)) and not W.isfinite().all():
        raise ValueError(
            f"{name} holds a number that is not finite, which would spoil its whole block: "
            "load the weights again"
        )


def _borders(levels: Tensor) -> Tensor:
    """Between two neighbours, (15,): the largest float32 that is not above their middle.

    So a number is beyond a border exactly if it is beyond the middle, which float32 may not hold.
    """
    middle = (levels[1:].double() + levels[:-1].double()) / 2
    near = middle.float()
    return torch.where(near > middle, near.nextafter(torch.full_like(near, -math.inf)), near)


def _quantize_scales(absmax: Tensor) -> dict[str, Tensor]:
    """In 8 bits each, by the names of `Quantized`."""
    mean = absmax.mean()
    away = absmax - mean
    groups = torch.nn.functional.pad(away, (0, -len(away) % GROUP)).view(-1, GROUP)
    scales = groups.abs().amax(dim=1) / 127
    codes = (groups / torch.where(scales == 0, 1, scales)[:, None]).round_().to(torch.int8)
    return {"absmax": codes.flatten()[: len(away)].clone(), "scales": scales, "mean": mean}


def _scales(held: Quantized) -> Tensor:
    """The scale of each block, float32 (blocks,)."""
    if held.scales is None or held.mean is None:
        return held.absmax
    scales = held.scales.repeat_interleave(GROUP)[: len(held.absmax)]
    return torch.addcmul(held.mean, scales, held.absmax.float())
