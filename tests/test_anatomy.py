"""What is said of a delta is what its matrix says, and chance stands beside it."""

from dataclasses import replace

import pytest
import torch

from lorakit import anatomy as module
from lorakit.anatomy import PLANS, Plan, study
from lorakit.begin import begin
from lorakit.checkpoint import load_base
from lorakit.lora import lora_layers, target_layers
from lorakit.run import Run
from lorakit.spectrum import energy, random_values, rank_for, singular_values, stable_rank

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"


@pytest.fixture
def plan(small_base, monkeypatch) -> Plan:
    monkeypatch.setattr(module, "MANY", 16)
    run = Run(base=small_base, task="label", batch_size=4, steps=3, answers=0, sample=20)
    return Plan(replace(run, method="full", lr=1e-3), replace(run, lr=1e-2), (Q, DOWN))


@pytest.fixture
def found(plan) -> list:
    return list(study(plan, range(2), lambda sentence: None))


def dense(run: Run, layer: str) -> torch.Tensor:
    training = begin(run)
    training.run()
    if run.lora is None:
        after = target_layers(training.model, (layer,))[layer].weight
        return (after - target_layers(load_base(run.base)[0], (layer,))[layer].weight).detach()
    return dict(lora_layers(training.model))[layer].delta()


@pytest.mark.parametrize("method", ["full", "r8", "r16"])
@pytest.mark.parametrize("layer", [Q, DOWN])
def test_a_row_says_what_the_dense_delta_says(plan, found, method, layer):
    rows = [r for r in found[1]["deltas"] if (r["method"], r["layer"]) == (method, layer)]
    (row,) = rows
    delta = dense(plan.runs(1)[method], layer)
    values = singular_values(delta)
    assert row["seed"] == 1
    assert row["norm"] == pytest.approx(delta.norm().item(), rel=1e-3)
    assert row["energy_8"] == pytest.approx(energy(values, 8), rel=1e-3)
    assert row["stable_rank"] == pytest.approx(stable_rank(values), rel=1e-3)
    assert row["rank_90"] == rank_for(values)
    chance = random_values(tuple(delta.shape), 1.0)
    assert row["random_energy_8"] == pytest.approx(energy(chance, 8), rel=1e-3)
    assert row["random_rank_90"] == rank_for(chance)


def test_there_is_a_row_for_each_run_and_layer(found):
    for seed, tables in enumerate(found):
        rows = tables["deltas"]
        assert {(r["method"], r["layer"]) for r in rows} == {
            (method, layer) for method in ("full", "r8", "r16") for layer in (Q, DOWN)
        }
        assert len(rows) == 6
        assert {r["seed"] for r in rows} == {seed}


def test_overlaps_are_of_two_seeds_and_there_is_none_for_the_first(found):
    assert found[0]["overlaps"] == []
    assert [(r["pair"], r["layer"]) for r in found[1]["overlaps"]] == [
        ("ranks", Q),
        ("ranks", DOWN),
        ("seeds", Q),
        ("seeds", DOWN),
    ]


def test_an_overlap_is_that_of_the_input_directions(plan, found):
    (row,) = [r for r in found[1]["overlaps"] if (r["pair"], r["layer"]) == ("ranks", Q)]
    few, many = dense(plan.runs(1)["r8"], Q), dense(plan.runs(0)["r16"], Q)
    first, second = (torch.linalg.svd(delta).Vh for delta in (few, many))
    assert row["1"] == pytest.approx((first[0] @ second[0]).square().item(), abs=2e-4)
    shared = (first[:8] @ second[:16].T).square().sum().item() / 8
    assert row["all"] == pytest.approx(shared, abs=2e-4)
    assert (row["random_1"], row["random_8"], row["random_all"]) == (1 / 32, 8 / 32, 16 / 32)


def test_each_base_has_its_plans_and_a_method_its_own_rate():
    assert set(PLANS) == {"mini", "smollm2"}
    for plan in [plan for plans in PLANS.values() for plan in plans]:
        runs = plan.runs(3)
        assert list(runs) == ["full", "r8", "r64"]
        assert {run.seed for run in runs.values()} == {3}
        assert runs["full"].learning_rate < runs["r8"].learning_rate
        assert runs["r64"].rank == 64
