"""Merges that others write."""

import pytest

from lorakit.checks import check_merge


def merge(layer):
    if not layer.merged:
        layer.original = layer.base.weight.detach().clone()
        layer.base.weight.data += layer.delta()


def unmerge(layer):
    layer.base.weight.data.copy_(layer.original)
    layer.original = None


def forgetful(layer):
    layer.base.weight.data += layer.delta()


def without_a_look(layer):
    layer.original = layer.base.weight.detach().clone()
    layer.base.weight.data += layer.delta()


def by_subtraction(layer):
    layer.base.weight.data -= layer.delta()
    layer.original = None


def half(layer):
    if not layer.merged:
        layer.original = layer.base.weight.detach().clone()
        layer.base.weight.data += layer.delta() / 2


def test_another_pair_is_right():
    check_merge(merge, unmerge, strict=True)


@pytest.mark.parametrize(
    ("pair", "name"),
    [
        ((merge, by_subtraction), "unmerged by subtraction"),
        ((without_a_look, unmerge), "merged twice"),
        ((forgetful, by_subtraction), "delta counted twice"),
        ((half, unmerge), None),
        ((merge, lambda layer: None), None),
    ],
)
def test_what_others_do_wrong(pair, name):
    verdict = check_merge.judge(*pair)
    assert (verdict.name, verdict.kind == "mistake") == (name, name is not None)


def test_half_a_delta_is_told_by_its_size():
    told = check_merge.judge(half, unmerge).text
    assert told == "deltas in the weight after a merge: too small by about 2 times"
