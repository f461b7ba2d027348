"""The exercise on four bits: a matrix in blocks, each with a scale of its own."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lorakit.checks.exercise import Exercise, Facet, Mistake
from lorakit.quantize import CODEBOOKS


def _coded(quantize: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Iterator[Facet]:
    W = torch.randn(4, 16) * torch.tensor([1.0, 0.1, 3.0, 0.5])[:, None]
    W[:, 5] = -3 * W.abs().amax(dim=1)  # in each block the furthest from zero is below it
    codes, absmax = quantize(W.clone(), torch.tensor(CODEBOOKS["nf4"]))
    yield "how many scales", torch.as_tensor(absmax).numel()
    yield "the scales", torch.as_tensor(absmax).flatten()
    yield "how many codes", codes.numel()
    yield "the codes", codes.flatten()


check_quantize = Exercise(
    key="quantize",
    page="08",
    prompt="""\
### Exercise: four bits

`W` (blocks, numbers) has a block in each row, `levels` (16,) are the numbers from -1 to 1 that
four bits can stand for. Return the `codes` (blocks, numbers), for each number the place of the
level nearest to it, and the `absmax` (blocks,), a scale for each block, so that `levels[codes]`
times it is about `W`.""",
    imports="import torch\nfrom torch import Tensor",
    starter="""\
def quantize(W: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    absmax = ...
    codes = ...
    return codes, absmax""",
    solution="""\
def quantize(W: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    absmax = W.abs().amax(dim=1)
    scaled = W / absmax[:, None]
    codes = (scaled[:, :, None] - levels).abs().argmin(dim=2)
    return codes, absmax""",
    answers=("quantize",),
    observe=_coded,
    first="By what do you divide a block, so that all of it lies between -1 and 1?",
    hints=(
        "one scale a block. Which number of the block must come to 1 or to -1?",
        "the levels are not evenly spaced. How far is a number from each of the 16, and which "
        "place has the least?",
    ),
    example=(
        "[t.tolist() for t in quantize(torch.tensor([[0.5, -2.0]]), torch.linspace(-1, 1, 16))]"
    ),
    right="Every number at its nearest level, every block with a scale of its own",
    mistakes=(
        Mistake(
            "max instead of absmax",
            "Some numbers of your blocks are beyond -1 after the division. Which number of a "
            "block is furthest from zero?",
            {"W.abs().amax(dim=1)": "W.amax(dim=1)"},
        ),
        Mistake(
            "block's absmax forgotten",
            "The levels end at 1. What becomes of a number that is larger?",
            {"W.abs().amax(dim=1)": "torch.ones(len(W))"},
        ),
        Mistake(
            "one scale for all blocks",
            "One loud block sets the scale of all others. How many levels do these still use?",
            {"W.abs().amax(dim=1)": "W.abs().max().expand(len(W))"},
        ),
        Mistake(
            "a scale for each column",
            "As many scales as a block has numbers. Along which of the two dimensions does a "
            "block lie?",
            {
                "W.abs().amax(dim=1)": "W.abs().amax(dim=0)",
                "absmax[:, None]": "absmax",
            },
        ),
        Mistake(
            "mean size instead of absmax",
            "Half of a block is beyond the levels' end. Which number of a block must come to 1 or "
            "to -1?",
            {"W.abs().amax(dim=1)": "W.abs().mean(dim=1)"},
        ),
        Mistake(
            "not divided by the scale",
            "The scales are right. Are the numbers that you compare with the levels between -1 "
            "and 1?",
            {"W / absmax[:, None]": "W"},
        ),
        Mistake(
            "nearest by index, as if levels were evenly spaced",
            "That would be right for evenly spaced levels. How far are the first two of these "
            "apart, and the middle two?",
            {
                "(scaled[:, :, None] - levels).abs().argmin(dim=2)": (
                    "((scaled + 1) * 7.5).round().long()"
                )
            },
        ),
        Mistake(
            "the level below instead of the nearest",
            "Every number is rounded down. Which of its two neighbours is nearer?",
            {
                "(scaled[:, :, None] - levels).abs().argmin(dim=2)": (
                    "torch.searchsorted(levels, scaled, right=True) - 1"
                )
            },
        ),
        Mistake(
            "distance with its sign",
            "Everything has the same code. Of a distance that may be below zero, what is the "
            "smallest?",
            {"(scaled[:, :, None] - levels).abs().argmin": "(scaled[:, :, None] - levels).argmin"},
        ),
    ),
)
