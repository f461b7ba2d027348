"""What only a GPU can show: half-precision bases, autocast, the allocator's own bytes, graphs."""

import copy
import dataclasses
import gc

import pytest
import torch
from weights import assert_same_weights, weights

from lorakit import decoding
from lorakit.begin import begin
from lorakit.capture import Captured
from lorakit.experiment import finetune
from lorakit.generation import generate, generate_rows, stream
from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.memory import Recorder, measure
from lorakit.merging import merge, remove, unmerge
from lorakit.model import Llama
from lorakit.presets import PRESETS
from lorakit.qlora import dequantize_, quantize_
from lorakit.quantize import CODEBOOKS, dequantize, quantize
from lorakit.run import Run
from lorakit.shelf import Shelf
from lorakit.stacked import SMALL, Stack
from lorakit.step import TrainConfig
from lorakit.survival import OutOfMemory, survive
from lorakit.sweep import stack_runs
from lorakit.text import Batches, Encoded
from lorakit.widgets import MemoryExplorer, RaceExplorer, RankAlphaExplorer, StartsExplorer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_a_run_on_a_gpu_learns_and_is_measured(tiny_base, tiny_task, method, monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "cuda")
    run = Run(base=tiny_base, task=tiny_task, method=method, rank=4, steps=8, lr=1e-2)
    result = finetune(run)
    assert result.after.loss < result.before.loss
    assert result.memory.most.gradients == 4 * result.parameters.trainable
    dtype = {p.dtype for p in result.model.parameters() if not p.requires_grad}
    assert dtype == (set() if method == "full" else {torch.bfloat16})
    again = finetune(dataclasses.replace(run))
    assert again.history.losses == pytest.approx(result.history.losses, rel=1e-2)


def test_weights_and_optimizer_are_what_the_allocator_holds():
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    model = Llama(PRESETS["mini"]).cuda()
    inject(model, LoRAConfig(rank=8))
    batches = Batches(examples=(Encoded(tuple(range(32)), 0),) * 8, batch_size=4, pad_id=0)
    held = measure(model, batches, TrainConfig()).most
    assert torch.cuda.memory_allocated() - before == pytest.approx(held.weights, rel=0.05)


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_a_followed_step_agrees_with_the_allocators_peak(method, monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "cuda")
    run = Run(base="mini", task="json", method=method, batch_size=16, steps=4)
    begin(run).step()  # in the first of a process libraries take their workspaces
    training = begin(run)
    recorder = Recorder(training.model, training.optimizer)
    for number in range(1, 5):
        torch.cuda.reset_peak_memory_stats()
        training.step(phase=recorder)
        if recorder.step == number:
            peak = recorder.latest.peak
            assert peak.total == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.01)
            assert peak.tensors < peak.total <= recorder.latest.reserved < recorder.latest.device
    assert recorder.step >= 2
    assert recorder.allocated["step"] <= recorder.allocated["backward"]


@pytest.mark.parametrize("codebook", CODEBOOKS)
def test_4_bits_on_a_gpu_are_those_on_a_cpu(codebook):
    W = torch.randn(576, 1536, generator=torch.Generator().manual_seed(0))
    here, there = quantize(W, codebook=codebook), quantize(W.cuda(), codebook=codebook)
    assert torch.equal(there.packed.cpu(), here.packed)
    torch.testing.assert_close(dequantize(there).cpu(), dequantize(here), rtol=0, atol=1e-3)


@pytest.mark.parametrize("double", [False, True])
def test_4_bits_are_as_near_to_the_weights_as_those_of_bitsandbytes(double):
    theirs = pytest.importorskip("bitsandbytes.functional", reason="compares with bitsandbytes")
    W = torch.randn(576, 1536, generator=torch.Generator().manual_seed(0)).cuda()
    packed, state = theirs.quantize_4bit(
        W, blocksize=64, quant_type="nf4", compress_statistics=double
    )
    held = quantize(W, double=double)
    # Its kernel multiplies by 1 / absmax, and so may choose the other of two levels as near.
    assert (packed.flatten() != held.packed).float().mean() < 1e-4
    expected, found = theirs.dequantize_4bit(packed, state), dequantize(held)
    off = [((made - W).norm() / W.norm()).item() for made in (expected, found)]
    assert off[1] == pytest.approx(off[0], rel=2e-3)
    assert (expected - found).norm() < (0.005 if double else 0.001) * W.norm()


