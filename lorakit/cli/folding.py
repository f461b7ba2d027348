"""What `lorakit merge` asks of an adapter before it merges, and what it tells of the merge."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lorakit.adapter_file import QUANTIZED, WEIGHTS, opened
from lorakit.console import show
from lorakit.merge_cost import MergeCost, share
from lorakit.qlora_merge import MergeError, parse_form


def trained_over(adapter: Path) -> dict[str, Any]:
    """The form of the 4 bits that an adapter was trained over, as `quantize_` takes it.

    Raises ValueError if its file does not tell any, or is not there.
    """
    path = adapter / WEIGHTS
    if not path.is_file():
        raise ValueError(f"{adapter} is no whole adapter: it has no {WEIGHTS}")
    with opened(path) as file:
        told = (file.metadata() or {}).get(QUANTIZED)
    if told is None:
        raise ValueError(
            f"{adapter} does not tell that it was trained over a base in 4 bits: leave out "
            "--dequantised"
        )
    return parse_form(told)


def facts(cost: MergeCost, change: float, errors: Mapping[str, MergeError]) -> dict[str, Any]:
    """A merge in numbers, for a program; `errors` only of a base in 4 bits."""
    told = {
        "layers": len(cost.layers),
        "dtype": cost.dtype,
        "lost": cost.loss,
        "worst": {"layer": cost.worst.layer, "lost": cost.worst.loss},
        "unchanged": cost.unchanged,
        "change": change,
    }
    places = {place: asdict(error) for place, error in errors.items()}
    return told | ({"places": places} if places else {})


def show_facts(
    cost: MergeCost, change: float, errors: Mapping[str, MergeError], *, each: bool
) -> None:
    """The same as tables; with `each`, a row a layer too."""
    if each:
        show(
            [(c.layer, f"{c.size:.2g}", share(c.loss), share(c.unchanged)) for c in cost.layers],
            *("layer", "|delta|/|W|", "lost", "unchanged"),
        )
    if errors:
        show(
            [(place, share(e.delta), share(e.logits)) for place, e in errors.items()],
            *("merged into", "error of the delta", "of the logits"),
        )
    show(
        [
            ("layers merged", str(len(cost.layers))),
            ("dtype", cost.dtype),
            ("lost of the delta", f"{share(cost.loss)} (median of the layers)"),
            ("lost at worst", f"{share(cost.worst.loss)} ({cost.worst.layer})"),
            ("entries unchanged", share(cost.unchanged)),
            ("largest change of a logit", f"{change:.1e} of the largest logit"),
        ]
    )
