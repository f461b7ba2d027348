"""What can be shown of a recorded function without a GPU; the rest is in test_cuda.py."""

from contextlib import contextmanager

import pytest
import torch

from lorakit.capture import Captured, recording, warm_up


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


class Gpu:
    """What `recording` touches of PyTorch's CUDA, and how a recording that breaks off leaves it."""

    def __init__(self, monkeypatch, *, ends: bool):
        self.ends = ends  # whether PyTorch itself ends the recording
        self.stream, self.busy, self.held = "the thread's", False, 0
        self.recording, self.state = False, 7
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.stream)
        monkeypatch.setattr(
            torch.cuda, "set_stream", lambda stream: vars(self).update(stream=stream)
        )
        monkeypatch.setattr(torch.cuda, "graph", self.graph)
        monkeypatch.setattr(torch.cuda, "default_generators", [None, self])
        monkeypatch.setattr(torch, "Generator", lambda device: Fresh(device))
        for name in ("endAllocateTo", "release"):
            call = getattr(self, name)
            monkeypatch.setattr(torch._C, f"_cuda_{name}Pool", call, raising=False)

    @contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        assert (pool, capture_error_mode) == ("pool", "thread_local")
        before, self.stream, self.busy, self.held = self.stream, stream, True, self.held + 1
        self.recording = True
        broken = False
        try:
            yield
        except BaseException:
            broken = True
            raise
        finally:
            self.state += 1
            if self.ends:
                self.stream, self.busy, self.recording = before, False, False
                self.held -= broken  # as the graph dies
            elif broken:
                raise RuntimeError("capture_end: operation not permitted")

    device = torch.device("cuda:1")

    def get_state(self):
        return self.state

    def graphsafe_set_state(self, state) -> None:
        self.state, self.busy = state, False

    def endAllocateTo(self, device, pool) -> None:
        if not self.recording:
            raise RuntimeError("not currently recording to mempool_id")
        self.recording = device != 1 or pool != "pool"

    def release(self, device, pool) -> None:
        self.held -= 1


class Fresh:
    """A generator of random numbers that no recording has used."""

    def __init__(self, device):
        assert device == torch.device("cuda:1")

    def set_state(self, state) -> None:
        self.state = state

    def graphsafe_get_state(self):
        return self.state


class Second:
    device_index = 1


@pytest.mark.parametrize("ends", [True, False], ids=["PyTorch ends it", "PyTorch cannot end it"])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_recording_that_breaks_off_leaves_nothing_behind(monkeypatch, error, ends):
    gpu = Gpu(monkeypatch, ends=ends)
    told = error if ends or error is KeyboardInterrupt else RuntimeError
    with pytest.raises(told), recording(None, Second(), "pool"):
        raise error
    assert (gpu.stream, gpu.busy, gpu.state) == ("the thread's", False, 7)
    assert not gpu.recording and gpu.held == 0


def test_a_recording_that_comes_to_its_end_keeps_its_pool_and_its_numbers(monkeypatch):
    gpu = Gpu(monkeypatch, ends=True)
    with recording(None, Second(), "pool"):
        assert isinstance(gpu.stream, Second)
    assert (gpu.stream, gpu.state, gpu.held) == ("the thread's", 8, 1)
