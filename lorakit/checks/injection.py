"""Exercises on a model: put adapters into it, and keep their multiplier at another rank."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from lorakit.checks.exercise import Exercise, Facet, Mistake
from lorakit.lora import lora_layers
from lorakit.model import Llama, ModelConfig

TINY = ModelConfig(
    vocab_size=11,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=8,
)


def _adapted(adapt: Callable[[nn.Module, int, float], torch.optim.Optimizer]) -> Iterator[Facet]:
    model = Llama(TINY)
    optimizer = adapt(model, 2, 8.0)
    layers = dict(lora_layers(model))
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    trains = {name: p for name, p in model.named_parameters() if p.requires_grad}
    yield "the head has an adapter", "lm_head" in layers
    yield "the number of layers with an adapter", len(layers)
    yield "what trains", sorted({name.rpartition(".")[2] for name in trains})
    yield "the optimizer has all that trains", held >= {id(p) for p in trains.values()}
    yield "rank and alpha", sorted({(a.config.rank, a.config.alpha) for a in layers.values()})


check_adapt = Exercise(
    key="adapt",
    page="02",
    prompt="""\
### Exercise: inject and freeze

Put an `lk.LoRALinear` beside every linear layer but `lm_head`, let nothing else train, and return
an AdamW that has all that trains. (`model.set_submodule(name, layer)` puts a layer in another's
place; `lk.freeze` stops everything. `lk.inject` does most of it: do it without.)""",
    imports="import lorakit as lk\nimport torch\nfrom torch import nn",
    starter="""\
def adapt(model: nn.Module, rank: int, alpha: float) -> torch.optim.Optimizer:
    config = lk.LoRAConfig(rank=rank, alpha=alpha)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    return ...""",
    solution="""\
def adapt(model: nn.Module, rank: int, alpha: float) -> torch.optim.Optimizer:
    config = lk.LoRAConfig(rank=rank, alpha=alpha)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    lk.freeze(model)
    for name, layer in layers.items():
        if name != "lm_head":
            model.set_submodule(name, lk.LoRALinear(layer, config))
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])""",
    answers=("adapt",),
    observe=_adapted,
    first="Replace one layer, say `model.layers.0.mlp.up_proj`, and look at `model` again",
    hints=(
        "three things in an order: freeze, replace, build the optimizer. What goes wrong in "
        "another?",
        "print the names of what requires a gradient: are there any but A and B?",
    ),
    example=(
        'sum(len(g["params"]) for g in adapt(lk.Llama(lk.PRESETS["mini"]), 8, 16.0).param_groups)'
    ),
    right="The base is frozen, the head left alone, and the optimizer has every A and B",
    mistakes=(
        Mistake(
            "head adapted too",
            "One adapter too many. Whose weight is it that the head uses?",
            {'        if name != "lm_head":\n            model': "        model"},
        ),
        Mistake(
            "q and v alone",
            "Adapters on fewer layers than the exercise wants. Which linear layers has a block "
            "besides q and v?",
            {'name != "lm_head"': 'name.endswith(("q_proj", "v_proj"))'},
        ),
        Mistake(
            "base not frozen",
            "A and B train, and something else does. Is everything that you did not replace "
            "frozen?",
            {"    lk.freeze(model)\n": ""},
        ),
        Mistake(
            "frozen after the adapters came",
            "Nothing trains at all. What did you freeze last?",
            {
                "    lk.freeze(model)\n": "",
                "    return": "    lk.freeze(model)\n    return",
            },
        ),
        Mistake(
            "optimizer built before the adapters",
            "A and B require a gradient, and no step would move them. Which parameters were there "
            "when the optimizer was built?",
            {
                "    lk.freeze(model)\n": (
                    "    optimizer = torch.optim.AdamW(model.parameters())\n    lk.freeze(model)\n"
                ),
                "return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])": (
                    "return optimizer"
                ),
            },
        ),
        Mistake(
            "rank and alpha left at their defaults",
            "It works, with another rank than was asked for. What does your config say?",
            {"lk.LoRAConfig(rank=rank, alpha=alpha)": "lk.LoRAConfig()"},
        ),
    ),
)


def _alphas(alpha_for: Callable[[int, float, int, bool], float]) -> Iterator[Facet]:
    for root, what in ((False, "alpha / r"), (True, "alpha / sqrt(r)")):
        yield f"from rank 8 to 32 with {what}", alpha_for(8, 16.0, 32, root)
        yield f"from rank 16 to 1 with {what}", alpha_for(16, 16.0, 1, root)


check_alpha_for = Exercise(
    key="alpha-for",
    page="04",
    prompt=r"""
### Exercise: keep the multiplier

An adapter of `rank` and `alpha` does well, and you want to try `new_rank`. Which alpha leaves the
multiplier as it was? It is $\alpha / r$, or, if `root`, $\alpha / \sqrt{r}$.""".lstrip(),
    imports="import math",
    starter="""\
def alpha_for(rank: int, alpha: float, new_rank: int, root: bool) -> float:
    return ...""",
    solution="""\
def alpha_for(rank: int, alpha: float, new_rank: int, root: bool) -> float:
    ratio = new_rank / rank
    return alpha * (math.sqrt(ratio) if root else ratio)""",
    answers=("alpha_for",),
    observe=_alphas,
    first="What is the multiplier before, at rank 8 and alpha 16?",
    hints=(
        "write down the multiplier before and after, and solve for the new alpha",
        "rank 8, alpha 16 is a multiplier of 2. For which alpha is it 2 at rank 32?",
    ),
    example="alpha_for(8, 16.0, 32, False)",
    right="A higher rank wants a higher alpha for the same multiplier, and with the root less so",
    mistakes=(
        Mistake(
            "alpha kept",
            "What is the multiplier at the new rank, if alpha stays?",
            {"alpha * (math.sqrt(ratio) if root else ratio)": "alpha"},
        ),
        Mistake(
            "divided where it should be multiplied",
            "The rank grows, and your alpha falls. What does that do to alpha / r?",
            {"new_rank / rank": "rank / new_rank"},
        ),
        Mistake(
            "root left out",
            "With alpha / r it is right. What stands below alpha if `root`?",
            {"(math.sqrt(ratio) if root else ratio)": "ratio"},
        ),
        Mistake(
            "root everywhere",
            "With alpha / sqrt(r) it would be right. And without `root`?",
            {"(math.sqrt(ratio) if root else ratio)": "math.sqrt(ratio)"},
        ),
        Mistake(
            "multiplier instead of alpha",
            "That is the multiplier itself. Which alpha gives it at the new rank?",
            {
                "alpha * (math.sqrt(ratio) if root else ratio)": (
                    "alpha / (rank**0.5 if root else rank)"
                )
            },
        ),
    ),
)
