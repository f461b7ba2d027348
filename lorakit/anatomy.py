"""What deltas are made of, over seeds: their spectra, where they point, and what they amplify.

    python -m lorakit.anatomy mini data/results/anatomy-mini.json
    python -m lorakit.anatomy smollm2 data/results/anatomy-smollm2.json      minutes on a GPU

Full fine-tuning and two LoRA ranks, each method at its own learning rate, six seeds each. Every
number stands beside what chance gives at the same shape. Overlaps are of input directions, as in
the paper, and always of two seeds: with one seed a GPU draws the same first rows of A at any rank,
and two ranks would agree before they have learnt anything.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lorakit.begin import begin
from lorakit.checkpoint import load_base
from lorakit.deltas import Delta, delta_of_matrix, delta_of_product
from lorakit.files import write_rows
from lorakit.lora import ALL_LINEAR, lora_layers, target_layers
from lorakit.model import Llama
from lorakit.run import Run
from lorakit.spectrum import energy, random_values, rank_for, stable_rank
from lorakit.subspaces import amplification, intruders, overlaps, random_cosine
from lorakit.sweep import machine

Row = dict[str, Any]
SEEDS = range(6)  # an overlap is of two seeds that are neighbours: five of them
FEW, MANY = 8, 64  # the two ranks


@dataclass(frozen=True)
class Plan:
    """Runs that differ in method, rank and seed, and the layers that are looked at."""

    full: Run
    lora: Run
    layers: tuple[str, ...] | str = ALL_LINEAR

    def runs(self, seed: int) -> dict[str, Run]:
        """By name: full, and the two ranks."""
        found = {"full": self.full}
        found |= {f"r{rank}": replace(self.lora, rank=rank) for rank in (FEW, MANY)}
        return {name: replace(run, seed=seed) for name, run in found.items()}


def _mini(task: str, steps: int) -> Plan:
    run = Run(base="mini", task=task, steps=steps, batch_size=16, heldout=500, answers=0)
    run = replace(run, sample=800)
    return Plan(replace(run, method="full", lr=1e-3), replace(run, lr=1e-2))


def _real(task: str) -> Plan:
    run = Run(base="smollm2", task=task, answers=0)
    parts = ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    layers = tuple(f"model.layers.{depth}.{part}" for depth in (0, 14, 29) for part in parts)
    return Plan(replace(run, method="full"), run, layers)


PLANS: dict[str, tuple[Plan, ...]] = {
    "mini": (_mini("json", 60), _mini("manners-dialect", 150)),
    "smollm2": (_real("orders"),),
}


def study(
    plan: Plan, seeds: Sequence[int], report: Callable[[str], None]
) -> Iterator[dict[str, list[Row]]]:
    """By seed: a row a run and layer ("deltas"), and one a pair of runs and layer ("overlaps")."""
    base = load_base(plan.full.base)[0]
    before = {name: m.weight.detach() for name, m in target_layers(base, plan.layers).items()}
    chance = _Chance(before)
    last: dict[str, Delta] = {}  # the seed before's
    for seed in seeds:
        rows: list[Row] = []
        found: dict[str, dict[str, Delta]] = {}
        for name, run in plan.runs(seed).items():
            training = begin(run)
            history = training.run()
            found[name] = _deltas(training.model, before)
            told = {"task": run.task, "seed": seed, "method": name, "lr": run.learning_rate}
            with ThreadPoolExecutor() as pool:  # an SVD lets other threads work
                looked = pool.map(lambda d: _look(d, before[d.layer], chance), found[name].values())
                rows += [told | row for row in looked]
            report(f"{run.task}, seed {seed}, {name}: {history.seconds:.0f} s")
        few, many = found[f"r{FEW}"], found[f"r{MANY}"]
        told = {"task": plan.full.task, "seed": seed}
        pairs = [told | {"pair": "ranks"} | _meet(few[name], last[name]) for name in last]
        pairs += [told | {"pair": "seeds"} | _meet(last[name], many[name]) for name in last]
        last = many
        yield {"deltas": rows, "overlaps": pairs}


def _deltas(model: Any, before: dict[str, Tensor]) -> dict[str, Delta]:
    if layers := lora_layers(model):
        factors = {n: (m.B, m.A, m.config.scale) for n, m in layers if n in before}
        return {name: delta_of_product(name, *parts) for name, parts in factors.items()}
    after = {name: layer.weight.detach() for name, layer in _layers(model).items()}
    return {name: delta_of_matrix(name, after[name].to(W) - W) for name, W in before.items()}


def _layers(model: Llama) -> dict[str, Any]:
    return target_layers(model, ALL_LINEAR)


class _Chance:
    """What random matrices of the layers' shapes give; each shape is reckoned once."""

    def __init__(self, weights: dict[str, Tensor]):
        shapes = {(W.shape[0], W.shape[1]) for W in weights.values()}
        values = {shape: random_values(shape, 1.0) for shape in shapes}
        self.energy = {shape: energy(found, FEW) for shape, found in values.items()}
        self.rank_90 = {shape: rank_for(found) for shape, found in values.items()}
        self.cosine = {shape: random_cosine(shape[0], min(shape)) for shape in shapes}


def _look(delta: Delta, W: Tensor, chance: _Chance) -> Row:
    values, rank = delta.values, min(FEW, len(delta.values))
    amplified = amplification(delta.U, values, delta.V, W, rank)
    count, cosines = intruders(W, W + delta.matrix())
    numbers = {
        "norm": delta.norm,
        "norm_of_W": W.norm().item(),
        "energy_8": energy(values, FEW),
        "random_energy_8": chance.energy[delta.shape],
        "stable_rank": stable_rank(values),
        "in_delta": amplified.in_delta,
        "in_W": amplified.in_W,
        "in_random": amplified.in_random,
        "factor": amplified.factor,
        "cosine": sum(cosines) / len(cosines),
        "random_cosine": chance.cosine[delta.shape],
    }
    ranks = {"rank_90": rank_for(values), "random_rank_90": chance.rank_90[delta.shape]}
    rounded = {name: float(f"{value:.4g}") for name, value in numbers.items()}
    return {"layer": delta.layer} | rounded | ranks | {"intruders": count}


def _meet(first: Delta, second: Delta) -> Row:
    """Overlaps of the first directions of two deltas: phi(1, 1), phi(8, 8), and of all of them.

    Random ones overlap by max(i, j) / d in the mean.
    """
    found, d = overlaps(first.V, second.V), first.V.shape[0]
    row: Row = {"layer": first.layer}
    for name, (i, j) in {"1": (1, 1), "8": (FEW, FEW), "all": found.shape}.items():
        row |= {name: round(found[i - 1, j - 1].item(), 4), f"random_{name}": max(i, j) / d}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what deltas are made of.")
    parser.add_argument("base", choices=PLANS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    options = parser.parse_args()

    def report(sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    tables: dict[str, list] = {"runs": [], "deltas": [], "overlaps": []}
    command = f"python -m lorakit.anatomy {options.base} {options.out} --seeds {options.seeds}"
    for plan in PLANS[options.base]:
        tables["runs"] += [asdict(run) for run in plan.runs(0).values()]
        for found in study(plan, range(options.seeds), report):
            for name, rows in found.items():
                tables[name] += rows
            write_rows(options.out, {"command": command, "made": machine()}, tables)


if __name__ == "__main__":
    main()