@pytest.mark.parametrize("autocast", [False, True])
def test_a_step_over_4_bits_is_one_over_the_plain_model_of_the_same_values(autocast):
    torch.manual_seed(0)
    qlora = Llama(PRESETS["mini"]).cuda()
    quantize_(qlora)
    lora = copy.deepcopy(qlora)
    dequantize_(lora)
    grads = []
    for model in (qlora, lora):
        inject(model, LoRAConfig(rank=4), generator=torch.Generator("cuda").manual_seed(1))
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            loss = model(torch.arange(64, device="cuda").view(2, 32)).float().square().mean()
        loss.backward()
        grads.append([layer.B.grad for _, layer in lora_layers(model)])
    for found, expected in zip(*grads, strict=True):
        assert (found - expected).norm() < (0.05 if autocast else 1e-4) * expected.norm()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_full_gpu_ends_the_run_and_nothing_else(method, monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "cuda")
    run = Run(base="mini", task="json", method=method, batch_size=512, steps=3)
    small = begin(dataclasses.replace(run, batch_size=1))
    small.run()  # libraries have their workspace
    del small
    training = begin(run)
    before, length = weights(training.model), training.batches.batch(0)[0].shape[1]
    setup = run.setup(training.model.config, length, "cuda")
    gc.collect()
    torch.cuda.empty_cache()
    start, total = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((start + 300e6) / total)
    try:
        for _ in range(20):
            with pytest.raises(OutOfMemory, match="in step 1") as caught:
                survive(training, setup)
            assert caught.value.fit.batch_size < run.batch_size
            assert torch.cuda.memory_allocated() == pytest.approx(start, rel=0.01)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert_same_weights(training.model, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_unmerging_on_a_gpu_restores_every_bit(dtype, perturb):
    model = Llama(PRESETS["mini"]).to("cuda", dtype)
    inject(model, LoRAConfig(rank=8))
    perturb(model)
    assert all(layer.A.is_cuda for _, layer in lora_layers(model))
    before = weights(model)
    for _ in range(10):
        merge(model)
        unmerge(model)
    assert_same_weights(model, before)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_stack_on_a_gpu_trains_as_its_runs_do_on_a_cpu(method, monkeypatch):
    runs = [
        Run(base="mini", task="json", method=method, rank=rank, batch_size=4, steps=6, seed=seed)
        for rank, seed in ((8, 0), (2, 1))
    ]
    monkeypatch.setenv("LORAKIT_DEVICE", "cuda")
    stack, _ = stack_runs(runs)
    assert stack.device.type == "cuda"
    losses = torch.stack([stack.step() for _ in range(stack.steps)]).T.tolist()
    monkeypatch.setenv("LORAKIT_DEVICE", "cpu")
    for run, found in zip(runs, losses, strict=True):
        assert found == pytest.approx(begin(run).run().losses, rel=1e-3)


# A step as a graph


def test_a_recorded_function_follows_its_inputs_and_changes_its_state():
    total = torch.zeros(3, device="cuda")

    def add(x):
        total.add_(x)
        return 2 * total

    one = torch.ones(3, device="cuda")
    doubled = Captured(add, [one], state=[total])
    assert total.tolist() == [0.0] * 3  # recording has added nothing
    first = doubled(torch.full((3,), 5.0))
    second = doubled(one)
    assert (first.tolist(), second.tolist()) == ([10.0] * 3, [12.0] * 3)
    assert total.tolist() == [6.0] * 3
    with pytest.raises(ValueError, match=r"input 0 has shape \(1,\), recorded was \(3,\)"):
        doubled(one[:1])


def stacks(method: str) -> tuple[Stack, Stack, tuple]:
    """The same three runs of 12 steps, recorded and not, and what they are judged by."""
    same = {"base": "mini", "task": "json", "method": method, "batch_size": 4, "steps": 12}
    runs = [Run(**same, rank=rank, seed=seed) for rank, seed in ((8, 0), (2, 0), (4, 1))]
    stack, judged = stack_runs(runs)
    plain, captured = (Stack(stack.base, stack.runs, capture=how) for how in (False, True))
    return plain, captured, judged.validation[:20]


def assert_same_runs(captured: Stack, plain: Stack, start: dict[str, torch.Tensor]) -> None:
    """Weights differ by little of what training has moved them by, run by run."""
    for index in range(len(plain.runs)):
        moved = off = 0.0
        for name, p in plain.parameters.items():
            moved += (p[index] - start[name][index]).square().sum().item()
            off += (p[index] - captured.parameters[name][index]).square().sum().item()
        assert moved > 0 and off < 1e-4 * moved, f"run {index}: {off:g} of {moved:g}"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_captured_stack_trains_as_one_that_is_not(method, monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "cuda")
    plain, captured, examples = stacks(method)
    start = {name: p.detach().clone() for name, p in plain.parameters.items()}
    for number in range(12):
        torch.testing.assert_close(captured.step(), plain.step(), rtol=1e-3, atol=1e-4)
        if number in (0, 5):  # judged between two steps
            for a, b in zip(captured.score(examples), plain.score(examples), strict=True):
                assert a.loss == pytest.approx(b.loss, rel=1e-3)
    assert captured.alive.all() and captured.position == 12
    assert_same_runs(captured, plain, start)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_in_a_captured_stack_a_run_that_dies_stays_dead(method, monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "cuda")
    losses, times = Stack._losses, torch.ones(3, device="cuda")
    monkeypatch.setattr(Stack, "_losses", lambda stack, *batch: losses(stack, *batch) * times)
    plain, captured, examples = stacks(method)
    start = {name: p.detach().clone() for name, p in plain.parameters.items()}
    for number in range(12):
        times[1] = float("inf") if number == 4 else 1.0
        found, expected = captured.step(), plain.step()
        assert not found[1].isfinite() if number == 4 else found.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        if number == 3:
            kept = {name: p[1].detach().clone() for name, p in captured.parameters.items()}
    assert captured.alive.tolist() == plain.alive.tolist() == [True, False, True]
    for name, p in captured.parameters.items():
        assert torch.equal(p[1], kept[name])
    assert_same_runs(captured, plain, start)
    captured.score(examples)


def test_a_step_that_is_taken_does_not_wait_for_the_gpu(monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "cuda")
    _, captured, _ = stacks("lora")
    captured.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [captured.step() for _ in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.stack(losses).isfinite().all()


def test_small_stacks_are_captured_and_large_ones_are_not(monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "cuda")
    run = Run(base="mini", task="json", rank=1, batch_size=1, steps=2)
    assert stack_runs([run] * SMALL)[0].captures
    assert not stack_runs([run] * (SMALL + 1))[0].captures


def test_stacks_that_are_dropped_give_their_graphs_memory_back(monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "cuda")
    stacks("full")[1].step()  # libraries have their workspace
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        stacks("full")[1].step()
    gc.collect()
    assert torch.cuda.memory_allocated() == pytest.approx(before, abs=2**20)


def test_a_race_is_captured_in_a_thread_beside_the_notebooks_own(monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "cuda")
    run = Run(base="mini", task="json", batch_size=8, steps=20, heldout=20)
    race = RaceExplorer(run, (1, 8))
    race.go()
    while race.running:
        torch.ones(9, device="cuda").sum().item()  # a cell that uses the GPU meanwhile
    assert race.error.value == "" and len(race.scores) == 3
    for losses in race.losses.values():
        assert len(losses) == 20 and losses[-1] < 0.9 * losses[0]


def test_explorables_measure_and_train_on_a_gpu(monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "cuda")
    run = Run(base="mini", task="json", batch_size=8, steps=12)
    memory = MemoryExplorer(PRESETS["mini"], run, length=40)
    assert torch.cuda.get_device_name() in memory.picture.axes.get_title()
    found = memory.memories()
    assert found["full"].gradients == found["full"].weights
    assert found["lora"].activations > 0.5 * found["full"].activations
    starts = StartsExplorer(run)
    starts.go(wait=True)
    assert starts.losses["both zero"][-1] > 0.9 * starts.losses["both zero"][0]
    assert starts.losses["B zero"][-1] < 0.9 * starts.losses["B zero"][0]
    tried = RankAlphaExplorer(run)
    tried.go(wait=True)
    assert len(tried.trials[-1].losses) == 12
    assert 0 < tried.trials[-1].changes[0] < tried.trials[-1].changes[-1]


# Answers as a graph


@pytest.fixture
def graphs(monkeypatch) -> list[Captured]:
    """All graphs that are recorded for answers."""
    made: list[Captured] = []

    def record(*inputs, **options) -> Captured:
        made.append(Captured(*inputs, **options))
        return made[-1]

    monkeypatch.setattr(decoding, "Captured", record)
    return made


def speaking(dtype: torch.dtype = torch.float32) -> Llama:
    """A random model whose next token is far likelier than the one after it."""
    torch.manual_seed(0)
    model = Llama(PRESETS["mini"])
    with torch.no_grad():
        for p in model.model.layers.parameters():
            p.mul_(1 if p.ndim == 1 else 8)
    return model.to("cuda", dtype)


PROMPT = [5, 17, 3, 42]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "top_p": 0.9, "seed": 7}])
@pytest.mark.parametrize("kind", ["plain", "adapted", "4 bits, adapted"])
def test_a_captured_answer_is_the_ordinary_one(kind, options, perturb, graphs):
    model = speaking()
    if "4 bits" in kind:
        quantize_(model)
    if "adapted" in kind:
        inject(model, LoRAConfig(rank=4))
        perturb(model)
    options = {"max_new_tokens": 100} | options
    expected = generate(model, PROMPT, captured=False, **options)
    assert graphs == [] and len(set(expected)) > 1
    assert generate(model, PROMPT, **options) == expected
    assert len(graphs) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_captured_logits_are_the_ordinary_ones(dtype, graphs):
    model = speaking(dtype)
    tokens = torch.randint(240, (2, 40), generator=torch.Generator().manual_seed(0))
    captured, ordinary = (decoding.Decoding(model, 2, 40, captured=how) for how in (True, False))
    for piece in (tokens[:, :10], *tokens[:, 10:].split(1, dim=1)):
        found, expected = captured(piece), ordinary(piece)
        off = (found - expected).norm() / expected.norm()
        assert off < (0.02 if dtype == torch.bfloat16 else 1e-4)
    assert len(graphs) == 1


