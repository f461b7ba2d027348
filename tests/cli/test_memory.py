"""`lorakit memory`: each option moves the estimate as it should; a budget, and the way into it."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from command_line import lorakit_

from lorakit.lora import LoRAConfig
from lorakit.memory import PARTS, Setup, estimate
from lorakit.presets import PRESETS
from lorakit.step import TrainConfig

README = Path(__file__).resolve().parents[2] / "README.md"
PHASES = ("forward", "backward", "optimizer")
LORA = LoRAConfig()
BF16 = {"device": "cuda", "dtype": "bfloat16"}


def told(*options, base: str = "mini", code: int = 0) -> dict:
    return json.loads(lorakit_("memory", "--base", base, *options, "--json", code=code).stdout)


def step(**changes) -> dict:
    """The estimate, as JSON, of the step that no option asks for, but for `changes`."""
    asked = {"model": PRESETS["mini"], "lora": LORA, "batch_size": 4, "length": 128} | changes
    return estimate(Setup(**asked)).to_json()


# the estimate


def test_the_parts_of_a_lora_step_are_what_one_counts_by_hand():
    memory = told()["memory"]
    # 835,456 weights and an adapter of 78,848, in 56 tensors; AdamW has a step count for each.
    assert memory["peak"]["weights"] == 4 * (835_456 + 78_848)
    assert memory["peak"]["optimizer"] == 8 * 78_848 + 4 * 56
    assert memory["phases"]["optimizer"]["gradients"] == 4 * 78_848
    assert memory["source"] == "estimated for a CPU"


def test_a_gpu_holds_a_frozen_base_in_half_precision():
    asked = told("--device", "cuda", base="smollm2")
    assert asked["memory"]["peak"]["weights"] == 2 * 134_515_008 + 4 * 2_442_240
    assert asked["memory"]["source"] == "estimated for CUDA"
    assert asked["setup"]["base"] == "smollm2"


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ("--base smollm2", {"model": PRESETS["smollm2-135m"]}),
        ("--base gpt2-sized-124m", {"model": PRESETS["gpt2-sized-124m"]}),
        ("--method full", {"lora": None}),
        ("--rank 3", {"lora": LoRAConfig(rank=3)}),
        ("--targets q_proj,v_proj", {"lora": LoRAConfig(targets=("q_proj", "v_proj"))}),
        ("--batch-size 3", {"batch_size": 3}),
        ("--length 64", {"length": 64}),
        ("--accumulation 2", {"config": TrainConfig(accumulation=2)}),
        ("--gradient-checkpointing", {"config": TrainConfig(gradient_checkpointing=True)}),
        ("--optimizer sgd", {"config": TrainConfig(optimizer="sgd")}),
        ("--optimizer sgd --momentum 0.9", {"config": TrainConfig(optimizer="sgd", momentum=0.9)}),
        ("--implementation foreach", {"config": TrainConfig(implementation="foreach")}),
        ("--implementation fused", {"config": TrainConfig(implementation="fused")}),
        ("--dtype bfloat16", {"dtype": "bfloat16"}),
        ("--device cuda", BF16),
        ("--device cuda --dtype float32", {"device": "cuda"}),
        (
            "--device cuda --method full",
            {"device": "cuda", "lora": None, "config": TrainConfig(autocast=True)},
        ),
        ("--device cuda --method full --dtype float32", {"device": "cuda", "lora": None}),
        ("--device cuda --method full --dtype bfloat16", BF16 | {"lora": None}),
    ],
)
def test_each_option_moves_the_estimate_to_that_of_its_own_step(options, changes):
    memory = told(*options.split())["memory"]
    assert memory == step(**changes)
    assert memory != step()


def test_without_options_the_step_is_that_of_a_run_with_the_lab_s_own_base():
    assert told(base="smollm2")["memory"] == step(model=PRESETS["smollm2-135m"])
    assert json.loads(lorakit_("memory", "--json").stdout) == told(base="smollm2")


def test_a_base_is_estimated_without_its_weights(tiny_base):
    Path(tiny_base, "model.safetensors").unlink()
    assert told(base=tiny_base)["setup"]["base"] == tiny_base


def test_the_json_says_what_was_asked_and_what_a_device_made_of_it():
    asked = told("--method", "full", "--device", "cuda")
    assert asked["setup"] == {
        "base": "mini",
        "method": "full",
        "batch_size": 4,
        "length": 128,
        "dtype": "float32",
        "device": "cuda",
        "accumulation": 1,
        "gradient_checkpointing": False,
        "autocast": True,
        "optimizer": "adamw",
        "momentum": 0.0,
        "implementation": "auto",
    }
    assert asked["fit"] is None
    lora = told("--rank", 3, "--targets", "q_proj, v_proj")["setup"]
    assert (lora["rank"], lora["targets"]) == (3, ["q_proj", "v_proj"])


@pytest.mark.parametrize(("here", "target"), [("cpu", "cpu"), ("cuda", "cuda"), ("mps", "cpu")])
def test_the_device_is_this_machine_s_if_it_can_be_estimated(monkeypatch, here, target):
    monkeypatch.setattr("lorakit.cli.counting.pick_device", lambda: torch.device(here))
    assert told()["setup"]["device"] == target


def test_who_names_the_device_need_not_have_it(monkeypatch):
    monkeypatch.setenv("LORAKIT_DEVICE", "tpu")
    assert "'tpu' is not available" in lorakit_("memory", code=1).stderr
    assert told("--device", "cpu")["memory"] == step()


# the tables


def rows(shown: str) -> dict[str, list[str]]:
    """The tables' rows by their first cell; more than two spaces part the cells."""
    cells = (re.split(r" {2,}", line.strip()) for line in shown.splitlines())
    return {row[0]: row[1:] for row in cells if row[1:]}


