"""Steps as CUDA graphs, block by block; what needs no GPU of it, and then what does."""

import dataclasses
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from lorakit import blocks
from lorakit.ahead import ahead
from lorakit.blocks import MOST, bucket
from lorakit.graphed import Unrecorded, obstacle_to_recording
from lorakit.history import StepRecord
from lorakit.lora import LoRAConfig, inject
from lorakit.memory import Recorder
from lorakit.model import Llama
from lorakit.presets import PRESETS
from lorakit.resume import load_checkpoint, save_checkpoint
from lorakit.step import TrainConfig, step
from lorakit.text import Batches, Encoded
from lorakit.train import Diverged, Training

train = sys.modules["lorakit.train"]  # the module: lorakit.train is the function
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_rows_are_padded_to_few_lengths_by_little_and_never_beyond_the_limit():
    lengths = range(1, 2049)
    found = [bucket(length, 2000) for length in lengths]
    assert all(a >= min(b, 2000) or a == b for a, b in zip(found, lengths, strict=True))
    assert max(found[:2000]) == 2000
    assert found == sorted(found)
    assert all(a <= 1.125 * b for a, b in zip(found[127:], lengths[127:], strict=True))
    assert len(set(found[127:1024])) <= 8 * 3 + 1
    assert bucket(2500, 2000) == 2500  # the model says no itself


def test_values_are_made_ahead_in_order_by_another_thread():
    made: list[int] = []
    threads = set()

    def make(place: int) -> int:
        made.append(place)
        threads.add(threading.current_thread().name)
        return 10 * place

    values = ahead(make, range(6), depth=2)
    assert next(values) == 0
    while len(made) < 3:
        time.sleep(0.01)
    assert made == [0, 1, 2]  # two more than was asked for, and no third
    assert list(values) == [10, 20, 30, 40, 50]
    assert threading.current_thread().name not in threads


def test_an_error_comes_up_where_its_value_is_asked_for():
    def make(place: int) -> int:
        if place == 2:
            raise KeyError(place)
        return place

    values = ahead(make, range(5))
    assert [next(values), next(values)] == [0, 1]
    with pytest.raises(KeyError):
        next(values)


def test_closing_ends_the_thread():
    values = ahead(lambda place: place, iter(int, 1))
    next(values)
    values.close()
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"capture": False}, "asks for none"),
        ({}, "runs on cpu"),
    ],
)
def test_what_is_not_recorded_says_why(options, said):
    assert said in obstacle_to_recording(nn.Linear(2, 2), TrainConfig(**options))


class Exploding(TrainConfig):
    """A learning rate that is far too high for one step, the twelfth."""

    def learning_rate(self, step: int) -> float:
        return 1e36 if step == 12 else 1e-3


class StandIn:
    """What `Graphs` does, by eager steps on a CPU, one by one; it may refuse the `bad`-th."""

    bad: int | None = None
    total = 0  # steps by all of them
    shapes = 1

    def __init__(self, model, optimizer, config, loss=None):
        self.parts, self.read_out, self.steps = (model, optimizer), [], 0
        self.config, self.loss = config, loss

    @contextmanager
    def taking_over(self):
        yield

    def step(self, micro_batches, lr) -> None:
        self.steps += 1
        type(self).total += 1
        if self.steps == type(self).bad:
            raise Unrecorded("it cannot")
        model, optimizer = self.parts
        for group in optimizer.param_groups:
            group["lr"] = lr
        found = step(model, optimizer, micro_batches, self.config)
        self.read_out.append(tuple(x.item() for x in found))

    def read(self):
        found, self.read_out = self.read_out, []
        return found

    def forget(self) -> None:
        self.shapes = 0


@pytest.fixture
def stand_in(monkeypatch):
    """Blocks of steps on a CPU, each of four steps."""
    monkeypatch.setattr(train, "obstacle_to_recording", lambda model, config: None)
    monkeypatch.setattr(blocks, "Graphs", StandIn)
    monkeypatch.setattr(blocks.Blocks, "_size", lambda self: 4)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(StandIn, "bad", None)
    monkeypatch.setattr(StandIn, "total", 0)
    return StandIn


def small(**options) -> Training:
    return Training(model("lora", "cpu").float(), batches((17, 30, 41)), config(**options))


