"""What the delta of a full fine-tune is worth when it is cut to a few singular values.

    cut             each linear layer's delta keeps its first k values, all else is as trained
    cut_alone       the same, and embedding and norms are the base's: what an adapter could carry
    rest_alone      likewise, and each delta keeps all values but the first k
    layers_alone    likewise, and each delta is whole

Where `layers_alone` fails, the task was learnt in the embedding, and no cut is to blame.
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
    models = {n: stack.plain() for n in ("cut", "cut_alone", "rest_alone", "layers_alone")}
    for place, trained in stack.parameters.items():
        models["cut"].get_parameter(place).copy_(trained)
    shares: list[list[float]] = [[] for _ in runs]
    for layer, W in before.items():
        delta = stack.parameters[f"{layer}.weight"] - W
        for share, values in zip(shares, singular_values(delta), strict=True):
            share.append(energy(values, k))
        kept = truncate(delta, k)
        changes = {
            "cut": kept,
            "cut_alone": kept,
            "rest_alone": delta - kept,
            "layers_alone": delta,
        }
        for name, change in changes.items():
            models[name].get_parameter(f"{layer}.weight").copy_(W + change)
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