def numbers(cells: list[str]) -> list[int]:
    return [int(cell.replace(",", "")) for cell in cells]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_table_has_each_part_in_each_phase_and_their_totals(device):
    memory = told("--device", device)["memory"]
    table = rows(lorakit_("memory", "--base", "mini", "--device", device).stdout)
    for part in (*PARTS, "total"):
        assert numbers(table[part]) == [memory["phases"][phase][part] for phase in PHASES]
    columns = zip(*(numbers(table[part]) for part in PARTS), strict=True)
    assert [sum(column) for column in columns] == numbers(table["total"])
    assert max(numbers(table["total"])) == memory["peak"]["total"]


def test_the_lines_above_say_what_is_estimated_and_where_the_peak_is():
    shown = lorakit_("memory", "--base", "mini", "--batch-size", 2, "--length", 64).stdout
    assert shown.splitlines()[:2] == [
        "lora on mini, 2 x 64 tokens, weights in float32",
        "estimated for a CPU: bytes at each phase's highest instant, the peak in forward",
    ]
    full = ("--method", "full", "--device", "cuda", "--length", 16)
    shown = lorakit_("memory", "--base", "mini", *full).stdout
    assert shown.splitlines()[:2] == [
        "full on mini, 4 x 16 tokens, weights in float32, products in bfloat16",
        "estimated for CUDA: bytes at each phase's highest instant, "
        f"the peak in {told(*full)['memory']['peak_phase']}",
    ]


def test_each_sum_is_named_for_what_it_counts_and_a_cpu_has_but_one():
    on_gpu = ("--base", "mini", "--device", "cuda")
    memory, table = told(*on_gpu)["memory"], rows(lorakit_("memory", *on_gpu).stdout)
    sums = {
        "held by tensors": memory["peak"]["tensors"],
        "the allocator's peak": memory["peak"]["total"],
        "reserved": memory["reserved"],
        "device total": memory["device"],
    }
    assert {name: numbers(table[name][:1]) for name in sums} == {n: [b] for n, b in sums.items()}
    assert sorted(sums.values()) == list(sums.values())
    on_cpu = rows(lorakit_("memory", "--base", "mini").stdout)
    assert on_cpu.keys() & sums.keys() == {"held by tensors"}
    assert numbers(on_cpu["held by tensors"][:1]) == [max(numbers(on_cpu["total"]))]


@pytest.mark.parametrize("columns", [20, 80])
def test_a_narrow_terminal_cuts_nothing(columns):
    said = lorakit_("memory", "--base", "mini", "--budget", 1, code=1, columns=columns)
    assert "…" not in said.output
    assert all(len(line) <= columns for line in said.stdout.splitlines()[2:])


# a budget