def test_captured_rows_are_the_ordinary_ones_each_under_its_adapter(perturb, graphs):
    model = speaking()
    shelf = Shelf(model)
    for name, size in (("one", 0.1), ("two", 0.3)):
        inject(model, LoRAConfig(rank=4))
        perturb(model, size)
        shelf.take(name)
        shelf.disable()
    prompts = [PROMPT] * 3
    with shelf.rows(["one", None, "two"]):
        expected = generate_rows(model, prompts, max_new_tokens=60, captured=False)
        assert generate_rows(model, prompts, max_new_tokens=60) == expected
    assert len(graphs) == 1 and len({tuple(row) for row in expected}) == 3


def test_a_captured_answer_follows_values_and_keeps_what_is_taken_away(perturb, graphs):
    model = speaking()
    inject(model, LoRAConfig(rank=4))
    perturb(model)
    expected = generate(model, PROMPT, max_new_tokens=60, captured=False)
    tokens = stream(model, PROMPT, max_new_tokens=60)
    found = [next(tokens) for _ in range(10)]
    assert len(graphs) == 1
    remove(model)
    gc.collect()
    torch.cuda.empty_cache()
    noise = [torch.full((4, 128), float("nan"), device="cuda") for _ in range(200)]
    assert found + list(tokens) == expected and len(noise) == 200
    tokens = stream(model, PROMPT, max_new_tokens=60)
    for _ in range(10):
        next(tokens)
    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()  # the head's too: all logits are alike
    assert set(tokens) == {0}


def test_what_a_graph_would_not_do_is_not_recorded(graphs):
    model = speaking()
    with torch.autocast("cuda", torch.bfloat16):
        generate(model, PROMPT, max_new_tokens=30)
    seen = []
    handle = model.lm_head.register_forward_hook(lambda *_: seen.append(1))
    generate(model, PROMPT, max_new_tokens=30)
    assert graphs == [] and len(seen) == 30
    handle.remove()
    generate(model, PROMPT, max_new_tokens=30)
    assert len(graphs) == 1


def test_answers_give_their_graphs_memory_back():
    model = speaking()
    generate(model, PROMPT, max_new_tokens=30)
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        generate(model, PROMPT, max_new_tokens=100)
    gc.collect()
    assert torch.cuda.memory_allocated() == pytest.approx(before, abs=2**20)
