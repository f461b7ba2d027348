"""From a base and a task to scores, spectra and files; stopped and taken up again."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from lorakit import experiment
from lorakit.adapters import load_adapter
from lorakit.begin import base_of
from lorakit.checkpoint import load_base
from lorakit.experiment import Stopped, finetune, resume_run, spectra
from lorakit.lora import lora_layers
from lorakit.qlora import quantized_layers
from lorakit.run import Run
from lorakit.tasks import load_task
from lorakit.train import Diverged


@pytest.fixture
def run(tiny_base, tiny_task) -> Run:
    return Run(base=tiny_base, task=tiny_task, rank=4, steps=6, lr=1e-2, answers=2)


@pytest.fixture(params=["lora", "qlora", "full"])
def either(request, run) -> Run:
    return dataclasses.replace(run, method=request.param)


def names(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_run_trains_judges_and_asks_before_and_after(either):
    result = finetune(either)
    assert len(result.history.steps) == 6
    assert result.before.count == result.after.count == 2
    assert result.after.loss < result.before.loss
    heldout = load_task(either.task).heldout
    assert [(a.prompt, a.expected) for a in result.answers] == [
        (example.prompt, example.response) for example in heldout
    ]
    assert all(answer.tuned is not None for answer in result.answers)
    assert result.memory.most.gradients == 4 * result.parameters.trainable


def test_the_spectrum_is_that_of_what_the_weights_changed_by(either, tiny_base):
    result = finetune(either)
    base = load_base(tiny_base)[0].get_submodule("model.layers.1.mlp.up_proj").weight
    tuned = result.model.get_submodule("model.layers.1.mlp.up_proj")
    delta = tuned.delta() if either.lora else tuned.weight - base.to(tuned.weight)
    expected = torch.linalg.svdvals(delta.cpu())[: either.rank]
    (found,) = (s for s in result.spectra if s.layer == "model.layers.1.mlp.up_proj")
    torch.testing.assert_close(
        torch.tensor(found.values[: either.rank]), expected, rtol=1e-3, atol=1e-6
    )
    assert found.base_norm == pytest.approx(base.norm().item(), rel=0.01)  # also of 4 bits
    assert found.relative == pytest.approx((delta.norm() / base.norm()).item(), rel=0.01)
    assert len(result.spectra) == 14


def test_an_untrained_delta_has_no_energy(tiny_base):
    model, _ = load_base(tiny_base)
    assert all(not any(spectrum.values) for spectrum in spectra(model, tiny_base))


def test_lora_leaves_an_adapter_and_full_fine_tuning_a_whole_model(either, tmp_path):
    result = finetune(either, out=tmp_path / "out")
    made = names(tmp_path / "out")
    assert {"history.json", "result.json"} <= made
    if either.method == "full":
        saved = load_file(tmp_path / "out" / "model" / "model.safetensors")
        assert torch.equal(saved["model.norm.weight"], result.model.model.norm.weight.cpu())
        return
    size = (tmp_path / "out" / "adapter" / "adapter_model.safetensors").stat().st_size
    assert size == result.disk
    fresh, _ = base_of(either, torch.device("cpu"))
    load_adapter(fresh, tmp_path / "out" / "adapter")
    for (_, saved), (_, trained) in zip(lora_layers(fresh), lora_layers(result.model), strict=True):
        assert torch.equal(saved.B, trained.B.cpu())


def test_qlora_judges_and_trains_over_its_quantised_base(run):
    plain, result = finetune(run), finetune(dataclasses.replace(run, method="qlora"))
    assert len(quantized_layers(result.model)) == 14 == len(result.spectra)
    assert result.before.loss != plain.before.loss
    assert result.before.loss == pytest.approx(plain.before.loss, rel=0.05)
    assert result.parameters == plain.parameters
    assert plain.disk < result.disk < plain.disk + 64  # the file names the form of its base
    assert result.memory.most.weights < plain.memory.most.weights
    assert result.memory.most.optimizer == plain.memory.most.optimizer


def test_the_same_run_gives_the_same_bits(run):
    assert finetune(run).history.losses == finetune(run).history.losses
    other = finetune(dataclasses.replace(run, seed=1))
    assert other.history.losses != finetune(run).history.losses


def stop_after(steps: int):
    """A stop that comes true once `steps` are done, and the report it listens to."""
    seen = {"done": 0}

    def report(progress):
        if progress.stage == "training":
            seen["done"] = progress.done

    return {"report": report, "stop": lambda: seen["done"] >= steps}


def test_a_stopped_run_is_taken_up_again_bit_for_bit(either, tmp_path):
    whole = finetune(either)
    folder = tmp_path / "out"
    stopped = finetune(either, out=folder, **stop_after(3))
    assert stopped.after is None
    assert len(stopped.history.steps) == 3
    assert "checkpoint/run.json" in names(folder)
    resumed = resume_run(folder)
    assert resumed.history.losses == whole.history.losses
    assert resumed.after == whole.after
    assert resumed.answers == whole.answers
    assert not (folder / "checkpoint").exists()
    assert (folder / ("model" if either.method == "full" else "adapter")).is_dir()


def test_a_run_stopped_before_its_first_step_says_so_and_leaves_nothing(run, tmp_path):
    with pytest.raises(Stopped, match="nothing was trained"):
        finetune(run, out=tmp_path / "out", stop=lambda: True)
    assert names(tmp_path / "out") == set()


def test_progress_is_told_stage_by_stage_with_the_time_left(run):
    heard = []
    finetune(run, report=heard.append)
    stages = list(dict.fromkeys(progress.stage for progress in heard))
    assert stages == [
        "loading the base",
        "judging the base",
        "asking the base",
        "training",
        "judging the tuned model",
        "asking the tuned model",
        "measuring the delta",
    ]
    training = [progress for progress in heard if progress.stage == "training"]
    assert [progress.done for progress in training] == list(range(7))
    assert training[0].seconds_left is None
    assert training[3].seconds_left > 0
    assert training[-1].seconds_left == 0
    assert len(training[-1].losses) == 6
    assert training[-1].memory.most.gradients > 0


def test_a_folder_in_use_is_refused_before_anything_is_loaded(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    missing = dataclasses.replace(run, base="no/such base")
    with pytest.raises(ValueError, match="out is not empty: name a new folder"):
        finetune(missing, out=tmp_path / "out")
    assert names(tmp_path / "out") == {"thesis.txt"}


def test_a_bad_line_is_refused_before_anything_is_loaded(run, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "a"}\n')
    missing = dataclasses.replace(run, base="no/such base", task=str(path))
    with pytest.raises(ValueError, match="line 1"):
        finetune(missing, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_target_is_refused_before_the_base_is_judged_and_leaves_no_folder(run, tmp_path):
    heard = []
    wrong = dataclasses.replace(run, targets=("q_porj",))
    (tmp_path / "mine").mkdir()
    for out in ("out", "mine"):
        with pytest.raises(ValueError, match="'q_porj' matches no linear layer"):
            finetune(wrong, out=tmp_path / out, report=heard.append)
    assert (tmp_path / "mine").exists()  # as it was before
    assert not (tmp_path / "out").exists()
    assert "judging the base" not in {progress.stage for progress in heard}


def test_an_error_after_training_leaves_what_was_trained(either, tmp_path, monkeypatch):
    def broken(*args):
        raise MemoryError

    monkeypatch.setattr(experiment, "spectra", broken)
    with pytest.raises(MemoryError):
        finetune(either, out=tmp_path / "out")
    assert (tmp_path / "out" / ("model" if either.method == "full" else "adapter")).is_dir()
    assert json.loads((tmp_path / "out" / "result.json").read_text())["after"]


def test_a_checkpoint_whose_exchange_was_cut_in_two_resumes(run, tmp_path):
    folder = tmp_path / "out"
    finetune(run, out=folder, **stop_after(3))
    (folder / "checkpoint").rename(folder / ".checkpoint.lorakit-old")
    assert len(resume_run(folder).history.steps) == 6


def test_an_example_too_long_for_the_model_is_refused_by_number(run, tmp_path):
    path = tmp_path / "long.jsonl"
    lines = [
        json.dumps({"prompt": "a" * (200 if n == 3 else 5), "response": "b"}) for n in range(6)
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(
        ValueError, match=r"example 4 has 2\d\d tokens, the model reads at most 128"
    ):
        finetune(dataclasses.replace(run, task=str(path)))


def test_a_run_that_diverges_names_step_and_rate_and_keeps_its_history(run, tmp_path):
    bad = dataclasses.replace(run, method="full", lr=1e30, steps=20)
    with pytest.raises(Diverged, match=r"at step \d+ with learning rate"):
        finetune(bad, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "history.json").read_text())["steps"]


def test_resuming_what_was_never_stopped_is_refused(run, tmp_path):
    finetune(run, out=tmp_path / "out")
    with pytest.raises(ValueError, match="holds no stopped run"):
        resume_run(tmp_path / "out")
