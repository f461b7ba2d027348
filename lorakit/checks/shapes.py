"""The exercise on shapes: how high a rank stays under 1% of a weight."""

from collections.abc import Callable, Iterator

from lorakit.checks.exercise import Exercise, Facet, Mistake

# Square and not, of models that people know; of the last one rank 8 is 1% to the digit.
SHAPES = {
    "mini, attention": (128, 128),
    "mini, MLP": (352, 128),
    "SmolLM2-135M, key": (192, 576),
    "SmolLM2-135M, MLP": (1536, 576),
    "Llama 3 8B, query": (4096, 4096),
    "Llama 3 8B, MLP": (14_336, 4096),
    "a weight 1,600 wide": (1600, 1600),
}


def _ranks(highest_rank: Callable[[int, int], int]) -> Iterator[Facet]:
    for name, shape in SHAPES.items():
        yield f"{name}, {shape[0]:,} x {shape[1]:,}", highest_rank(*shape)


check_highest_rank = Exercise(
    key="highest-rank",
    page="02",
    prompt="""\
### Exercise: under 1%

"LoRA trains under 1% of the weights." Up to which rank is that so? Beside one weight of *out* x
*in* numbers: the highest rank whose A and B have *less* than 1% as many. 0, if not even rank 1
has.

Then try it on shapes of your own. How wide must a square weight be for rank 8?""",
    imports="import math",
    starter="""\
def highest_rank(out_features: int, in_features: int) -> int:
    return ...""",
    solution="""\
def highest_rank(out_features: int, in_features: int) -> int:
    limit = 0.01 * out_features * in_features / (out_features + in_features)
    return math.ceil(limit) - 1""",
    answers=("highest_rank",),
    observe=_ranks,
    first=(
        "Write down the share that rank r trains, r (in + out) / (in * out), and ask when it is "
        "0.01"
    ),
    hints=(
        "solve share = 0.01 for the rank. It is seldom a whole number: which whole rank is the "
        "last below?",
        "what should it say for 128 x 128, where rank 1 is 1.6% already? And for 1,600 x 1,600, "
        "where rank 8 is 1% to the digit?",
    ),
    example="highest_rank(4096, 4096)",
    right=(
        "The mini model has no such rank at all; rank 8 needs a square weight more than 1,600 wide"
    ),
    mistakes=(
        Mistake(
            "rank counted once, only A",
            "Too generous. The share has A's numbers in it; has it B's?",
            {"(out_features + in_features)": "in_features"},
        ),
        Mistake(
            "every weight taken as square, as wide as its output",
            "On square weights it is right. Is 2 r / d true of one that is not?",
            {"(out_features + in_features)": "(2 * in_features)"},
        ),
        Mistake(
            "every weight taken as square, as wide as its input",
            "On square weights it is right. Is 2 r / d true of one that is not?",
            {"(out_features + in_features)": "(2 * out_features)"},
        ),
        Mistake(
            "rank rounded up",
            "Put your rank into the share again: is it below 1%, or just above?",
            {"math.ceil(limit) - 1": "math.ceil(limit)"},
        ),
        Mistake(
            "rank rounded to the nearest",
            "On some shapes it is one too many. On which side of the limit is the nearest whole "
            "number?",
            {"math.ceil(limit) - 1": "round(limit)"},
        ),
        Mistake(
            "exactly 1% let in",
            "Right on all shapes but one. What is the share of rank 8 beside 1,600 x 1,600, to "
            "the digit?",
            {"math.ceil(limit) - 1": "math.floor(limit)"},
        ),
        Mistake(
            "at least rank 1",
            "Beside the narrowest weight your rank trains more than 1%. Must there be a rank that "
            "does not?",
            {"math.ceil(limit) - 1": "max(1, math.ceil(limit) - 1)"},
        ),
        Mistake(
            "percent taken for a share",
            "A hundred times too generous. Is 1% written 1?",
            {"0.01": "1"},
        ),
    ),
)
