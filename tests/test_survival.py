"""Out of memory, and nothing lost but the run: weights as before, bytes back, the way out told."""

import gc
import json
import pickle
import traceback
import weakref
from dataclasses import replace

import pytest
import torch
from live_bytes import LiveBytes
from weights import assert_same_weights, weights

from lorakit.experiment import finetune
from lorakit.lora import LoRAConfig, inject
from lorakit.memory import Setup, estimate
from lorakit.model import Llama
from lorakit.presets import PRESETS
from lorakit.run import Run
from lorakit.step import TrainConfig
from lorakit.survival import OutOfMemory, check_budget, is_out_of_memory, survive
from lorakit.text import Batches, Encoded
from lorakit.train import Training

LENGTH, ROWS = 24, 4
CONFIG = TrainConfig(steps=5)


@pytest.fixture(params=["full", "lora"])
def training(request, model) -> Training:
    if request.param == "lora":
        inject(model, LoRAConfig(rank=4))
    example = Encoded(tuple(range(1, LENGTH + 1)), prompt=0)
    return Training(model, Batches(examples=(example,) * 8, batch_size=ROWS, pad_id=0), CONFIG)


@pytest.fixture
def run(tiny_base, tiny_task) -> Run:
    return Run(base=tiny_base, task=tiny_task, rank=4, steps=6, lr=1e-2, answers=2)


def setup(training: Training) -> Setup:
    lora = next((m.config for m in training.model.modules() if hasattr(m, "A")), None)
    shape = training.model.config
    return Setup(model=shape, lora=lora, batch_size=ROWS, length=LENGTH, config=CONFIG)


def failing(training: Training, where: str, monkeypatch, *, step: int, error: Exception) -> None:
    """Let the step of this number fail in forward, in backward or in mid-optimizer."""
    if where == "forward":
        layer = training.model.model.layers[-1].mlp
        forward = layer.forward

        def fail(x):
            if training.position + 1 == step:
                raise error
            return forward(x)

        monkeypatch.setattr(layer, "forward", fail)
    elif where == "backward":

        def hook(module, inputs, output):
            def fail(gradient):
                if training.position + 1 == step:
                    raise error

            output.register_hook(fail)

        training.model.model.layers[0].register_forward_hook(hook)
    else:
        update = training.optimizer.step

        def half():
            if training.position + 1 < step:
                return update()
            with torch.no_grad():
                for parameter in list(training.parameters.values())[::2]:
                    parameter.add_(1.0)
            raise error

        monkeypatch.setattr(training.optimizer, "step", half)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    MemoryError("tensors hold too much"),
]


@pytest.mark.parametrize("where", ["forward", "backward", "optimizer"])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_wherever_it_fails_the_weights_are_those_before_the_run(training, where, step, monkeypatch):
    before = weights(training.model)
    failing(training, where, monkeypatch, step=step, error=ERRORS[0])
    with pytest.raises(OutOfMemory, match=f"out of memory in step {step}"):
        survive(training, setup(training))
    assert_same_weights(training.model, before)
    assert training.position == step - 1


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
def test_each_name_of_the_error_is_known(training, error, monkeypatch):
    assert is_out_of_memory(error)
    failing(training, "forward", monkeypatch, step=1, error=error)
    with pytest.raises(OutOfMemory):
        survive(training, setup(training))


