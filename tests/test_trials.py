"""A finished run is looked into: whatever is done to its delta is judged as the run itself was."""

from dataclasses import replace

import pytest

from lorakit.experiment import finetune
from lorakit.run import Result, Run
from lorakit.trials import cut_rows, merge_rows, quantised_rows, swap_rows

RUN = Run(
    base="mini", task="json", lr=0.01, batch_size=8, steps=25, heldout=60, answers=0, sample=200
)


@pytest.fixture(scope="module")
def lora() -> Result:
    return finetune(RUN)


@pytest.fixture(scope="module")
def full() -> Result:
    return finetune(replace(RUN, method="full", lr=1e-3))


def matches(rows: list, **wanted) -> dict:
    return {
        row["k"]: row["match"] for row in rows if all(row[key] == wanted[key] for key in wanted)
    }


def test_a_whole_delta_answers_as_the_run_did_and_none_of_it_as_the_base(lora, full):
    of_lora, of_full = cut_rows(lora, (0, 4, None)), cut_rows(full, (0, None))
    assert lora.after.exact_match > 0.5 and full.after.exact_match > 0.5
    assert matches(of_lora, rest="base") == {
        0: lora.before.exact_match,
        4: pytest.approx(lora.after.exact_match, abs=0.2),
        None: lora.after.exact_match,
    }
    assert matches(of_full, rest="trained")[None] == full.after.exact_match
    assert matches(of_full, rest="base")[0] == full.before.exact_match
    assert {row["method"] for row in of_lora + of_full} == {"lora", "full"}


def test_a_cut_beyond_what_the_delta_has_is_left_out(lora):
    assert [row["k"] for row in cut_rows(lora, (4, 8, 16, None))] == [4, None]


def test_each_adapter_answers_its_own_task_alone(lora):
    other = finetune(replace(RUN, task="quiz"))
    found = {(row["adapter"], row["task"]): row["match"] for row in swap_rows([lora, other])}
    assert found["json", "json"] == lora.after.exact_match > 0.5
    assert found["quiz", "quiz"] == other.after.exact_match > 0.5
    assert found["json", "quiz"] < 0.1 and found["quiz", "json"] < 0.1


def test_a_merge_loses_more_of_the_delta_the_shorter_the_dtype(lora):
    by_dtype = {row["dtype"]: row for row in merge_rows(lora)}
    assert [*by_dtype] == ["float32", "bfloat16", "float16"]
    for measure in ("lost", "unchanged", "logits"):
        short, half, whole = (by_dtype[d][measure] for d in ("bfloat16", "float16", "float32"))
        assert short > half > whole >= 0
    assert by_dtype["float32"]["merged"] == by_dtype["float32"]["kept"] == lora.after.exact_match
    assert all(0 < row["size"] < 1 for row in by_dtype.values())


def test_an_adapter_over_4_bits_is_judged_as_trained_and_merged_three_ways():
    result = finetune(replace(RUN, method="qlora"))
    rows = {row["model"]: row for row in quantised_rows(result)}
    assert [*rows] == ["as trained", "original", "dequantised", "quantised again"]
    assert rows["as trained"]["match"] == result.after.exact_match > 0.5
    assert rows["dequantised"]["logits"] < 1e-5
    assert rows["original"]["logits"] > 1e-3 < rows["quantised again"]["logits"]
    assert rows["dequantised"]["match"] == result.after.exact_match


def test_a_trial_leaves_the_run_as_it_was(lora):
    before = {name: p.clone() for name, p in lora.model.named_parameters()}
    for trial in (cut_rows, merge_rows):
        trial(lora)
    after = dict(lora.model.named_parameters())
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
