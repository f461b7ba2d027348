"""A sweep does each run once, whatever kills it, and says of each what was measured."""

import json
from dataclasses import replace

import pytest
import torch
from filelock import FileLock

from lorakit import sweep as module
from lorakit.checkpoint import load_base
from lorakit.experiment import finetune
from lorakit.hf_folder import save_folder
from lorakit.mini_tasks import examples, shuffled_examples
from lorakit.qlora import quantized_layers
from lorakit.run import Run
from lorakit.sweep import read_rows, sweep
from lorakit.text import encode_example

WHOLE_JUDGES = module.judges


@pytest.fixture
def runs(small_base) -> list[Run]:
    run = Run(base=small_base, task="label", batch_size=4, steps=3, heldout=10, answers=0)
    some = [replace(run, rank=r, lr=lr) for r in (1, 2) for lr in (1e-3, 2e-3)]
    return [*some, replace(run, method="full", lr=1e-3), replace(run, method="full", lr=2e-3)]


@pytest.fixture(autouse=True)
def few_judges(monkeypatch):
    """Ten examples of each kind: an untrained base is as bad at ten as at hundreds."""
    whole = module.judges

    def few(task, tokenizer, heldout):
        judged = whole(task, tokenizer, heldout)
        return module.Judges(*(part[:10] for part in vars(judged).values()))

    monkeypatch.setattr(module, "judges", few)


def test_a_stack_of_qlora_runs_is_as_its_runs_one_by_one(runs):
    runs = [replace(run, method="qlora") for run in runs[:2]]
    stack, _ = module.stack_runs(runs)
    assert len(quantized_layers(stack.model)) == 7
    for _ in range(3):
        losses = stack.step()
    expected = [finetune(run).history.losses[-1] for run in runs]
    torch.testing.assert_close(losses.cpu(), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="must agree in quantized"):
        module.stack_runs([runs[0], replace(runs[0], method="lora")])


def test_there_is_a_row_for_every_run_in_their_order(runs, tmp_path):
    rows = sweep(runs, tmp_path / "rows.jsonl", width=3)
    assert [Run(**row["run"]) for row in rows] == runs
    assert all(row["made"]["device"] and row["made"]["torch"] for row in rows)
    assert [row["curve"][-1][0] for row in rows] == [3] * len(runs)


def test_a_killed_sweep_goes_on_with_what_is_missing(runs, tmp_path, monkeypatch):
    out = tmp_path / "rows.jsonl"
    calls = []
    train = module._train

    def dying(stack, *hooks):
        calls.append(stack)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(stack, *hooks)

    monkeypatch.setattr(module, "_train", dying)
    with pytest.raises(KeyboardInterrupt):
        sweep(runs, out, width=2)
    kept = read_rows(out)
    assert [Run(**row["run"]) for row in kept] == runs[:2]
    calls.clear()
    monkeypatch.setattr(
        module, "_train", lambda stack, *hooks: calls.append(stack) or train(stack, *hooks)
    )
    rows = sweep(runs, out, width=2)
    assert [Run(**row["run"]) for row in rows] == runs
    assert rows[:2] == kept
    assert [run for stack in calls for run in stack] == runs[2:]
    assert len(read_rows(out)) == len(runs)


def test_a_stop_keeps_the_stacks_that_are_done(runs, tmp_path):
    asked = []
    rows = sweep(
        runs, tmp_path / "rows.jsonl", width=2, stop=lambda: asked.append(1) or len(asked) > 4
    )
    assert (
        [Run(**row["run"]) for row in rows]
        == runs[:2]
        == [Run(**row["run"]) for row in read_rows(tmp_path / "rows.jsonl")]
    )


def test_a_row_says_what_the_run_alone_scores(runs, tmp_path):
    for run in (runs[0], runs[-1]):
        (row,) = sweep([run], tmp_path / f"{run.method}.jsonl")
        alone = finetune(run)
        assert row["heldout"][0] == pytest.approx(alone.after.exact_match)
        assert row["heldout"][1] == pytest.approx(alone.after.loss, rel=1e-5)


def test_a_run_named_twice_and_a_task_of_another_world_are_refused(runs, tmp_path):
    with pytest.raises(ValueError, match="names a run twice"):
        sweep([runs[0], runs[0]], tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="'orders' is no task of the mini base"):
        sweep([replace(runs[0], task="orders")], tmp_path / "rows.jsonl")
    assert not (tmp_path / "rows.jsonl").exists()


def test_rows_are_lines_of_json(runs, tmp_path):
    sweep(runs[:1], tmp_path / "rows.jsonl")
    (line,) = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert json.loads(line)["run"]["rank"] == 1


def test_rows_over_another_base_are_not_mixed_in(runs, tmp_path, small_base):
    out = tmp_path / "rows.jsonl"
    sweep(runs[:1], out)
    before = out.read_bytes()
    base, tokenizer = load_base(small_base)
    with torch.no_grad():
        base.model.norm.weight.mul_(2)
    save_folder(base, tokenizer, small_base)
    module._source.cache_clear()
    with pytest.raises(ValueError, match=r"rows\.jsonl has runs on label over another base"):
        sweep(runs[:2], out)
    assert out.read_bytes() == before


def test_a_broken_line_is_named_and_two_sweeps_do_not_write_one_file(runs, tmp_path):
    out = tmp_path / "rows.jsonl"
    with FileLock(f"{out}.lock"), pytest.raises(ValueError, match="another sweep writes"):
        sweep(runs[:1], out)
    out.write_text('{}\n{"run": ')
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2: not a row"):
        sweep(runs[:1], out)


def test_bad_settings_are_refused_before_anything_is_trained(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_train", None)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        sweep(runs, tmp_path / "rows.jsonl", width=0)
    with pytest.raises(ValueError, match="'no-such' is no base"):
        sweep([*runs, replace(runs[0], base="no-such")], tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match="runs of one stack must agree in task"):
        module.stack_runs([runs[0], replace(runs[0], task="json")])


def test_each_judge_has_the_split_it_is_named_after(small_base):
    _, tokenizer = load_base(small_base)
    judged = WHOLE_JUDGES("label", tokenizer, 7)

    def encoded(made):
        return [encode_example(tokenizer, e) for e in made]

    assert judged.validation == encoded(examples("label", "validation"))
    assert judged.heldout == encoded(examples("label", "heldout", 7))
    assert judged.shuffled == encoded(shuffled_examples("label", "heldout", 200))
    assert {e.prompt for e in judged.own} == {1}