def test_another_error_stays_what_it_is(training, monkeypatch):
    failing(training, "forward", monkeypatch, step=2, error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match") as caught:
        survive(training, setup(training))
    assert not isinstance(caught.value, OutOfMemory)


@pytest.mark.parametrize("where", ["forward", "backward", "optimizer"])
def test_twenty_failures_in_a_row_leave_no_byte_behind(training, where, monkeypatch):
    failing(training, where, monkeypatch, step=2, error=ERRORS[1])
    with LiveBytes(training.model) as live:
        for _ in range(20):
            training.history.steps.clear()
            try:
                survive(training, setup(training))
            except OutOfMemory as error:
                kept = error  # as a notebook keeps the last one
            assert live.now == pytest.approx(live.before, rel=0.01)
    assert kept.step == 2


def test_a_model_that_failed_is_let_go(training, monkeypatch):
    failing(training, "backward", monkeypatch, step=2, error=ERRORS[0])
    try:
        survive(training, setup(training))
    except OutOfMemory as error:
        kept = error
    monkeypatch.undo()
    model = weakref.ref(training.model)
    trained = weakref.ref(training)
    assert pickle.loads(pickle.dumps(kept)).fit == kept.fit
    frames = [entry.f_locals for entry, _ in traceback.walk_tb(kept.__traceback__)][1:]
    assert not any(trained() in names.values() for names in frames)
    training.model.model.layers[0]._forward_hooks.clear()
    assert model() is not None


def test_a_tracker_keeps_no_model_alive(training):
    net = Llama(training.model.config)
    example = Encoded(tuple(range(1, LENGTH + 1)), prompt=0)
    batches = Batches(examples=(example,), batch_size=ROWS, pad_id=0)
    with pytest.raises(OutOfMemory):
        survive(Training(net, batches, CONFIG), setup(training), budget=100_000)
    model = weakref.ref(net)
    del net, batches
    gc.collect()
    assert model() is None


def test_steps_are_counted_from_the_runs_first(training, monkeypatch):
    training.config = replace(CONFIG, steps=8)
    for _ in range(3):
        training.step()
    failing(training, "backward", monkeypatch, step=6, error=ERRORS[0])
    with pytest.raises(OutOfMemory, match=r"in step 6.*at the peak of step \d"):
        survive(training, setup(training))


def test_what_was_alive_and_what_still_is_are_told(training, monkeypatch):
    failing(training, "backward", monkeypatch, step=2, error=ERRORS[0])
    with pytest.raises(OutOfMemory) as caught:
        survive(training, setup(training))
    error, expected = caught.value, estimate(setup(training))
    assert error.source == "alive when it failed"
    assert error.held.weights == expected.most.weights == error.left.weights
    assert error.held.optimizer == expected.most.optimizer
    assert error.held.activations > 0
    assert error.left.total == error.left.weights, "no gradient, no state, no activation is left"
    assert error.copied == sum(p.nbytes for p in training.parameters.values())


def test_a_step_that_was_not_followed_tells_of_the_last_one_that_was(training, monkeypatch):
    failing(training, "backward", monkeypatch, step=3, error=ERRORS[0])
    with pytest.raises(OutOfMemory) as caught:
        survive(training, setup(training))
    assert caught.value.source == "at the peak of step 2"
    assert caught.value.held.total == pytest.approx(estimate(setup(training)).peak.total, rel=0.01)


def test_on_a_cpu_a_budget_ends_the_run_before_the_machine_does(training):
    expected = estimate(setup(training)).peak.total
    survive(training, setup(training), budget=int(1.01 * expected))
    assert training.position == CONFIG.steps
    training.history.steps.clear()
    before = weights(training.model)
    with pytest.raises(OutOfMemory) as caught:
        survive(training, setup(training), budget=int(0.95 * expected))
    assert caught.value.held.total == pytest.approx(0.95 * expected, rel=0.1)
    assert_same_weights(training.model, before)


def test_the_way_out_is_the_largest_batch_and_what_to_change(training, monkeypatch):
    budget = estimate(replace(setup(training), batch_size=2)).peak.total
    failing(training, "forward", monkeypatch, step=1, error=ERRORS[0])
    with pytest.raises(OutOfMemory, match=r"[23] rows would fit; else micro-batches of") as caught:
        survive(training, setup(training), budget=budget)
    assert 2 <= caught.value.fit.batch_size < ROWS
    assert caught.value.fit.memory.peak.total <= budget


def test_the_error_holds_no_frame_of_the_run(training, monkeypatch):
    failing(training, "backward", monkeypatch, step=1, error=ERRORS[0])
    with pytest.raises(OutOfMemory) as caught:
        survive(training, setup(training))
    frames, trace = [], caught.value.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert frames[1:] == ["call"]
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_a_budget_is_checked_before_anything_is_done():
    one = Setup(model=PRESETS["mini"], batch_size=64, length=LENGTH)
    needed = estimate(one).peak.total
    check_budget(one, needed)
    with pytest.raises(OutOfMemory, match=r"before the first step.*estimated for a CPU") as caught:
        check_budget(one, needed - 1)
    assert caught.value.step == 0
    assert caught.value.fit.batch_size == 63


def test_a_fine_tune_over_budget_is_refused_before_the_base_is_judged(run):
    heard = []
    with pytest.raises(OutOfMemory, match="before the first step"):
        finetune(run, budget=1_000, report=heard.append)
    assert {progress.stage for progress in heard} == {"loading the base"}


def test_a_fine_tune_that_fails_keeps_its_history(run, tmp_path, monkeypatch):
    update, calls = torch.optim.AdamW.step, []

    def third_fails(optimizer):
        calls.append(optimizer)
        if len(calls) == 3:
            raise ERRORS[0]
        return update(optimizer)

    monkeypatch.setattr(torch.optim.AdamW, "step", third_fails)
    with pytest.raises(OutOfMemory, match="in step 3"):
        finetune(run, out=tmp_path / "out")
    history = json.loads((tmp_path / "out" / "history.json").read_text())
    assert len(history["steps"]) == 2