def test_blocks_train_as_single_steps_do(stand_in):
    heard: list[StepRecord] = []
    history = small(steps=20).run(on_step=heard.append)
    expected = Training(
        model("lora", "cpu").float(), batches((17, 30, 41)), config(steps=20, capture=False)
    )
    expected.obstacle = "on purpose"
    assert history.losses == pytest.approx(expected.run().losses, rel=1e-5)
    assert heard == history.steps and [r.step for r in heard] == list(range(1, 21))
    assert [r.lr for r in heard] == [r.lr for r in expected.history.steps]
    assert [r.tokens for r in heard] == [r.tokens for r in expected.history.steps]


def test_a_stop_between_two_steps_of_a_block_leaves_those_that_were_done(stand_in):
    training = small(steps=40)
    asked = iter(range(10**6))
    training.run(stop=lambda: next(asked) >= 8)
    assert 2 < training.position < 10
    whole = small(steps=40)
    whole.run()
    training.run()
    assert training.history.losses == pytest.approx(whole.history.losses, rel=1e-5)


def test_an_error_in_mid_block_leaves_what_was_done_in_the_history(stand_in):
    training = small(steps=40)
    real = training.batches

    class Broken(Batches):
        def batch(self, position: int):
            if position == 12:
                raise KeyError(position)
            return super().batch(position)

    training.batches = Broken(**vars(real))
    heard: list[StepRecord] = []
    with pytest.raises(KeyError):
        training.run(on_step=heard.append)
    assert training.position == 12 and heard == training.history.steps
    assert all(int(s["step"]) == 12 for s in training.optimizer.state.values())
    training.batches = real
    whole = small(steps=40)
    whole.run()
    assert training.run().losses == pytest.approx(whole.history.losses, rel=1e-5)


def test_after_a_step_that_cannot_be_recorded_the_run_goes_on_step_by_step(stand_in, monkeypatch):
    monkeypatch.setattr(stand_in, "bad", 7)
    training = small(steps=30)
    history = training.run()
    assert [r.step for r in history.steps] == list(range(1, 31))
    assert training.obstacle == "it cannot"
    assert "from here on steps are done kernel by kernel: it cannot" in history.notes
    monkeypatch.setattr(stand_in, "bad", None)
    assert history.losses == pytest.approx(small(steps=30).run().losses, rel=1e-5)


def test_good_steps_before_one_that_diverged_are_heard_of(stand_in):
    training = Training(model("full", "cpu"), batches(), Exploding(steps=40, compile=False))
    heard: list[StepRecord] = []
    with pytest.raises(Diverged, match="at step 13"):
        training.run(on_step=heard.append)
    assert [r.step for r in heard] == list(range(1, 13)) == [r.step for r in training.history.steps]


def test_a_recorder_is_told_of_steps_that_it_did_not_see(stand_in):
    training = small(steps=30)
    recorder = Recorder(training.model, training.optimizer)
    training.run(phase=recorder)
    assert recorder._steps == 30 and 2 <= recorder.followed < 30


def test_a_phase_hook_without_wishes_sees_every_step(stand_in):
    seen: list[str] = []

    @contextmanager
    def phase(name):
        seen.append(name)
        yield

    small(steps=12).run(phase=phase)
    assert seen.count("step") == 12


def test_a_few_last_steps_are_not_worth_a_recording_but_go_along_with_one(stand_in, monkeypatch):
    monkeypatch.setattr(blocks, "COMPILING_SAVES", 1e-6)  # however slow the machine
    few = small(steps=9)
    few.run()
    assert not few.history.notes and stand_in.total == 0
    many = small(steps=21, compile=None)
    many.run()
    assert stand_in.total == 19
    [note] = many.history.notes
    assert note.startswith("not compiled: that would take about 12 s, and save about 0 s")


def test_layers_are_compiled_for_more_lengths_than_pytorch_would(stand_in, monkeypatch):
    limits = []
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **_: limits.append(torch._dynamo.config.recompile_limit)
    )
    before = torch._dynamo.config.recompile_limit
    small(steps=21, compile=True).run()
    assert len(limits) == 4 and set(limits) == {blocks.LENGTHS} and before < blocks.LENGTHS
    assert torch._dynamo.config.recompile_limit == before


def model(method: str = "lora", device: str = "cuda") -> Llama:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = Llama(PRESETS["mini"]).to(device)
    if method == "lora":
        found.bfloat16()
        inject(found, LoRAConfig(rank=4), generator=torch.Generator(device).manual_seed(1))
    return found


