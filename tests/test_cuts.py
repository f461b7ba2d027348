"""A delta cut to a few directions: all of them are the whole, none is the base."""

from dataclasses import replace

import pytest

from lorakit.checkpoint import load_base
from lorakit.cuts import cut_runs
from lorakit.mini_tasks import examples
from lorakit.run import Run
from lorakit.scoring import score
from lorakit.text import encode_example


@pytest.fixture
def run(small_base) -> Run:
    return Run(
        base=small_base,
        task="label",
        method="full",
        lr=3e-2,
        batch_size=8,
        steps=20,
        heldout=50,
        answers=0,
    )


def base_match(run: Run) -> float:
    base, tokenizer = load_base(run.base)
    heldout = [encode_example(tokenizer, e) for e in examples(run.task, "heldout", run.heldout)]
    return score(base, heldout, pad_id=tokenizer.pad_id).exact_match


def test_with_every_direction_the_cut_is_the_whole_and_the_rest_is_the_base(run):
    runs = [run, replace(run, seed=1)]
    for row, one in zip(cut_runs(runs, k=48), runs, strict=True):
        assert Run(**row["run"]) == one
        assert row["cut"] == row["heldout"] > 0
        assert row["cut_alone"] == row["layers_alone"]
        assert row["rest_alone"] == base_match(run) == 0
        assert row["energy"] == pytest.approx(1) == row["energy_random"]


def test_with_no_direction_the_cut_alone_is_the_base_and_the_rest_all_of_the_layers(run):
    (row,) = cut_runs([run], k=0)
    assert row["cut_alone"] == base_match(run) == 0
    assert row["rest_alone"] == row["layers_alone"]
    assert row["energy"] == row["energy_random"] == 0


def test_a_delta_has_more_energy_in_a_few_directions_than_chance(run):
    (row,) = cut_runs([run], k=4)
    assert 1 > row["energy"] > row["energy_random"] > 0


def test_an_adapter_has_no_delta_to_cut(run):
    with pytest.raises(ValueError, match="only a full fine-tune has a delta to cut"):
        cut_runs([replace(run, method="lora")])
