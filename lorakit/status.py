"""What is on a shelf, in rows: which adapter is active, what of it trains, how large it is."""

from collections.abc import Mapping
from dataclasses import dataclass

from lorakit.lora import LoRALinear


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One adapter of a shelf. Ranks and scales are (least, most) over its layers.

    `bytes` is what its A and B take in memory; the base, which all share, is not among them.
    """

    adapter: str
    active: bool
    trainable: bool
    merged: bool
    rank: tuple[int, int]
    scale: tuple[float, float]
    bytes: int


@dataclass(frozen=True)
class Status:
    """A row for every adapter, in the order in which they came; as text, a table."""

    rows: tuple[Standing, ...]

    def __str__(self) -> str:
        cells = [["adapter", "active", "trainable", "merged", "rank", "scale", "bytes"]]
        for row in self.rows:
            flags = ["yes" if f else "no" for f in (row.active, row.trainable, row.merged)]
            cells.append(
                [row.adapter, *flags, _range(row.rank), _range(row.scale), f"{row.bytes:,}"]
            )
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
            for line in cells
        ]
        return "\n".join(lines if self.rows else ["the shelf is empty: the model is its base"])


def standing(name: str, layers: Mapping[str, LoRALinear], active: bool) -> Standing:
    """The row of one adapter."""
    configs = [layer.config for layer in layers.values()]
    parameters = [p for layer in layers.values() for p in (layer.A, layer.B)]
    ranks, scales = [config.rank for config in configs], [config.scale for config in configs]
    return Standing(
        adapter=name,
        active=active,
        trainable=any(p.requires_grad for p in parameters),
        merged=any(layer.merged for layer in layers.values()),
        rank=(min(ranks), max(ranks)),
        scale=(min(scales), max(scales)),
        bytes=sum(p.numel() * p.element_size() for p in parameters),
    )


def _range(ends: tuple[float, float]) -> str:
    low, high = ends
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