def batches(lengths: tuple[int, ...] = (30,), size: int = 4) -> Batches:
    draw = torch.Generator().manual_seed(0)
    examples = tuple(
        Encoded(tuple(torch.randint(3, 200, (length,), generator=draw).tolist()), 4)
        for length in lengths * 8
    )
    return Batches(examples=examples, batch_size=size, pad_id=0)


def config(**options) -> TrainConfig:
    return TrainConfig(**{"steps": 40, "lr": 1e-3, "compile": False} | options)


@on_gpu
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulation": 3},
        {"weight_decay": 0.1, "max_grad_norm": 0.05},
        {"compile": True},
        {"optimizer": "sgd", "lr": 0.3},
        {"optimizer": "sgd", "momentum": 0.9, "lr": 0.1},
    ],
    ids=["plain", "accumulation", "clipped", "compiled", "sgd", "momentum"],
)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_recorded_steps_are_the_eager_ones_within_rounding(method, options):
    found, begun = {}, {}
    for capture in (False, True):
        training = Training(
            model(method).float(), batches((17, 30, 41)), config(capture=capture, **options)
        )
        begun = {name: p.detach().clone() for name, p in training.parameters.items()}
        found[capture] = training, training.run()
    (eager, expected), (recorded, history) = found[False], found[True]
    assert len(history.steps) == 40
    assert history.losses == pytest.approx(expected.losses, rel=1e-3)
    assert max(expected.losses) - min(expected.losses) > 0.02 * max(expected.losses)
    for field in ("lr", "tokens"):
        assert [getattr(r, field) for r in history.steps] == [
            getattr(r, field) for r in expected.steps
        ]
    norms = [[r.grad_norm for r in of.steps] for of in (history, expected)]
    assert norms[0] == pytest.approx(norms[1], rel=0.05)
    for name, p in recorded.parameters.items():
        moved = (eager.parameters[name] - begun[name]).norm()
        assert (p - eager.parameters[name]).norm() < 0.05 * moved
        assert p.is_contiguous()
    assert ("compile" in options) == any("compiled: " in note for note in history.notes)


@on_gpu
def test_recorded_steps_are_much_quicker():
    seconds = {}
    for capture in (False, True):
        history = Training(model(), batches(), config(steps=120, capture=capture)).run()
        seconds[capture] = sorted(r.seconds for r in history.steps)[60]
    assert seconds[True] < seconds[False] / 2  # a ratio of one run, on a GPU alone


@on_gpu
def test_a_run_of_recordings_stops_in_time_and_is_taken_up_again(tmp_path):
    whole = Training(model(), batches(), config(steps=60)).run()
    first = Training(model(), batches(), config(steps=60))
    seen: list[StepRecord] = []
    first.run(stop=lambda: first.position >= 10, on_step=seen.append)
    assert 10 <= first.position <= 10 + MOST
    assert [r.step for r in seen] == list(range(1, first.position + 1))
    save_checkpoint(first, tmp_path)
    second = Training(model(), batches(), config(steps=60))
    load_checkpoint(second, tmp_path)
    history = second.run()
    assert history.losses == pytest.approx(whole.losses, rel=3e-2)


@on_gpu
def test_a_run_that_diverges_leaves_the_weights_of_the_last_good_step():
    options = Exploding(steps=80, compile=False)
    training = Training(model("full"), batches(), options)
    with pytest.raises(Diverged, match=r"at step 13 with learning rate 0\.001"):
        training.run()
    assert training.position == 12
    assert all(p.isfinite().all() for p in training.parameters.values())
    assert {int(s["step"]) for s in training.optimizer.state.values()} == {12}
    other = Training(model("full"), batches(), dataclasses.replace(options, capture=False))
    with pytest.raises(Diverged, match="at step 13"):
        other.run()
    for name, p in training.parameters.items():  # some are as large as 1e30, and so squared
        expected = other.parameters[name].double()
        assert (p.double() - expected).norm() < 0.02 * expected.norm()


@on_gpu
def test_a_recorder_sees_the_first_steps_and_counts_the_others():
    training = Training(model(), batches(), config(steps=60))
    recorder = Recorder(training.model, training.optimizer)
    training.run(phase=recorder)
    assert recorder.followed >= 2
    assert len(training.history.steps) == 60
    assert recorder.latest.peak.total > 0
    assert recorder._steps == 60  # also those that it did not see


@on_gpu
def test_a_phase_hook_that_says_nothing_sees_every_step():
    seen: list[str] = []

    @contextmanager
    def phase(name):
        seen.append(name)
        yield

    Training(model(), batches(), config(steps=12)).run(phase=phase)
    assert seen.count("step") == 12


