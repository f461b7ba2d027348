"""A run in two processes is the run in one: real processes that torchrun starts, over gloo.

Run by torchrun, this file is such a process: it does every scenario, and writes down what came out.
"""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from lorakit import ending, parallel
from lorakit.device import pick_device
from lorakit.experiment import finetune, resume_run
from lorakit.files import read_json, write_json
from lorakit.lora import LoRAConfig, inject
from lorakit.model import Llama, ModelConfig
from lorakit.qlora import quantize_
from lorakit.resume import load_checkpoint, save_checkpoint
from lorakit.run import Run, stopped_run
from lorakit.step import TrainConfig
from lorakit.text import Batches, Encoded
from lorakit.train import Diverged, Training, train

SHAPE = ModelConfig(
    vocab_size=61,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
)
# Of many lengths, so that the ranks' rows have unlike numbers of tokens that count.
BATCHES = Batches(
    examples=tuple(Encoded(tuple(range(n, 3 * n + 5)), prompt=1 + n // 2) for n in range(1, 19)),
    batch_size=4,
    pad_id=0,
)
CONFIG = TrainConfig(steps=5, lr=3e-3, warmup_steps=2, accumulation=2, max_grad_norm=0.5)
STOP_AT = 5  # the second micro-batch of step 3


def fresh(method: str, dropout: float = 0.0, seed: int = 0) -> Llama:
    torch.manual_seed(seed)
    model = Llama(SHAPE)
    if method == "qlora":
        quantize_(model)
    if method != "full":
        config = LoRAConfig(rank=3, dropout=dropout)
        inject(model, config, generator=torch.Generator().manual_seed(1))
    return model.to(pick_device())


def trained(model: Llama, config: TrainConfig = CONFIG) -> dict:
    history = train(model, BATCHES, config)
    weights = [p.detach().flatten() for p in model.parameters() if p.requires_grad]
    return history.to_json() | {"weights": torch.cat(weights).tolist()}


def unlike_starts() -> dict:
    """Full fine-tuning of models that begin unlike each other, but on rank 0 as always."""
    return trained(fresh("full", seed=parallel.rank()))


def checkpointed() -> dict:
    return trained(fresh("lora"), dataclasses.replace(CONFIG, gradient_checkpointing=True))


def unused() -> dict:
    model = fresh("lora")
    model.spare = torch.nn.Parameter(torch.ones(3, device=pick_device()))
    config = dataclasses.replace(CONFIG, weight_decay=0.1)
    return trained(model, config) | {"spare": model.spare.tolist()}


def diverged() -> str:
    model = fresh("full")
    if parallel.rank() == parallel.size() - 1:
        model.register_forward_hook(lambda module, inputs, logits: logits * torch.nan)
    try:
        train(model, BATCHES, CONFIG)
    except Diverged as error:
        return str(error)
    return "went on"


def random_numbers() -> list[float]:
    """What each step's first random number is, as dropout would draw it."""
    drawn: list[float] = []

    def draw(module, inputs):
        drawn.append(torch.rand(()).item())

    model = fresh("lora")
    model.register_forward_pre_hook(draw)
    train(model, BATCHES, CONFIG)
    return drawn


def stopped(folder: Path) -> dict:
    """The last rank asks to stop; then the run goes on from its checkpoint."""
    told = {}
    for name, dropout in {"plain": 0.0, "dropout": 0.4}.items():
        with parallel.group():
            whole = Training(fresh("lora", dropout), BATCHES, CONFIG).run().losses
            asked = iter(range(100))
            broken = Training(fresh("lora", dropout), BATCHES, CONFIG)
            last = parallel.rank() == parallel.size() - 1
            broken.run(stop=lambda asked=asked, last=last: next(asked) == STOP_AT and last)
            with parallel.in_turn():
                if parallel.rank() == 0:
                    save_checkpoint(broken, folder / name)
            resumed = Training(fresh("lora", dropout), BATCHES, CONFIG)
            load_checkpoint(resumed, folder / name)
            told[name] = [whole, broken.position, resumed.run().losses]
        told[name].append(resumed.replica.reducer is None)  # or an error's frames keep the group
    return told


def refused(folder: Path) -> list[str]:
    told = []
    odd = dataclasses.replace(BATCHES, batch_size=5)
    for call in (
        lambda: train(fresh("lora"), odd, CONFIG),
        lambda: finetune(Run(base="mini", task="json", batch_size=3), out=folder / "odd"),
        lambda: Training(fresh("lora"), BATCHES, CONFIG),  # outside of a group
    ):
        try:
            call()
        except ValueError as error:
            told.append(str(error))
    return told


METHODS = {method: lambda method=method: trained(fresh(method)) for method in ("lora", "qlora")}
SCENARIOS = METHODS | {
    "full": unlike_starts,
    "checkpointed": checkpointed,
    "unused": unused,
    "diverged": diverged,
    "random": random_numbers,
}


def work(folder: Path) -> None:
    told = {name: scenario() for name, scenario in SCENARIOS.items()}
    told |= {"stopped": stopped(folder), "refused": refused(folder)}
    write_json(folder / f"rank{parallel.rank()}.json", told)


def torchrun(*command: str) -> subprocess.Popen:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "LORAKIT_DEVICE": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | quiet
    return subprocess.Popen([sys.executable, *launcher, *command], env=environment, **pipes)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("ranks")
    process = torchrun(__file__, str(folder))
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    assert "Warning" not in errors
    return folder, [read_json(folder / f"rank{rank}.json") for rank in (0, 1)]


def column(history: dict, name: str) -> list[float]:
    return [record[name] for record in history["steps"]]


@pytest.mark.parametrize("name", ["full", "lora", "qlora", "checkpointed"])
def test_two_processes_take_the_steps_of_one(done, name):
    first, second = (told[name] for told in done[1])
    alone = SCENARIOS[name]()
    assert min(column(alone, "grad_norm")) > CONFIG.max_grad_norm or name == "checkpointed"
    for key in ("loss", "grad_norm"):
        assert column(first, key) == pytest.approx(column(alone, key), rel=1e-6)
        assert column(first, key) == column(second, key)
    assert column(first, "tokens") == column(alone, "tokens")
    assert first["weights"] == second["weights"]
    assert first["weights"] == pytest.approx(alone["weights"], rel=1e-4, abs=1e-5)
    assert first["notes"] == alone["notes"] == []


def test_a_parameter_that_nothing_uses_stays_and_is_noted_as_in_one_process(done):
    first, second = (told["unused"] for told in done[1])
    alone = unused()
    assert first["spare"] == second["spare"] == alone["spare"] == [1.0] * 3
    assert first["notes"] == second["notes"] == alone["notes"]
    assert "first: spare" in first["notes"][0]


def test_what_one_rank_finds_not_finite_ends_all_alike(done):
    first, second = (told["diverged"] for told in done[1])
    assert first == second
    assert "the loss is nan at step 1" in first


def test_each_rank_draws_numbers_of_its_own_and_rank_0_those_of_one_process(done):
    first, second = (told["random"] for told in done[1])
    assert first == random_numbers()
    assert not set(first) & set(second)


def test_a_stop_on_one_rank_stops_all_and_the_run_goes_on_in_two_or_one(done):
    folder, ranks = done
    assert ranks[0]["stopped"] == ranks[1]["stopped"]
    for whole, position, resumed, freed in ranks[0]["stopped"].values():
        assert position == STOP_AT // CONFIG.accumulation
        assert resumed == whole and freed
    alone = Training(fresh("lora"), BATCHES, CONFIG)
    load_checkpoint(alone, folder / "plain")
    assert alone.run().losses == pytest.approx(ranks[0]["stopped"]["plain"][0], rel=1e-6)


def test_a_batch_that_does_not_divide_and_a_missing_group_are_refused_everywhere(done):
    folder, ranks = done
    for rank, told in enumerate(ranks):
        batch, run, group = told["refused"]
        assert "a batch of 5 rows does not divide among 2 processes" in batch
        assert "make it 4, or start fewer processes" in run
        assert f"this is process {rank} of 2, and they are no group" in group
    assert not (folder / "odd").exists()


@pytest.fixture
def second_of_three(monkeypatch):
    for name, value in {"MASTER_ADDR": "localhost", "WORLD_SIZE": "3", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)


def test_a_rank_takes_its_rows(second_of_three):
    tokens = torch.arange(12).view(6, 2)
    mine, labels = parallel.share((tokens, -tokens))
    assert mine.tolist() == [[4, 5], [6, 7]]
    assert torch.equal(labels, -mine)


def test_processes_on_one_numbered_device_are_refused(second_of_three, monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "cpu:0")
    with pytest.raises(ValueError, match="3 processes cannot share the device cpu:0"):
        parallel.group().__enter__()


def test_a_wait_that_outlasts_sigterm_is_broken_off(monkeypatch):
    monkeypatch.setattr(ending, "GRACE", 0.1)
    freed = threading.Event()
    with pytest.raises(RuntimeError, match="broken off"), ending.heard(freed.set):
        os.kill(os.getpid(), signal.SIGTERM)
        assert freed.wait(30)  # as for a GPU that waits for another
        parallel.check_whole()
    with ending.heard(freed.set):
        parallel.check_whole()  # forgotten with its group


def test_one_that_has_lost_another_is_not_ended_before_it_says_so():
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(ConnectionError), ending.heard():
            raise ConnectionError
        assert signal.getsignal(signal.SIGTERM) is not before
    finally:
        signal.signal(signal.SIGTERM, before)


def command(base: str, out: Path, steps: int) -> list[str]:
    options = {"base": base, "task": "json", "steps": steps, "heldout": 4, "out": out}
    options |= {"batch-size": 4, "accumulation": 2}
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


def test_the_command_writes_and_speaks_once_and_trains_as_one_process_does(
    small_base_to_read, tmp_path
):
    words = command(small_base_to_read, tmp_path / "two", steps=3)
    process = torchrun("-m", "lorakit.cli", "finetune", "--json", *words)
    output, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    assert json.loads(output)["folder"] == str(tmp_path / "two")
    assert errors.count("\ntraining\n") == errors.count("results in") == 1
    run, folders = Run(**read_json(tmp_path / "two" / "result.json")["run"]), {}
    finetune(run, out=tmp_path / "one")
    for folder in ("one", "two"):
        told = [read_json(tmp_path / folder / f"{name}.json") for name in ("history", "result")]
        folders[folder] = [column(told[0], "loss"), told[1]["before"], told[1]["after"]["right"]]
    rel = 1e-6 if pick_device().type == "cpu" else 1e-3  # a GPU holds the frozen base in 16 bits
    (losses, before, right), (alone, before_alone, right_alone) = folders["two"], folders["one"]
    assert losses == pytest.approx(alone, rel=rel)
    assert before == pytest.approx(before_alone, rel=rel)
    assert right == right_alone
    names = {p.name for p in tmp_path.rglob("two/**/*") if p.is_file()}
    pictures = {"loss.png", "spectrum.png"}
    assert names - pictures == {p.name for p in tmp_path.rglob("one/**/*") if p.is_file()}


@pytest.mark.parametrize("killed", [0, 1])
def test_a_lost_process_ends_the_run_and_leaves_a_whole_checkpoint_or_none(
    small_base_to_read, tmp_path, killed
):
    out = tmp_path / "run"
    process = torchrun("-m", "lorakit.cli", "finetune", *command(small_base_to_read, out, 9999))
    for line in process.stderr:
        if re.match(r"training", line):
            break
    time.sleep(1)
    os.kill(worker(process.pid, killed), signal.SIGKILL)
    start = time.monotonic()
    errors = process.communicate(timeout=60)[1]
    assert time.monotonic() - start < 60
    assert process.returncode != 0
    survivor = 1 - killed
    (sentence,) = re.findall(r"^error: (.*)$", errors, re.MULTILINE)
    assert re.match(rf"rank {survivor} of 2 found in step \d+ that another process is", sentence)
    if killed == 0:
        assert f"{out} holds no step of it" in sentence
        assert list(tmp_path.rglob("*")) == [out]
        return
    steps = int(re.search(r"holds a checkpoint after (\d+) steps", sentence)[1])
    assert f"lorakit finetune --resume {out}" in sentence
    assert {p.name for p in tmp_path.iterdir()} == {"run"}
    assert {p.name for p in out.iterdir()} == {"checkpoint", "history.json", "result.json"}
    assert stopped_run(out)[0].batch_size == 4
    asked = iter(range(9))
    result = resume_run(out, stop=lambda: next(asked) == 2)  # after a step of two micro-batches
    assert len(result.history.steps) == steps + 1


def worker(agent: int, rank: int) -> int:
    """The process id of a rank."""
    (children,) = Path(f"/proc/{agent}/task").glob(f"{agent}/children")
    for child in children.read_text().split():
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environment:
            return int(child)
    raise LookupError(f"rank {rank} is not there")


if __name__ == "__main__":
    work(Path(sys.argv[1]))
