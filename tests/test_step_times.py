"""Where a step's time goes: real steps of each kind, phase by phase, in turns."""

from dataclasses import replace

import pytest

from lorakit.run import Run
from lorakit.step_times import KINDS, WARM, step_times
from lorakit.train import Training


@pytest.fixture
def run(small_base_to_read) -> Run:
    return Run(base=small_base_to_read, task="json", sample=20, rank=4, batch_size=2, steps=8)


@pytest.fixture
def trained(monkeypatch) -> list[tuple[int, tuple[str, ...]]]:
    """Of every real step: its number, and the classes of what trains beside the names of it."""
    done, real = [], Training.step

    def step(self, *args, **kwargs):
        record = real(self, *args, **kwargs)
        adapters = {type(m).__name__ for m in self.model.modules() if "LoRA" in type(m).__name__}
        done.append((record.step, (*sorted(adapters), len(self.parameters))))
        return record

    monkeypatch.setattr(Training, "step", step)
    return done


def test_each_kind_trains_what_its_name_says_and_they_take_turns(run, trained):
    step_times(run, steps=2)
    assert [number for number, _ in trained] == [n for n in (1, 2, 3, 4) for _ in KINDS]
    full, taught, fast, floor = (what for _, what in trained[:4])
    assert taught[0] == "LoRALinear" and fast[0] == "FastLoRALinear"
    assert taught[1] == fast[1]  # the same tensors train
    assert floor == (1,)
    assert len(full) == 1 and full[0] > 1


def test_the_times_are_medians_of_the_phases_after_the_first_steps(run, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock) ** 2))
    found = step_times(replace(run, steps=1), steps=3)
    assert list(found) == list(KINDS)
    for times in found.values():
        assert times.total == times.forward + times.backward + times.optimizer > 0
    assert found["full"].forward < found["floor"].forward  # this clock runs faster and faster
    parts = step_times(replace(run, steps=1, accumulation=5), steps=1)
    assert parts["full"].forward > 0  # of all micro-batches
    early = step_times(replace(run, steps=1), steps=1)
    assert early["full"].forward > found["full"].forward
    assert WARM == 2
