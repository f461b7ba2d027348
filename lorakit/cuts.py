"""What the delta of a full fine-tune is worth when it is cut to a few singular values.

cut      each linear layer's delta keeps its first k values; embedding and norms as trained
alone    the same, and embedding and norms are the base's again: what an adapter could carry
rest     as `cut`, but each layer keeps all values except the first k
"""

import time
from collections.abc import Sequence
from dataclasses import asdict

import torch

from lorakit.lora import ALL_LINEAR, target_layers
from lorakit.run import Run
from lorakit.spectrum import energy, random_values, singular_values, truncate
from lorakit.sweep import Row, how_made, stack_runs


@torch.no_grad()
def cut_runs(runs: Sequence[Run], k: int = 8) -> list[Row]:
    """Train full fine-tunes of one task and judge each whole and cut.

    `energy` is the share of the first k values, a mean over layers; `energy_random` that of random
    matrices of the same shapes. Raises ValueError for a run that is not full fine-tuning.
    """
    if wrong := [run for run in runs if run.method != "full"]:
        raise ValueError(f"only a full fine-tune has a delta to cut, not {wrong[0]}")
    stack, judged = stack_runs(runs)
    start = time.perf_counter()
    while stack.position < stack.steps:
        with torch.enable_grad():
            stack.step()
    made = how_made(runs, time.perf_counter() - start)
    before = {name: layer.weight for name, layer in target_layers(stack.base, ALL_LINEAR).items()}
    models = {name: stack.plain() for name in ("cut", "alone", "rest")}
    for name in ("cut", "rest"):
        for place, trained in stack.parameters.items():
            models[name].get_parameter(place).copy_(trained)
    shares: list[list[float]] = [[] for _ in runs]
    for layer, W in before.items():
        delta = stack.parameters[f"{layer}.weight"] - W
        for share, values in zip(shares, singular_values(delta), strict=True):
            share.append(energy(values, k))
        kept = truncate(delta, k)
        for name, weight in {"cut": W + kept, "alone": W + kept, "rest": W + delta - kept}.items():
            models[name].get_parameter(f"{layer}.weight").copy_(weight)
    chance = [energy(random_values((W.shape[0], W.shape[1]), 1.0), k) for W in before.values()]
    whole = stack.score(judged.heldout)
    scores = {name: stack.score(judged.heldout, model=model) for name, model in models.items()}
    return [
        {
            "run": asdict(run),
            "k": k,
            "heldout": whole[i].exact_match,
            **{name: scored[i].exact_match for name, scored in scores.items()},
            "energy": round(sum(shares[i]) / len(before), 4),
            "energy_random": round(sum(chance) / len(before), 4),
            "made": made,
        }
        for i, run in enumerate(runs)
    ]
