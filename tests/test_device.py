"""The device is the one asked for, or a clear refusal."""

import pytest
import torch

from lorakit.device import describe, pick_device


def test_the_variable_decides(monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "cpu")
    assert pick_device() == torch.device("cpu")
    monkeypatch.setenv("LORAKIT_DEVICE", "abacus")
    with pytest.raises(ValueError, match=r"'abacus' is not available: here there is .*cpu"):
        pick_device()


def test_without_a_wish_the_first_there_is_is_taken(monkeypatch):
    monkeypatch.delenv("LORAKIT_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device().type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device().type == "cpu"


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread"), (3, "3 threads")])
def test_the_cpu_says_how_many_threads_it_uses(threads, words, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert describe(torch.device("cpu")) == f"CPU, {words}"
