"""Exercises that count: the numbers that train, and the bytes that a step keeps for them."""

from collections.abc import Callable, Iterator

from torch import nn

from lorakit.checks.exercise import Exercise, Facet, Mistake
from lorakit.counts import skeleton
from lorakit.lora import LoRAConfig
from lorakit.presets import PRESETS


def _counts(adapter_parameters: Callable[[nn.Module, int], int]) -> Iterator[Facet]:
    for name, rank in (("mini", 1), ("mini", 8), ("smollm2-135m", 2)):
        yield f"{name} at rank {rank}", adapter_parameters(skeleton(PRESETS[name]), rank)


check_adapter_parameters = Exercise(
    key="adapter-parameters",
    page="02",
    prompt="""\
### Exercise: count an adapter

Rank $r$, an adapter beside every linear layer but the output head (`lm_head`). How many numbers
train? Count them from the shapes: `model.named_modules()` gives the layers' names and the layers,
and a linear layer knows its `in_features` and `out_features`.""",
    imports="import lorakit as lk\nfrom torch import nn",
    starter='''\
def adapter_parameters(model: nn.Module, rank: int) -> int:
    """Numbers in all A and B."""
    return ...''',
    solution='''\
def adapter_parameters(model: nn.Module, rank: int) -> int:
    """Numbers in all A and B."""
    total = 0
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and name != "lm_head":
            total += rank * (layer.in_features + layer.out_features)
    return total''',
    answers=("adapter_parameters",),
    observe=_counts,
    first="Take one linear layer: which shapes do its A and its B have?",
    hints=(
        "one layer of 352 x 128 at rank 8 has an A of 8 x 128. And its B?",
        "sum over the layers. How many linear layers has the mini model, and which of them is the "
        "head?",
    ),
    example='adapter_parameters(lk.Llama(lk.PRESETS["mini"]), 8)',
    right="At rank 8 that is 9.4% of the mini model; page 02 shows how it falls with the width",
    mistakes=(
        Mistake(
            "rank counted once, only A",
            "That is one of the two factors. What takes the rank's few numbers back to the "
            "layer's output?",
            {"(layer.in_features + layer.out_features)": "layer.in_features"},
        ),
        Mistake(
            "rank counted once, only B",
            "That is one of the two factors. What takes the layer's input to the rank's few "
            "numbers?",
            {"(layer.in_features + layer.out_features)": "layer.out_features"},
        ),
        Mistake(
            "head adapted too",
            "That is more layers than have an adapter. Which linear layer shares its weight with "
            "the embedding?",
            {' and name != "lm_head"': ""},
        ),
        Mistake(
            "delta counted instead of its factors",
            "That is as many numbers as the weights themselves have, times the rank. Is B A "
            "stored?",
            {"(layer.in_features + layer.out_features)": "layer.in_features * layer.out_features"},
        ),
        Mistake(
            "rank forgotten",
            "It does not depend on the rank. How many rows has A?",
            {"rank * (": "("},
        ),
    ),
)


def _mebibytes(training_mebibytes: Callable[[nn.Module], dict[str, float]]) -> Iterator[Facet]:
    for method, lora in (("in full", None), ("with LoRA", LoRAConfig(rank=8))):
        held = training_mebibytes(skeleton(PRESETS["mini"], lora))
        for part in ("weights", "gradients", "optimizer"):
            yield f"{part}, {method}", held[part]


check_training_mebibytes = Exercise(
    key="training-mebibytes",
    page="05",
    prompt="""\
### Exercise: the bill

What a step keeps for a model's parameters, before any activation: weights, gradients, AdamW's
state (leave out its step counters). All in float32, in MiB, $2^{20}$ bytes. Some parameters train
(`p.requires_grad`), some do not.""",
    imports="import lorakit as lk\nfrom torch import nn",
    starter="""\
def training_mebibytes(model: nn.Module) -> dict[str, float]:
    total = sum(p.numel() for p in model.parameters())
    return {"weights": ..., "gradients": ..., "optimizer": ...}""",
    solution="""\
def training_mebibytes(model: nn.Module) -> dict[str, float]:
    total = sum(p.numel() for p in model.parameters())
    trains = sum(p.numel() for p in model.parameters() if p.requires_grad)
    held = {"weights": 4 * total, "gradients": 4 * trains, "optimizer": 8 * trains}
    return {part: size / 2**20 for part, size in held.items()}""",
    answers=("training_mebibytes",),
    observe=_mebibytes,
    first="Begin with the weights: `total` numbers, how many bytes each?",
    hints=(
        "which of the three does a frozen parameter have?",
        "AdamW keeps running means of a gradient. Of what else about it?",
    ),
    example='training_mebibytes(lk.Llama(lk.PRESETS["mini"]))["optimizer"]',
    right="16 bytes for each parameter that trains, 4 for each that does not",
    mistakes=(
        Mistake(
            "MB for MiB",
            "Too large by a twentieth. How many bytes has a MiB?",
            {"2**20": "1e6"},
        ),
        Mistake(
            "bytes for MiB",
            "A mini model of a million MiB? In which unit is that?",
            {" / 2**20": ""},
        ),
        Mistake(
            "tied weights counted twice",
            "More numbers than the model has. Which two names in its state_dict() are one tensor?",
            {
                "total = sum(p.numel() for p in model.parameters())": (
                    "total = sum(p.numel() for p in model.state_dict().values())"
                )
            },
        ),
        Mistake(
            "weights counted only where they train",
            "Does a frozen weight take no memory, or no gradient?",
            {"4 * total": "4 * trains"},
        ),
        Mistake(
            "second Adam moment forgotten",
            "AdamW divides one running mean by the root of another. How many numbers is that for "
            "each parameter?",
            {"8 * trains": "4 * trains"},
        ),
        Mistake(
            "frozen weights have gradients",
            "In full it is right, with LoRA it is not. What does backward leave on a frozen "
            "parameter?",
            {"4 * trains": "4 * total"},
        ),
        Mistake(
            "optimizer state for what is frozen",
            "In full it is right, with LoRA it is not. For which parameters does the optimizer "
            "keep anything?",
            {"8 * trains": "8 * total"},
        ),
    ),
)
