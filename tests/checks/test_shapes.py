"""The highest rank under 1%, found in other ways, and checked against its own share."""

import pytest

from lorakit.checks import check_highest_rank
from lorakit.checks.shapes import SHAPES
from lorakit.counts import skeleton
from lorakit.presets import PRESETS


def share(rank, shape):
    return rank * sum(shape) / (shape[0] * shape[1])


def by_search(out_features, in_features):
    rank = 0
    while share(rank + 1, (out_features, in_features)) < 0.01:
        rank += 1
    return rank


def in_whole_numbers(out_features, in_features):
    return (out_features * in_features - 1) // (100 * (out_features + in_features))


@pytest.mark.parametrize("highest_rank", [by_search, in_whole_numbers])
def test_other_ways_are_right(highest_rank):
    check_highest_rank(highest_rank, strict=True)


@pytest.mark.parametrize("shape", [*SHAPES.values(), (1, 1), (99, 7), (200, 200), (201, 201)])
def test_the_solutions_rank_is_below_one_percent_and_the_next_is_not(shape):
    (highest_rank,) = check_highest_rank.answer(check_highest_rank.solution)
    rank = highest_rank(*shape)
    assert share(rank, shape) < 0.01 <= share(rank + 1, shape)


def test_on_a_toy_not_even_rank_1_is_under_one_percent_and_rank_8_wants_a_width_above_1600():
    assert by_search(128, 128) == by_search(352, 128) == 0
    assert (by_search(1600, 1600), by_search(1601, 1601)) == (7, 8)
    assert by_search(4096, 4096) == 20


@pytest.mark.parametrize(
    ("case", "preset", "layer"),
    [
        ("mini, attention", "mini", "self_attn.q_proj"),
        ("mini, MLP", "mini", "mlp.up_proj"),
        ("SmolLM2-135M, key", "smollm2-135m", "self_attn.k_proj"),
        ("SmolLM2-135M, MLP", "smollm2-135m", "mlp.gate_proj"),
        ("Llama 3 8B, query", "llama-3-8b", "self_attn.q_proj"),
        ("Llama 3 8B, MLP", "llama-3-8b", "mlp.up_proj"),
    ],
)
def test_shapes_are_those_of_the_models(case, preset, layer):
    weight = skeleton(PRESETS[preset]).get_parameter(f"model.layers.0.{layer}.weight")
    assert tuple(weight.shape) == SHAPES[case]


@pytest.mark.parametrize(
    ("highest_rank", "name"),
    [
        (lambda o, i: by_search(o, i) + 1, "rank rounded up"),
        (lambda o, i: max(by_search(o, i), 1), "at least rank 1"),
        (lambda o, i: int(0.005 * i), "every weight taken as square, as wide as its input"),
        (lambda o, i: by_search(i, i), "every weight taken as square, as wide as its input"),
        (lambda o, i: by_search(o, o), "every weight taken as square, as wide as its output"),
        (lambda o, i: 0.01 * o * i / (o + i), None),
    ],
    ids=["one more", "at least 1", "cut off", "input", "output", "not whole"],
)
def test_what_others_do_wrong(highest_rank, name):
    assert check_highest_rank.judge(highest_rank).name == name
