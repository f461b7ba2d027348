"""Commands for real, on a tiny base: what they print where, what they leave, how they fail."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import lorakit_
from gguf_files import speaking, write_gguf
from PIL import Image
from weights import assert_same_weights, weights

from lorakit.adapters import load_adapter, save_adapter
from lorakit.checkpoint import load_base
from lorakit.console import INTERRUPTED
from lorakit.counts import count
from lorakit.files import read_json
from lorakit.generation import ask
from lorakit.lora import LoRAConfig, inject
from lorakit.memory import Setup
from lorakit.merge_cost import merge_cost, share
from lorakit.merging import merge_and_unload
from lorakit.presets import PRESETS
from lorakit.run import disk_bytes
from lorakit.survival import check_budget
from lorakit.tasks import load_task, write_examples
from lorakit.text import Example
from lorakit.untie import untie


@pytest.fixture
def finetune(tiny_base, tiny_task):
    """`lorakit finetune` on the tiny base and task, unless other ones are named."""

    def run(*options, code: int = 0, columns: int = 80):
        given = ["--base", tiny_base, "--task", tiny_task, "--steps", 6, "--lr", 0.01, *options]
        return lorakit_("finetune", *given, code=code, columns=columns)

    return run


@pytest.fixture
def adapter(tiny_base, tmp_path, perturb) -> Path:
    model, _ = load_base(tiny_base)
    inject(model, LoRAConfig(rank=2))
    perturb(model)
    return save_adapter(model, tmp_path / "adapter")


def names(folder) -> set[str]:
    return {path.name for path in Path(folder).iterdir()}


def losses(folder) -> list[float]:
    return [step["loss"] for step in read_json(Path(folder) / "history.json")["steps"]]


# finetune


@pytest.mark.parametrize(("method", "left"), [("lora", "adapter"), ("full", "model")])
def test_a_run_leaves_what_it_trained_its_records_and_two_pictures(finetune, method, left):
    finetune("--method", method, "--out", "out")
    assert names("out") == {left, "history.json", "result.json", "loss.png", "spectrum.png"}
    assert len(losses("out")) == 6
    for picture in ("loss.png", "spectrum.png"):
        with Image.open(Path("out", picture)) as image:
            assert image.format == "PNG"
            assert len(set(image.convert("L").resize((80, 45)).tobytes())) > 10  # not blank


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_closing_table_has_scores_parameters_bytes_and_seconds(finetune, tiny_base, method):
    shown = finetune("--method", method, "--out", "out").stdout
    result = read_json("out/result.json")
    model, _ = load_base(tiny_base)
    lora = LoRAConfig() if method == "lora" else None
    trained = count(model.config, lora).trainable
    rows = dict(line.strip().split("  ", 1) for line in shown.splitlines() if "  " in line.strip())
    rows = {name: value.strip() for name, value in rows.items()}
    assert rows["exact match before"] == f"{result['before']['right']} of 2"
    assert rows["exact match after"] == f"{result['after']['right']} of 2"
    assert rows["loss before"] == f"{result['before']['loss']:.3g}"
    assert rows["loss after"] == f"{result['after']['loss']:.3g}"
    assert rows["parameters trained"].startswith(f"{trained:,} (")
    assert rows["on disk"] == f"{disk_bytes(model.config, lora) / 1000:.1f} kB"
    assert rows["training time"] == f"{result['seconds']:.0f} s"


def test_the_answers_of_base_and_tuned_model_stand_side_by_side(finetune, tiny_base, tiny_task):
    shown = finetune("--out", "out").stdout
    for example in load_task(tiny_task).heldout:
        assert f"{example.prompt}\nexpected: {example.response}\n" in shown
    assert shown.count("  base") == 2
    assert all("tuned" in line for line in shown.splitlines() if line.startswith("  base"))


def test_progress_is_on_stderr_with_the_time_left(finetune):
    said = finetune("--out", "out", "--steps", 2)
    assert "\njudging the base\n" in said.stderr
    assert "\ntraining\n  1 of 2, loss " in said.stderr
    assert "  2 of 2, loss " in said.stderr
    assert said.stderr.count(" s left\n") == 2
    assert "left" not in said.stdout


def test_json_is_all_that_stdout_holds(finetune):
    said = finetune("--out", "out", "--json")
    told = json.loads(said.stdout)
    assert told.pop("folder") == "out"
    assert told == read_json("out/result.json")
    assert "training" in said.stderr


def test_the_settings_reach_the_run(finetune):
    finetune("--out", "out", "--rank", 2, "--alpha", 3, "--targets", "q_proj, up_proj", "--seed", 4)
    run = read_json("out/result.json")["run"]
    assert (run["rank"], run["alpha"], run["targets"]) == (2, 3.0, ["q_proj", "up_proj"])
    assert (run["seed"], run["steps"], run["lr"]) == (4, 6, 0.01)
    assert (run["accumulation"], run["gradient_checkpointing"]) == (1, False)
    finetune("--out", "other", "--batch-size", 2, "--heldout", 1, "--accumulation", 3)
    assert read_json("other/result.json")["run"]["batch_size"] == 2
    assert read_json("other/result.json")["run"]["accumulation"] == 3
    assert read_json("other/result.json")["before"]["count"] == 1


def test_a_step_reads_as_many_micro_batches_as_it_accumulates(finetune):
    def tokens(folder: str) -> int:
        return read_json(f"{folder}/history.json")["steps"][0]["tokens"]

    finetune("--out", "one", "--batch-size", 2)
    finetune("--out", "three", "--batch-size", 2, "--accumulation", 3)
    assert tokens("three") == 3 * tokens("one")  # every example is as long


def test_checkpointing_keeps_the_losses_and_less_of_the_activations(finetune):
    kept = []
    for options in ([], ["--gradient-checkpointing"]):
        told = json.loads(finetune(*options, "--json").stdout)
        kept.append(told["memory"]["most"]["activations"])
        assert losses(told["folder"]) == losses("runs/letters-lora")
    assert kept[1] < 0.7 * kept[0]


def test_without_a_name_results_go_to_the_next_folder_that_is_not_in_use(finetune):
    said = finetune()
    assert "results in runs/letters-lora\n" in said.stderr
    Path("runs/letters-lora-2").mkdir()  # as an error on the way leaves it: empty
    for number in (2, 3):
        assert f"results in runs/letters-lora-{number}\n" in finetune().stderr
    assert losses("runs/letters-lora") == losses("runs/letters-lora-3")


def test_the_last_line_is_a_command_that_asks_the_tuned_model(finetune, tiny_base, tiny_task):
    prompt = load_task(tiny_task).heldout[0].prompt
    last = finetune("--out", "my runs/lora").stderr.splitlines()[-1]
    assert last.endswith(
        f"lorakit generate --base {tiny_base} --adapter 'my runs/lora/adapter' '{prompt}'"
    )
    last = finetune("--method", "full", "--out", "full").stderr.splitlines()[-1]
    assert last.endswith(f"lorakit generate --base full/model '{prompt}'")
    lorakit_("generate", "--base", "full/model", prompt)


def test_what_looks_like_markup_comes_out_as_it_is(finetune, tmp_path):
    text = "[red]x[/red] [/] :smile: [bold"
    path = tmp_path / "[b]odd.jsonl"
    write_examples(path, [Example(f"{n} {text}", text) for n in range(5)])
    said = finetune("--task", path, "--out", "[i]out")
    assert f"4 {text}\nexpected: {text}\n" in said.stdout
    assert f"lora on {path}, CPU" in said.stdout
    assert "results in [i]out\n" in said.stderr
    said = finetune("--out", "[i]out", code=1)
    assert "error: [i]out is not empty" in said.stderr


@pytest.mark.parametrize("columns", [20, 80])
def test_a_narrow_terminal_cuts_nothing(finetune, columns):
    out = Path("a", "long", "path", "that", "no", "terminal", "of", "eighty", "columns", "x" * 40)
    said = finetune("--out", out, columns=columns)
    assert "…" not in said.output
    assert f"results in {out}\n" in said.stderr
    assert all(len(line) <= columns for line in said.stdout.splitlines() if line.startswith("  "))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--base", "no-such"], "'no-such' is no base: give \"smollm2\""),
        (["--task", "no-such"], "task 'no-such' is not known"),
        (["--method", "dora"], 'method must be one of "lora", "qlora", "full", got \'dora\''),
        (["--rank", "0"], "rank must be a whole number of at least 1, got 0"),
        (["--targets", "q_prj"], "target 'q_prj' matches no linear layer of the model; nearest: q"),
        (["--out", "base"], "base is not empty: name a new folder"),
        (["--method", "full", "--lr", "1e30", "--steps", "20"], "train again with a smaller lr"),
        (["--accumulation", "0"], "accumulation must be at least 1, got 0"),
        (["--resume", "base"], "leave out --base, --lr, --steps, --task"),
        (["--resume", "base", "--accumulation", "2"], "leave out --accumulation, --base, --lr"),
        (["--resume", "base", "--gradient-checkpointing"], "--base, --gradient-checkpointing, --"),
    ],
)
def test_an_error_is_one_line_and_no_result(finetune, options, message):
    said = finetune(*options, "--json", code=1)
    assert said.stdout == ""
    assert [message in line for line in said.stderr.splitlines() if "error: " in line] == [True]
    assert said.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [('{"prompt": "a"}', "there is no 'response', only 'prompt'"), ("{not", "not JSON (")],
)
def test_a_bad_line_is_named_before_anything_begins(finetune, tiny_task, line, reason):
    lines = Path(tiny_task).read_text().splitlines()
    Path("bad.jsonl").write_text("\n".join([*lines[:6], line, *lines[6:]]))
    said = finetune("--task", "bad.jsonl", code=1)
    assert said.stderr.startswith(f"error: bad.jsonl, line 7: {reason}")
    assert said.stdout == ""


# Ctrl-C


def test_a_run_stopped_by_ctrl_c_goes_on_to_the_very_same_losses(finetune, tiny_base, tiny_task):
    steps = ["--steps", "40"]
    options = ["--base", tiny_base, "--task", tiny_task, "--lr", "0.01", "--out", "out", *steps]
    command = [sys.executable, "-m", "lorakit.cli", "finetune", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        heard = ""
        while "of 40, loss" not in heard:
            heard += process.stderr.readline()
        process.send_signal(signal.SIGINT)
        shown, rest = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert "Ctrl-C again breaks off now and loses it" in rest
    assert "Traceback" not in rest
    assert rest.endswith("of 40 steps; go on: lorakit finetune --resume out\n")
    assert "exact match after" in shown
    assert "checkpoint" in names("out")
    done = losses("out")
    assert 0 < len(done) < 40

    lorakit_("finetune", "--resume", "out")
    finetune("--out", "unbroken", *steps)
    assert losses("out") == losses("unbroken")
    assert done == losses("unbroken")[: len(done)]
    assert names("out") == names("unbroken")


@pytest.fixture
def interrupt(monkeypatch):
    """Press Ctrl-C, once, when a stage begins."""

    def at(stage: str) -> None:
        heard = []

        def press(progress) -> None:
            heard.append(progress.stage)
            if progress.stage == stage and heard.count(stage) == 1:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr("lorakit.cli.weights.tell_progress", lambda: press)

    return at


@pytest.mark.parametrize(
    ("stage", "message", "left"),
    [
        ("judging the base", "stopped before the first step: nothing was trained", set()),
        ("training", "stopped after 0 of 6 steps; go on: ", {"checkpoint"}),
        ("judging the tuned model", "trained to the last step, but not judged; ask", {"adapter"}),
        ("asking the tuned model", "trained; ask it: ", {"adapter"}),
    ],
)
def test_ctrl_c_says_what_it_left(finetune, interrupt, stage, message, left):
    interrupt(stage)
    said = finetune("--out", "out", code=INTERRUPTED)
    assert said.stderr.splitlines()[-1].startswith(message)
    records = {"history.json", "result.json", "loss.png", "spectrum.png"}
    assert Path("out").exists() == bool(left)
    assert not left or names("out") - records == left


def test_a_run_stopped_within_its_first_step_is_taken_up_too(finetune, interrupt):
    interrupt("training")
    finetune("--out", "out", code=INTERRUPTED)
    lorakit_("finetune", "--resume", "out", "--json")
    assert len(losses("out")) == 6
    assert names("out") == {"adapter", "history.json", "result.json", "loss.png", "spectrum.png"}


def test_a_resumed_run_accumulates_and_checkpoints_as_it_began(finetune, interrupt):
    own = ["--batch-size", 2, "--accumulation", 2, "--gradient-checkpointing"]
    interrupt("training")
    finetune("--out", "out", *own, code=INTERRUPTED)
    lorakit_("finetune", "--resume", "out")
    finetune("--out", "unbroken", *own)
    resumed, unbroken = (read_json(f"{folder}/result.json") for folder in ("out", "unbroken"))
    assert resumed["run"] == unbroken["run"]
    assert resumed["memory"] == unbroken["memory"]
    assert losses("out") == losses("unbroken")
    finetune("--out", "other", "--batch-size", 2)
    assert losses("other") != losses("out")


def test_what_was_not_asked_is_not_shown_as_an_answer(finetune, interrupt):
    interrupt("asking the tuned model")
    shown = finetune("--out", "out", code=INTERRUPTED).stdout
    assert shown.count("not asked") == 1  # an answer that has begun is finished
    assert "None" not in shown


# merge and generate


def test_a_merged_model_is_a_plain_base_that_answers_like_base_and_adapter(tiny_base, adapter):
    said = lorakit_("merge", "--base", tiny_base, "--adapter", adapter, "--out", "merged")
    adapted, tokenizer = load_base(tiny_base)
    tokens = torch.tensor([tokenizer.encode("how much does it change?")])
    plain_logits = adapted(tokens)
    load_adapter(adapted, adapter)
    merged, _ = load_base("merged")
    assert merged.state_dict().keys() == load_base(tiny_base)[0].state_dict().keys()
    torch.testing.assert_close(merged(tokens), adapted(tokens), rtol=0, atol=1e-5)
    assert (merged(tokens) - plain_logits).abs().max() > 1e-2
    size = sum(path.stat().st_size for path in Path("merged").iterdir())
    assert said.stderr == f"{size / 1000:.1f} kB on disk, merged model in merged\n"


def test_the_facts_of_a_merge_as_json(tiny_base, adapter):
    told = json.loads(
        lorakit_("merge", "--base", tiny_base, "--adapter", adapter, "--out", "m", "--json").stdout
    )
    model, _ = load_base(tiny_base)
    load_adapter(model, adapter)
    cost = merge_cost(model)
    assert (told["layers"], told["dtype"]) == (14, "float32")
    assert (told["lost"], told["unchanged"]) == (cost.loss, cost.unchanged)
    assert told["worst"] == {"layer": cost.worst.layer, "lost": cost.worst.loss}
    assert 0 <= told["change"] < 1e-5
    assert told["bytes"] == sum(path.stat().st_size for path in Path("m").iterdir())
    assert told["folder"] == "m"


def rows(shown: str) -> dict[str, str]:
    """A table of two columns, its cells unbroken."""
    pairs = [line.strip().split("  ", 1) for line in shown.splitlines() if "  " in line.strip()]
    return {name: value.strip() for name, value in pairs}


@pytest.fixture
def faint(tiny_base, tmp_path, perturb) -> Path:
    """An adapter whose deltas are about a thousandth of the weights."""
    model, _ = load_base(tiny_base)
    inject(model, LoRAConfig(rank=2))
    perturb(model, 2e-5)
    return save_adapter(model, tmp_path / "faint")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_merge_tells_what_it_loses_in_its_dtype(tiny_base, faint, dtype):
    given = ["--base", tiny_base, "--adapter", faint, "--out", "merged", "--dtype", dtype]
    said = lorakit_("merge", *given, columns=200)
    model, _ = load_base(tiny_base, dtype=getattr(torch, dtype))
    load_adapter(model, faint)
    cost = merge_cost(model)
    told = rows(said.stdout)
    assert (told["layers merged"], told["dtype"]) == ("14", dtype)
    assert told["lost of the delta"] == f"{share(cost.loss)} (median of the layers)"
    assert told["lost at worst"] == f"{share(cost.worst.loss)} ({cost.worst.layer})"
    assert told["entries unchanged"] == share(cost.unchanged)
    merge_and_unload(model)
    assert_same_weights(load_base("merged", dtype=getattr(torch, dtype))[0], weights(model))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_merge_that_loses_more_than_a_tenth_says_so_with_the_way_out(tiny_base, faint, dtype):
    given = ["--base", tiny_base, "--adapter", faint, "--out", "merged", "--dtype", dtype]
    said = lorakit_("merge", *given)
    notes = [line for line in said.stderr.splitlines() if line.startswith("note: ")]
    if dtype == "float32":
        assert notes == []
        return
    model, _ = load_base(tiny_base, dtype=torch.bfloat16)
    load_adapter(model, faint)
    cost = merge_cost(model)
    assert cost.loss > 0.1
    (note,) = notes
    assert note.startswith(f"note: {cost.summary}: the merged model is not the one that was tr")
    assert note.endswith("; merge with --dtype float32, or keep the adapter beside its base "
                         "(lorakit generate --adapter)")  # fmt: skip


def test_what_a_merge_loses_is_told_before_anything_is_written(tiny_base, faint, monkeypatch):
    def fail(*args):
        raise OSError("no space left")

    monkeypatch.setattr("lorakit.cli.weights.save_folder", fail)
    given = ["--base", tiny_base, "--adapter", faint, "--out", "merged", "--dtype", "bfloat16"]
    said = lorakit_("merge", *given, code=1)
    assert said.stderr.startswith("note: merged in bfloat16, ")
    assert "lost of the delta" in said.stdout
    assert said.stderr.endswith("error: no space left\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dtype", "int8"], "dtype must be float32 or bfloat16 or float16, got 'int8'"),
        (["--dtype", "float16"], "would hold a number beyond 65504, where float16 ends"),
    ],
)
def test_a_dtype_that_cannot_hold_the_sum_is_refused_and_nothing_is_written(
    tiny_base, tmp_path, perturb, options, message
):
    model, _ = load_base(tiny_base)
    inject(model, LoRAConfig(rank=2))
    perturb(model, 1e6)
    adapter = save_adapter(model, tmp_path / "adapter")
    given = ["--base", tiny_base, "--adapter", adapter, "--out", "merged", *options]
    said = lorakit_("merge", *given, code=1)
    assert message in said.stderr
    assert said.stdout == ""
    assert not Path("merged").exists()


def test_an_adapter_of_a_tied_head_is_merged_once_the_head_is_untied(tiny_base, tmp_path, perturb):
    model, tokenizer = load_base(tiny_base)
    untie(model)
    inject(model, LoRAConfig(rank=2, targets=("lm_head",)))
    perturb(model)
    given = ["--base", tiny_base, "--adapter", save_adapter(model, tmp_path / "of-head")]
    said = lorakit_("merge", *given, "--out", "merged", code=1)
    assert "lm_head shares its weight with model.embed_tokens (tied)" in said.stderr
    assert not Path("merged").exists()
    lorakit_("merge", *given, "--out", "merged", "--untie")
    merged, _ = load_base("merged")
    tokens = torch.tensor([tokenizer.encode("does the head answer?")])
    torch.testing.assert_close(merged(tokens), model(tokens))
    before = load_base(tiny_base)[0].model.embed_tokens.weight
    assert torch.equal(merged.model.embed_tokens.weight, before)


def test_merging_into_a_folder_that_is_there_is_refused(adapter):
    Path("mine").mkdir()
    command = ["merge", "--base", "not even looked at", "--adapter", adapter, "--out", "mine"]
    assert lorakit_(*command, code=1).stderr == "error: mine is there already: name a new folder\n"
    assert names("mine") == set()


@pytest.mark.parametrize("command", [["merge", "--out", "merged"], ["generate", "hi"]])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("adapter_config.json", "adapter is no adapter: it has no adapter_config.json"),
        ("adapter_model.safetensors", "it has no adapter_model.safetensors"),
    ],
)
def test_a_bad_adapter_is_named(tiny_base, adapter, command, damage, message):
    (adapter / damage).unlink()
    said = lorakit_(*command, "--base", tiny_base, "--adapter", adapter, code=1)
    assert message in said.stderr
    assert said.stdout == ""
    assert not Path("merged").exists()


def test_generating_prints_the_answer_of_base_or_adapter(tiny_base, adapter):
    model, tokenizer = load_base(tiny_base)
    plain = ask(model, tokenizer, "hi", max_new_tokens=12)
    load_adapter(model, adapter)
    adapted = ask(model, tokenizer, "hi", max_new_tokens=12)
    assert plain != adapted
    command = ["generate", "hi", "--base", tiny_base, "--max-new-tokens", 12]
    assert lorakit_(*command).stdout == f"{plain}\n"
    assert lorakit_(*command, "--adapter", adapter).stdout == f"{adapted}\n"
    told = json.loads(lorakit_(*command, "--adapter", adapter, "--json").stdout)
    assert told == {"prompt": "hi", "answer": adapted}


def test_a_seed_repeats_a_sample(tiny_base):
    command = ["generate", "hi", "--base", tiny_base, "--temperature", 1.5, "--max-new-tokens", 9]
    first, again, other = (lorakit_(*command, "--seed", seed).stdout for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--temperature", "-1"], "temperature must be at least 0, got -1.0"),
        (["--top-p", "2"], "top_p must be above 0 and at most 1, got 2.0"),
    ],
)
def test_nonsense_in_sampling_is_named(tiny_base, options, message):
    said = lorakit_("generate", "hi", "--base", tiny_base, *options, code=1)
    assert said.stderr == f"error: {message}\n"


def test_a_base_that_is_converted_first_says_so_on_stderr(tmp_path, monkeypatch):
    monkeypatch.setenv("LORAKIT_CACHE", str(tmp_path / "cache"))
    path = write_gguf(tmp_path / "tiny.gguf", speaking())
    said = lorakit_("generate", "hi", "--base", path, "--json", "--max-new-tokens", 2)
    assert said.stderr.startswith(f"converting tiny.gguf, once, into {tmp_path / 'cache'}")
    assert json.loads(said.stdout)["prompt"] == "hi"


def test_out_of_memory_says_what_was_held_and_the_way_out(monkeypatch):
    def over_budget(run, **options):
        check_budget(Setup(model=PRESETS["mini"], batch_size=8), 20_000_000)

    monkeypatch.setattr("lorakit.experiment.finetune", over_budget)
    told = lorakit_("finetune", "--base", "mini", "--task", "json", code=1)
    assert "out of memory before the first step" in told.stderr
    assert "rows would fit; else micro-batches of" in told.stderr