def test_a_budget_of_all_it_takes_fits_and_one_of_a_byte_less_does_not():
    takes = step()["device"]
    fit = told("--budget", takes)["fit"]
    assert (fit["budget"], fit["takes"], fit["fits"], fit["changes"]) == (takes, takes, True, [])
    said = lorakit_("memory", "--base", "mini", "--budget", takes - 1, code=1)
    assert rows(said.stdout)["fits"] == ["no"]
    assert numbers(rows(said.stdout)["budget"]) == [takes - 1]
    assert said.stderr.startswith(f"{takes:,} bytes do not fit into {takes - 1:,}; it fits with ")
    assert said.stderr.count("\n") == 1


def test_on_a_gpu_all_but_the_whole_budget_is_too_close():
    takes = step(**BF16)["device"]
    options = ("--base", "mini", "--device", "cuda", "--budget")
    said = lorakit_("memory", *options, takes, code=1)
    assert said.stderr.startswith(f"{takes:,} bytes come too close to {takes:,}: 1% stays free, ")
    assert numbers(rows(said.stdout)["takes"]) == [takes]
    assert rows(said.stdout)["fits"] == ["no"]
    assert rows(lorakit_("memory", *options, 1.01 * takes).stdout)["fits"] == ["yes"]


def test_a_step_that_fits_says_nothing_more():
    said = lorakit_("memory", "--base", "mini", "--budget", "1GiB")
    table = rows(said.stdout)
    assert numbers(table["budget"]) == [2**30]
    assert numbers(table["takes"]) == [step()["device"]]
    assert table["fits"] == ["yes"]
    assert "add" not in said.stdout
    assert said.stderr == ""


@pytest.mark.parametrize(("device", "changes"), [("cpu", {}), ("cuda", BF16)])
def test_the_largest_batch_fits_and_one_row_more_does_not(device, changes):
    budget = step(batch_size=21, **changes)["device"] + 10_000_000
    options = ("--device", device, "--budget", budget)
    largest = told(*options)["fit"]["largest_batch"]
    assert largest >= 21
    assert told(*options, "--batch-size", largest)["fit"]["fits"]
    more = told(*options, "--batch-size", largest + 1, code=1)["fit"]
    assert (more["fits"], more["largest_batch"]) == (False, largest)
    table = rows(lorakit_("memory", "--base", "mini", *options).stdout)
    assert numbers(table["largest batch"]) == [largest]


def test_more_rows_than_anyone_asks_for_are_not_counted_out():
    shown = lorakit_("memory", "--base", "mini", "--length", 2, "--budget", "1000TB").stdout
    assert rows(shown)["largest batch"] == ["65,536 or more"]


def steps_in(budget: int, *options) -> list[dict]:
    return told(*options, "--budget", budget, code=1)["fit"]["changes"]


def test_changes_come_one_on_top_of_the_other_each_with_what_it_saves():
    full = ("--method", "full", "--batch-size", 6, "--rank", 3)
    changes = steps_in(1, *full)
    assert [change["options"] for change in changes] == [
        ["--batch-size", "1", "--accumulation", "6"],
        ["--gradient-checkpointing"],
        ["--method", "lora"],
        ["--method", "qlora"],
    ]
    assert [change["what"] for change in changes[2:]] == [
        "LoRA of rank 3",
        "QLoRA, the base in 4 bits",
    ]
    assert [change["fits"] for change in changes] == [False] * 4
    before, options = step(lora=None, batch_size=6)["device"], list(full)
    for change in changes:
        assert before - change["saves"] == change["takes"]
        options += change["options"]
        assert told(*options)["memory"]["device"] == change["takes"]
        before = change["takes"]


def test_lora_on_a_gpu_is_advised_as_it_is_run_there_with_its_base_in_half_precision():
    changes = steps_in(1, "--method", "full", "--device", "cuda", "--batch-size", 1)
    assert changes[-2]["options"] == ["--method", "lora"]
    asked = {**BF16, "batch_size": 1, "config": TrainConfig(gradient_checkpointing=True)}
    assert changes[-2]["takes"] == step(**asked)["device"]
    assert changes[-1]["options"] == ["--method", "qlora"]
    assert changes[-1]["takes"] == step(**asked, quantized=True)["device"]


def test_of_an_option_that_is_advised_twice_the_last_is_typed():
    asked = {"batch_size": 1, "config": TrainConfig(accumulation=4, gradient_checkpointing=True)}
    budget = step(**asked, quantized=True)["device"]
    assert budget < step(**asked)["device"]
    command = ["memory", "--base", "mini", "--method", "full", "--budget", budget]
    said = lorakit_(*command, code=1)
    _, advised = said.stderr.split("; it fits with ")
    assert shlex.split(advised)[-2:] == ["--method", "qlora"] and advised.count("--method") == 1
    assert lorakit_(*command, *shlex.split(advised)).stderr == ""


