"""Each brief has one method, by what the lab has measured or counts."""

import itertools
import json
from pathlib import Path

import pytest

import lorakit as lk
from lorakit.checks import check_methods
from lorakit.checks.briefs import BRIEFS, METHODS

RIGHT = dict(zip(BRIEFS, ("lora", "qlora", "full", "lora", "lora and embedding"), strict=True))


def fits(gigabytes: int, **options) -> bool:
    """One row of 512 tokens: whether a step of the 8B model stays within a GPU."""
    setup = lk.Setup(
        model=lk.PRESETS["llama-3-8b"], length=512, dtype="bfloat16", device="cuda", **options
    )
    return lk.estimate(setup).device <= gigabytes * 10**9


LORA = {"lora": lk.LoRAConfig(rank=8)}


def test_brief_a_and_b_are_decided_by_memory():
    assert fits(24, **LORA) and not fits(24)
    assert fits(12, **LORA, quantized=True) and not fits(12, **LORA)


def test_brief_c_is_decided_by_a_measurement():
    path = Path(__file__).parents[2] / "data/results/claims.json"
    claims = {claim["name"]: claim for claim in json.loads(path.read_text())["claims"]}
    told = claims["full wins, why"]["mini"]["measured"]
    assert "deep: everything 0.627" in told and "rank 8 and the rest 0.660" in told


def test_brief_e_does_not_fit_in_full():
    assert not fits(80)


def test_the_right_methods_are_right():
    check_methods(RIGHT, strict=True)


@pytest.mark.parametrize(
    ("brief", "method"),
    [(b, m) for b, m in itertools.product(BRIEFS, METHODS) if RIGHT[b] != m],
)
def test_every_wrong_method_of_a_brief_has_a_question_that_names_the_brief(brief, method):
    verdict = check_methods.judge(RIGHT | {brief: method})
    assert verdict.kind == "mistake"
    assert verdict.text.startswith(f"Brief {brief}: ")


def test_of_two_wrong_briefs_the_first_is_asked_about():
    assert check_methods.judge(RIGHT | {"B": "full", "D": "full"}).text.startswith("Brief B: ")


def test_a_method_that_there_is_not_is_told_without_the_right_one():
    told = check_methods.judge(RIGHT | {"D": "LoRA"}).text
    assert told == "methods that there are not: expected [], got ['LoRA']"


def test_a_brief_that_is_left_open_is_not_answered_yet():
    assert check_methods.judge(RIGHT | {"D": ...}).kind == "open"
