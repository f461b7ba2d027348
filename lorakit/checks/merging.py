"""The exercise on merging: into the weight, and out of it to the bit."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from lorakit.checks.difference import times
from lorakit.checks.exercise import Exercise, Facet, Mistake
from lorakit.checks.saving import trained
from lorakit.lora import LoRALinear


def _merging(
    merge: Callable[[LoRALinear], None], unmerge: Callable[[LoRALinear], None]
) -> Iterator[Facet]:
    base, x = nn.Linear(48, 32), torch.randn(5, 48)
    layer, weight = trained(base), base.weight.detach().clone()
    with torch.no_grad():
        before, adapted = base(x), layer(x)
        delta = layer.delta()

        def in_weight() -> float:
            return times(base.weight - weight, delta)

        def in_output() -> float:
            return times(layer(x) - before, adapted - before)

        merge(layer)
        yield "deltas in the weight after a merge", in_weight()
        yield "deltas in the output after a merge", in_output()
        merge(layer)
        yield "deltas in the weight after a second merge", in_weight()
        unmerge(layer)
        yield "deltas in the weight after unmerging", in_weight()
        yield "the weight has its old bits again", torch.equal(base.weight, weight)
        yield "deltas in the output after unmerging", in_output()


check_merge = Exercise(
    key="merge",
    page="06",
    prompt="""\
### Exercise: merge, and undo it

`merge` adds the delta into the base's weight; `unmerge` puts back what was there, to the bit.
Called twice, `merge` adds once. `layer.original` is None; while it holds a tensor, the layer takes
itself as merged, and leaves A and B out of its output. (Change `.data`, so that autograd does not
mind.)""",
    imports="import lorakit as lk",
    starter="""\
def merge(layer: lk.LoRALinear) -> None:
    W = layer.base.weight
    ...


def unmerge(layer: lk.LoRALinear) -> None:
    W = layer.base.weight
    ...""",
    solution="""\
def merge(layer: lk.LoRALinear) -> None:
    W = layer.base.weight
    if layer.original is None:
        layer.original = W.data
        W.data = W.data + layer.config.scale * (layer.B @ layer.A).data


def unmerge(layer: lk.LoRALinear) -> None:
    W = layer.base.weight
    W.data = layer.original
    layer.original = None""",
    answers=("merge", "unmerge"),
    observe=_merging,
    first="What has to be kept before `W.data` gets a new value?",
    hints=(
        "run the layer before and after your merge: is the output the same? How many deltas are "
        "in it?",
        "`W.data = W.data + ...` makes a new tensor, `W.data += ...` changes the one that is "
        "there. Which does `layer.original` hold?",
    ),
    example="",
    right="Merged once, and unmerged to the bit, since the original was kept",
    mistakes=(
        Mistake(
            "scale forgotten",
            "You added B A. Is that the delta?",
            {"layer.config.scale * (layer.B @ layer.A).data": "(layer.B @ layer.A).data"},
        ),
        Mistake(
            "scale applied twice",
            "You added more than the delta. `layer.delta()` is scaled already: what multiplies it?",
            {"layer.config.scale * (": "layer.config.scale * layer.config.scale * ("},
        ),
        Mistake(
            "subtracted instead of added",
            "The weight moved the wrong way. What is the sign of the delta in the layer's output?",
            {"W.data + layer": "W.data - layer"},
        ),
        Mistake(
            "delta counted twice",
            "The weight has the delta, and the output has it twice. Who else still adds it?",
            {
                "        layer.original = W.data\n": "        layer.kept = W.data\n",
                "W.data = layer.original": "W.data = layer.kept",
            },
        ),
        Mistake(
            "merged twice",
            "The second call added a second delta. How can `merge` see that it has been here?",
            {"if layer.original is None:": "if True:"},
        ),
        Mistake(
            "original overwritten",
            "After unmerging the delta is still in the weight. Is `layer.original` a copy, or the "
            "very tensor that you added to?",
            {"W.data = W.data + layer": "W.data += layer"},
        ),
        Mistake(
            "unmerged by subtraction",
            "Nearly what it was, and not to the bit. Adding rounds: does subtracting undo the "
            "rounding?",
            {
                "    W.data = layer.original\n": (
                    "    W.data = W.data - layer.config.scale * (layer.B @ layer.A).data\n"
                )
            },
        ),
        Mistake(
            "still taken as merged",
            "The weight is back, and the output has no delta at all. What does the layer think "
            "that it is?",
            {"    layer.original = None": "    pass"},
        ),
    ),
)
