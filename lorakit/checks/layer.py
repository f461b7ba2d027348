"""The exercise on the layer: write it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from lorakit.checks.difference import times
from lorakit.checks.exercise import Exercise, Facet, Mistake


def _kind(factor: Any) -> Any:
    if factor is ...:
        return factor
    return "missing" if factor is None else type(factor).__name__


def _layer(make_layer: Callable[[nn.Linear, int, float], Any]) -> Iterator[Facet]:
    base, x = nn.Linear(6, 4), torch.randn(5, 6)
    expected = base(x).detach()
    layer = make_layer(base, 2, 8.0)
    for name in "AB":
        yield f"what {name} is", _kind(getattr(layer, name, None))
    yield "shape of A", tuple(layer.A.shape)
    yield "shape of B", tuple(layer.B.shape)
    yield "B starts at zero", not layer.B.any().item()
    yield "A starts at zero", not layer.A.any().item()
    yield "a fresh layer's output is zero", not layer(x).any().item()
    yield "a fresh layer computes what its base does", torch.allclose(layer(x), expected)
    yield "A and B train", layer.A.requires_grad and layer.B.requires_grad
    others = [p for p in layer.parameters() if p is not layer.A and p is not layer.B]
    yield "something else trains", any(p.requires_grad for p in others)
    for rank in (2, 4):
        layer = make_layer(base, rank, 8.0)
        nn.init.normal_(layer.A)
        nn.init.zeros_(layer.B)
        without = layer(x).detach()
        nn.init.normal_(layer.B)
        added = layer(x) - without
        yield f"the delta at rank {rank}, alpha 8", times(added, x @ layer.A.T @ layer.B.T)
    added.square().sum().backward()
    yield "A and B get a gradient", all(p.grad is not None for p in (layer.A, layer.B))


check_lora_linear = Exercise(
    key="lora-linear",
    page="02",
    prompt=r"""
### Exercise: write the layer

$$y = W x + \frac{\alpha}{r}\, B A\, x \qquad B: \text{out} \times r, \quad A: r \times \text{in}$$

`base` computes $W x$ and stays as it is. $A$ starts at random, $B$ at zero. Call the two
parameters `A` and `B`.""".lstrip(),
    imports="import math\nimport torch\nfrom torch import nn",
    starter="""\
class MyLoRA(nn.Module):
    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base = base
        self.scale = ...
        self.A = ...
        self.B = ...

    def forward(self, x):
        return ...""",
    solution="""\
class MyLoRA(nn.Module):
    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = alpha / rank
        self.A = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)""",
    answers=("MyLoRA",),
    observe=_layer,
    first=(
        "Which shape has A, if it takes `base.in_features` numbers to `rank`? Make it an "
        "`nn.Parameter`"
    ),
    hints=(
        "x has its features last. Which of A's sides meets them, and what do you multiply x by?",
        "three things to look at before you train: is the output the base's, what requires a "
        "gradient, and how large is the delta beside B A?",
    ),
    example=(
        "sum(p.numel() for p in MyLoRA(nn.Linear(6, 4), 2, 8.0).parameters() if p.requires_grad)"
    ),
    right="A fresh one computes what its base does, and only A and B train",
    mistakes=(
        Mistake(
            "transposed factors",
            "A is in x rank and B is rank x out, as they stand in your code. Which way round does "
            "the formula have them, if x is a column?",
            {
                "torch.randn(rank, base.in_features)": "torch.randn(base.in_features, rank)",
                "torch.zeros(base.out_features, rank)": "torch.zeros(rank, base.out_features)",
                "x @ self.A.T @ self.B.T": "x @ self.A @ self.B",
            },
        ),
        Mistake(
            "factors not transposed in forward",
            "The shapes are right, and x does not fit them. x is a row here: what is A x of a row?",
            {"x @ self.A.T @ self.B.T": "x @ self.A @ self.B"},
        ),
        Mistake(
            "both zero",
            "Each one's gradient is multiplied by the other. What is the first step's, of either?",
            {"torch.randn(rank, base.in_features)": "torch.zeros(rank, base.in_features)"},
        ),
        Mistake(
            "both random",
            "Before it is trained your layer is not its base any more. Which of A and B has to be "
            "what for that?",
            {"torch.zeros(base.out_features, rank)": "torch.randn(base.out_features, rank)"},
        ),
        Mistake(
            "A zero instead of B",
            "It starts as its base, and can learn. Which of the two does the exercise want at "
            "zero?",
            {
                "torch.randn(rank, base.in_features)": "torch.zeros(rank, base.in_features)",
                "torch.zeros(base.out_features, rank)": "torch.randn(base.out_features, rank)",
            },
        ),
        Mistake(
            "base not frozen",
            "Ask your layer which parameters require a gradient. Whose are the others?",
            {"base.requires_grad_(False)": "base"},
        ),
        Mistake(
            "A and B are no parameters",
            "What would the optimizer find in your layer's `parameters()`?",
            {
                "nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))": (
                    "torch.randn(rank, base.in_features) / math.sqrt(base.in_features)"
                ),
                "nn.Parameter(torch.zeros(base.out_features, rank))": (
                    "torch.zeros(base.out_features, rank)"
                ),
            },
        ),
        Mistake(
            "A and B are layers",
            "A and B are an nn.Linear each. The formula has matrices: which of a layer's "
            "attributes is one?",
            {
                "nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))": (
                    "nn.Linear(base.in_features, rank, bias=False)"
                ),
                "nn.Parameter(torch.zeros(base.out_features, rank))": (
                    "nn.Linear(rank, base.out_features, bias=False)"
                ),
                "(x @ self.A.T @ self.B.T)": "self.B(self.A(x))",
            },
        ),
        Mistake(
            "bias lost",
            "With B at zero your output differs from `base(x)`. What does `base` add that "
            "`base.weight` has not?",
            {"self.base(x)": "x @ self.base.weight.T"},
        ),
        Mistake(
            "base left out",
            "With B at zero your output is zero. What should be left then?",
            {"self.base(x) + ": ""},
        ),
        Mistake(
            "alpha / r missing",
            "Your delta is B A, whatever alpha is. What stands before B A in the formula?",
            {"alpha / rank": "1"},
        ),
        Mistake(
            "alpha not divided by the rank",
            "Your delta grows with the rank at one alpha. By what does the formula divide?",
            {"alpha / rank": "alpha"},
        ),
        Mistake(
            "divided by the root of the rank",
            "That is rank-stabilised LoRA. By what does the formula above divide?",
            {"alpha / rank": "alpha / math.sqrt(rank)"},
        ),
        Mistake(
            "scale upside down",
            "A larger alpha makes your delta smaller. Which of the two is on top?",
            {"alpha / rank": "rank / alpha"},
        ),
        Mistake(
            "scale applied twice",
            "Your delta is the square of the scale times B A. In how many places do you multiply?",
            {"self.scale * (": "self.scale * self.scale * ("},
        ),
        Mistake(
            "gradient cut off",
            "The outputs are right, and nothing would learn. What do `.data`, `.detach()` and "
            "`no_grad` do to a gradient?",
            {"x @ self.A.T @ self.B.T": "x @ self.A.data.T @ self.B.data.T"},
        ),
    ),
)
