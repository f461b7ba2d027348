"""What can be shown of a recorded function without a GPU; the rest is in test_cuda.py."""

import pytest
import torch

from lorakit.capture import Captured, warm_up


def test_warming_up_calls_and_leaves_the_state_as_it_was():
    weight, dead = torch.ones(3, requires_grad=True), torch.tensor(False)
    seen = []

    def function():
        with torch.no_grad():
            weight.mul_(2)
            dead.fill_(True)
        seen.append(weight.tolist())

    warm_up(function, [weight, dead])
    assert seen == [[2.0] * 3, [4.0] * 3, [8.0] * 3]
    assert weight.tolist() == [1.0] * 3 and not dead


def test_a_failure_while_warming_up_leaves_the_state_as_it_was():
    weight = torch.ones(3)

    def function():
        weight.mul_(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        warm_up(function, [weight])
    assert weight.tolist() == [1.0] * 3


def test_an_input_that_is_on_no_gpu_is_refused_and_named():
    with pytest.raises(ValueError, match="input 0 is on cpu: only a GPU's kernels"):
        Captured(torch.neg, [torch.ones(3)], state=[])