@on_gpu
def test_after_a_run_the_optimizer_and_the_layers_are_as_before():
    training = Training(model(), batches(), config(steps=30, compile=True))
    before = dict(training.optimizer.param_groups[0])
    training.run()
    after = dict(training.optimizer.param_groups[0])
    assert {k: v for k, v in after.items() if k not in ("params", "lr")} == {
        k: v for k, v in before.items() if k not in ("params", "lr")
    }
    assert all(layer._compiled_call_impl is None for layer in training.model.model.layers)
    assert {s["step"].device.type for s in training.optimizer.state.values()} == {"cpu"}
    assert {int(s["step"]) for s in training.optimizer.state.values()} == {30}


@on_gpu
def test_an_error_in_a_callback_ends_the_run_and_unpacks_the_model():
    training = Training(model(), batches(), config())

    def fail(record: StepRecord) -> None:
        if record.step > 5:
            raise KeyError

    with pytest.raises(KeyError):
        training.run(on_step=fail)
    assert all(p.is_contiguous() for p in training.model.parameters())
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


@on_gpu
def test_steps_that_were_done_before_an_error_are_in_the_history():
    whole = Training(model("full"), batches(), config())
    whole.run()

    class Broken(Batches):
        def batch(self, position: int):
            if position == 25:
                raise KeyError(position)
            return super().batch(position)

    training = Training(model("full"), Broken(**vars(batches())), config())
    heard: list[StepRecord] = []
    with pytest.raises(KeyError):
        training.run(on_step=heard.append)
    assert 2 < training.position <= 25
    assert [record.step for record in heard] == list(range(1, training.position + 1))
    assert {int(s["step"]) for s in training.optimizer.state.values()} == {training.position}
    assert all(p.grad is None for p in training.parameters.values())
    training.batches = batches()
    assert training.run().losses == pytest.approx(whole.history.losses, rel=1e-3)


@on_gpu
def test_a_model_that_waits_for_the_gpu_goes_on_kernel_by_kernel():
    class Waiting(nn.Module):
        def __init__(self, inner: Llama):
            super().__init__()
            self.inner = inner

        def forward(self, tokens):
            logits = self.inner(tokens)
            assert logits.sum().item() < 1e30  # which waits
            return logits

    expected = Training(model("full"), batches(), config(capture=False)).run()
    training = Training(Waiting(model("full")), batches(), config())
    history = training.run()
    assert len(history.steps) == 40 and training.obstacle is not None
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    torch.rand(1, device="cuda")  # the generator is of use again
    before = torch.cuda.memory_reserved()
    torch.empty(2**28, dtype=torch.uint8, device="cuda")
    torch.cuda.empty_cache()  # and the allocator gives back
    assert torch.cuda.memory_reserved() <= before
    assert any(note.startswith("from here on steps are done kernel") for note in history.notes)
    assert history.losses == pytest.approx(expected.losses, rel=1e-3)


@on_gpu
def test_a_hook_is_not_recorded():
    found = model()
    found.model.layers[0].register_forward_hook(lambda *_: None)
    assert "model.layers.0 has a hook" in obstacle_to_recording(found, config())


@on_gpu
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"implementation": "foreach"}, "foreach"),
        ({"gradient_checkpointing": True}, "checkpointing"),
    ],
)
def test_on_a_gpu_what_is_not_recorded_says_why_and_trains(options, said):
    training = Training(model(), batches(), config(steps=10, **options))
    assert said in training.obstacle
    assert len(training.run().steps) == 10


@on_gpu
def test_dropout_is_not_recorded():
    with_dropout = Llama(PRESETS["mini"]).cuda()
    inject(with_dropout, LoRAConfig(rank=4, dropout=0.1))
    assert "dropout" in obstacle_to_recording(with_dropout, TrainConfig())


@on_gpu
def test_a_short_run_is_not_compiled_and_says_why():
    short = Training(model(), batches(), dataclasses.replace(config(), compile=None)).run()
    assert any(note.startswith("not compiled: that would take about") for note in short.notes)


@on_gpu
def test_a_long_run_is_compiled(monkeypatch):
    monkeypatch.setattr("lorakit.blocks.COMPILING_TAKES", 1e-6)
    history = Training(model(), batches(), dataclasses.replace(config(), compile=None)).run()
    assert any(note.startswith("compiled: estimated to take about") for note in history.notes)