def test_a_quantised_base_is_estimated_and_said_to_be_qlora():
    said = lorakit_("memory", "--base", "mini", "--method", "qlora")
    first = "qlora on mini, 4 x 128 tokens, linear weights in 4 bits, others in float32\n"
    assert said.stdout.startswith(first)
    memory = told("--method", "qlora")["memory"]
    assert memory == step(quantized=True)
    assert memory["most"]["weights"] < 0.3 * step()["most"]["weights"]


def test_changes_end_with_the_first_that_fits():
    halves = step(batch_size=2, config=TrainConfig(accumulation=2))["device"]
    (change,) = steps_in(halves)
    assert change["options"] == ["--batch-size", "2", "--accumulation", "2"]
    assert change["fits"]
    assert change["takes"] == halves
    assert len(steps_in(halves - 1)) == 1  # one row at a time
    assert steps_in(halves - 1)[0]["options"][1] == "1"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_options_that_are_advised_make_the_same_command_fit(method):
    checkpointed = TrainConfig(accumulation=4, gradient_checkpointing=True)
    budget = step(batch_size=1, config=checkpointed)["device"]
    command = ["memory", "--base", "mini", "--method", method, "--budget", budget]
    said = lorakit_(*command, code=1)
    _, advised = said.stderr.split("; it fits with ")
    assert lorakit_(*command, *shlex.split(advised)).stderr == ""
    table = rows(said.stdout)
    assert table["--batch-size 1 --accumulation 4"][-1] == "no"
    assert table["--gradient-checkpointing"][-1] == ("yes" if method == "lora" else "no")


def test_where_no_option_helps_the_way_out_is_another_step():
    said = lorakit_("memory", "--base", "mini", "--budget", "2 MB", code=1)
    assert said.stderr.endswith(
        "into 2,000,000; no option helps: take a smaller base, --length or --rank\n"
    )
    assert rows(said.stdout)["largest batch"] == ["0"]


# refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--base nothing", "'nothing' is no base: give \"smollm2\""),
        ("--base nothing", "presets are mini, smollm2-135m"),
        ("--method dora", 'method must be one of "lora", "qlora", "full", got \'dora\''),
        ("--rank 0", "rank must be a whole number of at least 1, got 0"),
        ("--rank 129", "rank=129 is more than model.layers.0.mlp.down_proj has"),
        ("--targets q_prj", "'q_prj' matches no linear layer of the model; nearest: q_proj"),
        ("--batch-size 0", "batch_size must be at least 1, got 0"),
        ("--length 0", "length must be a whole number of at least 1, got 0"),
        ("--length 257", "length=257 is more than max_position_embeddings=256"),
        ("--accumulation 0", "accumulation must be at least 1, got 0"),
        ("--optimizer adam", "optimizer must be one of adamw, sgd, got 'adam'"),
        ("--momentum 0.9", "momentum=0.9 is of sgd"),
        ("--implementation fast", "implementation must be one of auto, plain, foreach, fused, got"),
        ("--dtype fp16", "dtype must be one of float32, bfloat16, got 'fp16'"),
        ("--device mps", "device must be one of cpu, cuda, got 'mps'"),
        ("--budget 8G", "'8G' is no number of bytes: write it like 8GiB, 24GB, 500 MB"),
        ("--budget -1GB", "'-1GB' is no number of bytes"),
        ("--budget 0", "a budget must be at least 1 byte, got 0"),
        ("--budget 0.4B", "a budget must be at least 1 byte, got 0"),
    ],
)
def test_what_cannot_be_estimated_is_named_in_one_line(options, message):
    said = lorakit_("memory", "--base", "mini", *options.split(), "--json", code=1)
    assert said.stderr.startswith("error: ")
    assert message in said.stderr
    assert said.stderr.count("\n") == 1
    assert said.stdout == ""


# the README


def test_the_example_of_the_readme_is_what_the_command_says():
    example = re.search(r"```console\n\$ lorakit (memory .*)\n((?:.*\n)*?)```", README.read_text())
    said = lorakit_(*shlex.split(example[1]), code=1)
    shown = [line.rstrip() for line in said.output.splitlines() if line.strip()]
    assert shown == [line for line in example[2].splitlines() if line]
