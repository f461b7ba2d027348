"""Every figure of the quiz is made again: from the package, from mathematics, or from the results.

A number in a question's texts that is neither computed here nor a premise of the question fails.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lorakit as lk
from lorakit.claims import evidence
from lorakit.family import FAMILY, read_rows
from lorakit.grids import TARGETS
from lorakit.memory.fit import changes_to_fit
from lorakit.quantize import quantize
from lorakit.quiz import Item, Option, is_right, quiz_items
from lorakit.spectrum import energy, stable_rank
from lorakit.widgets.predict import as_number

RESULTS = Path(__file__).parent.parent / "data" / "results"
ITEMS = {item.key: item for item in quiz_items()}
MINI, SMOL = lk.PRESETS["mini"], lk.PRESETS["smollm2-135m"]
LLAMA = lk.PRESETS["llama-3-8b"]
RANK_8 = lk.LoRAConfig(rank=8)
NUMBER = re.compile(r"(?<![\w^])\d+(?:,\d{3})*(?:\.\d+)?%?")

Figures = list[str]


def texts(item: Item) -> str:
    parts = [item.question, item.otherwise]
    return " ".join([*parts, *(f"{o.text} {o.why}" for o in item.options if item.kind != "bug")])


def claims(name: str) -> dict:
    found = json.loads((RESULTS / "claims.json").read_text())["claims"]
    return next(claim["mini"] for claim in found if claim["name"] == name)


def trained(config, rank: int = 8) -> int:
    return lk.count(config, lk.LoRAConfig(rank=rank)).trainable


def percent(config, rank: int = 8) -> str:
    share = lk.count(config, lk.LoRAConfig(rank=rank)).percent
    return f"{share:.1f}%" if share >= 1 else f"{share:.2f}%"


def what_changes() -> Figures:
    """One real step on the mini base."""
    run = lk.Run(base="mini", task="json", method="full", batch_size=16, steps=60)
    training = lk.begin(run)
    before = lk.snapshot(training.model)
    training.step()
    found = lk.changes(training.model, before)
    changed, total = sum(c.changed for c in found), sum(c.numbers for c in found)
    assert changed >= 0.999 * total
    return [f"{total:,}", "99.9%"]


def kept_bytes() -> Figures:
    """Weights, gradients and AdamW's state, for each parameter of the mini model."""
    kept = lk.estimate(lk.Setup(model=MINI, length=8)).most
    parts = (kept.weights, kept.gradients, kept.optimizer)
    each = [round(part / lk.count(MINI).total, 2) for part in parts]
    assert each == [4, 4, 8]
    return ["16", "4", "8", "12"]


def fifty() -> Figures:
    total = lk.count(LLAMA).total
    adapters = 50 * 4 * trained(LLAMA) / 1e9
    return (
        [f"{total:,}", f"{4 * total / 1e12:.3f}", f"{50 * 16 * total / 1e12:.1f}"]
        + [f"{50 * n * total / 1e12:.1f}" for n in (2, 4)]
        + [f"{adapters:.1f}"]
    )


def one_layer() -> Figures:
    layer = lk.LoRALinear(nn.Linear(128, 352, bias=False), RANK_8)
    W, A, B = layer.base.weight.numel(), layer.A.numel(), layer.B.numel()
    return [f"{n:,}" for n in (A + B, W, W + A + B, 8 * W, B, A)]


def under_one_percent() -> Figures:
    names = ("mini", "smollm2-135m", "llama-3.2-1b", "llama-3-8b", "llama-3-70b")
    shares = [lk.count(lk.PRESETS[name], RANK_8).percent for name in names]
    item = ITEMS["lora/under-one-percent"]
    assert [share < 1 for share in shares] == [option.right for option in item.options]
    widths = [f"{lk.PRESETS[name].hidden_size:,}" for name in names]
    return [percent(lk.PRESETS[name]) for name in names] + [percent(SMOL, 4), *widths]


def multiplier() -> Figures:
    before = lk.LoRAConfig(rank=8, alpha=16)
    rooted = replace(before, use_rslora=True)
    assert lk.LoRAConfig(rank=32, alpha=64).scale == before.scale == 2
    assert replace(rooted, rank=32, alpha=32).scale == pytest.approx(rooted.scale)
    assert lk.LoRAConfig(rank=32, alpha=32).scale == 1
    return ["64", "2", "1", f"{lk.LoRAConfig(rank=32, alpha=16).scale}"]


def best_rates() -> Figures:
    ratios = []
    for task in ("json", "manners-dialect"):
        rows = [row for row in evidence.grid("rank") if row["run"]["task"] == task]
        kinds = evidence.grouped(rows, evidence.kind)
        rates = [evidence.rate(evidence.best(kinds[kind])) for kind in ("rank 8", "full")]
        ratios.append(round(rates[0] / rates[1]))
    assert claims("H14")["measured"].count("by a factor of 2 on") == 1
    return [str(ratio) for ratio in ratios] + ["2"]


def shrinks() -> Figures:
    full = lk.Setup(model=MINI, batch_size=16, length=128)
    lora = lk.estimate(replace(full, lora=RANK_8)).most
    most = lk.estimate(full).most
    share = {p: getattr(lora, p) / getattr(most, p) for p in ("weights", "gradients", "optimizer")}
    assert f"{share['gradients']:.0%}" == f"{share['optimizer']:.0%}" == "9%"
    assert f"{share['weights'] - 1:.0%}" == "9%"
    return ["9%", f"{lora.activations / most.activations:.0%}"]


def lora_8b() -> Figures:
    total, adapters = lk.count(LLAMA).total, trained(LLAMA)
    item = ITEMS["memory/lora-8b"]
    exact = [16 * total, 16 * adapters, 4 * total + 16 * adapters, 2 * total + 16 * adapters]
    values = [option.value for option in item.options]
    assert values == pytest.approx([n / 1e9 for n in exact], rel=1e-3)
    written = [f"{exact[0] / 1e9:.0f}", f"{exact[1] / 1e9:.2f}"]
    return [f"{total:,}", f"{adapters:,}", *written, *(f"{n / 1e9:.1f}" for n in exact[2:])]


def choose_batch() -> Figures:
    """Of a GPU that need not be here."""
    small = lk.Setup(model=SMOL, length=512, device="cuda")
    large = lk.Setup(model=LLAMA, length=512, device="cuda", dtype="bfloat16")
    rows = [
        lk.largest_batch(budget * 10**9, replace(setup, lora=lora)).batch_size
        for budget, setup in ((8, small), (24, large))
        for lora in (None, RANK_8)
    ]
    assert rows == [4, 5, 0, 1]
    return ["4", "5", percent(SMOL)]


def square_values() -> Figures:
    values = [4.0, 2.0, 2.0, 1.0]
    item = ITEMS["change/energy"]
    share = energy(values, 1)
    assert item.solution == pytest.approx(100 * share)
    assert [o.value for o in item.options] == pytest.approx(
        [400 / 9, 100 * share, 25, 80], rel=1e-4
    )
    shares = [f"{value:.0f}" for value in (100 * share, 100 * share**0.5)]
    return [*shares, f"{400 / 9:.1f}", f"{stable_rank(values):.1f}"]


def first_eight() -> Figures:
    """Of full fine-tunes of all narrow tasks: the lowest and the highest mean of a task's seeds."""
    cuts = json.loads((RESULTS / "science.json").read_text())["cut_summary"]
    assert {cut["k"] for cut in cuts} == {8}
    held = sorted(cut["energy"]["mean"] for cut in cuts)
    (chance,) = {round(cut["energy_random"]["mean"], 2) for cut in cuts}
    tail = 1 - round(held[-1], 2)
    shares = [f"{value:.2f}" for value in (held[0], held[-1], chance, tail)]
    return [*shares, f"{chance:.0%}", f"{8 / 128:.0%}"]


def times_smaller() -> Figures:
    total, adapters = lk.count(SMOL).total, trained(SMOL)
    item = ITEMS["keep/times"]
    right = total / adapters
    values = [option.value for option in item.options]
    assert values == pytest.approx([100 / right, right, 4 * right, 10_000], rel=1e-3)
    sizes = [f"{4 * total / 1e6:.0f}", f"{4 * adapters / 1e6:.1f}"]
    factors = [f"{100 / right:.1f}", f"{right:.0f}", f"{4 * right:.0f}"]
    return [f"{total:,}", f"{adapters:,}", *factors, *sizes]


def dozens() -> Figures:
    total, each, count = lk.count(MINI).total, trained(MINI, 1), len(FAMILY)
    assert len(read_rows(RESULTS / "adapters.json")) == count
    together = count * each
    numbers = (total, each, together, count * total, total + together)
    return [f"{n:,}" for n in numbers] + [str(count)]


def merged_share(size: float, dtype: torch.dtype) -> float:
    """What a merge loses of a random delta, `size` times as large as a random weight."""
    draw = torch.Generator().manual_seed(0)
    base = nn.Linear(512, 512, bias=False)
    layer = lk.LoRALinear(base, lk.LoRAConfig(rank=64, alpha=64), draw)
    with torch.no_grad():
        base.weight.copy_(torch.randn(512, 512, generator=draw) / 16)
        layer.B.copy_(torch.randn(layer.B.shape, generator=draw))
        layer.B.mul_(size * base.weight.norm() / layer.delta().norm())
    return lk.merge_cost(nn.Sequential(layer), dtype).loss


def in_bfloat16() -> Figures:
    thousandth = merged_share(1e-3, torch.bfloat16)
    assert thousandth == pytest.approx(0.79, abs=0.01)
    assert merged_share(1e-2, torch.bfloat16) == pytest.approx(0.17, abs=0.01)
    assert merged_share(1e-3, torch.float16) == pytest.approx(0.21, abs=0.01)
    return ["79%", "17%", "21%"]


def bits() -> Figures:
    W = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    single, double = (8 * quantize(W, double=d).nbytes / W.numel() for d in (False, True))
    item = ITEMS["qlora/bits"]
    assert item.solution == pytest.approx(single, rel=1e-3)
    assert item.options[2].value == pytest.approx(double, rel=1e-3)
    return [f"{single:.1f}", "4", f"{double:.3f}", str(4 + 32), str(4 + 32 // 16)]


def merged_again() -> Figures:
    """SmolLM2's adapter over 4 bits, merged in three places."""
    found = {row["model"]: row for row in evidence.real_model()["quantised"]}
    rows = [found[name] for name in ("as trained", "dequantised", "original", "quantised again")]
    matches = [f"{row['match']:.2f}" for row in rows]
    return [*matches, *(f"{row['logits']:.2f}" for row in rows[1:3])]


def deep() -> Figures:
    rows = [row for row in evidence.grid("data") if row["run"]["task"] == "deep"]
    rows = [row for row in rows if row["run"]["sample"] == 3200]
    assert {row["run"]["steps"] for row in rows} == {200}
    kinds = evidence.grouped(rows, evidence.kind)
    runs = [evidence.best(kinds[kind]) for kind in ("full", "rank 8", "rank 64")]
    arms = ("linear layers", "rank 8 and the rest", "the rest")
    runs += [evidence.best(evidence.embedding("deep", arm)) for arm in arms]
    rates = {kind: evidence.rate(evidence.best(rows)) for kind, rows in kinds.items()}
    assert rates["full"] < min(rate for kind, rate in rates.items() if kind != "full")
    return [f"{mean(evidence.losses(of_rate)):.2f}" for of_rate in runs] + ["200"]


def targets() -> Figures:
    names = {"all": "all linear layers", "MLP": "the MLP alone", "attention": "attention alone"}
    names["q"] = "q alone"
    rows = [r for r in evidence.grid("targets") if r["run"]["task"] == "manners-dialect"]
    grouped = evidence.grouped(rows, lambda run: run["targets"])
    loss = {
        text: mean(evidence.losses(evidence.best(grouped[TARGETS[name][0]])))
        for name, text in names.items()
    }
    assert sorted(loss, key=loss.__getitem__) == ITEMS["choose/targets"].solution
    return [f"{value:.2f}" for value in loss.values()]


def forgetting() -> Figures:
    found = claims("H11")
    assert found["verdict"] == "does not hold"
    loss = dict(re.findall(r"(full|rank \d+) (\d\.\d+)", found["measured"].split("; in 600")[0]))
    ranks = sorted(value for kind, value in loss.items() if kind != "full")
    small_steps = re.findall(r"(?:full|rank 8) (\d\.\d+)", found["measured"].split("in 600")[1])
    before = re.findall(r"\((\d\.\d+) before\)", found["measured"])
    written = [loss["full"], loss["rank 1"], loss["rank 8"], ranks[0], ranks[-1], *before]
    return [*written, *(f"{float(value):.2f}" for value in small_steps), "600", "150"]


def speed() -> Figures:
    seconds = json.loads((RESULTS / "mini_finetune.json").read_text())["seconds"]
    return [f"{seconds[name]['whole']['median']:.1f}" for name in ("full", "lora, rank 8")]


# What a question's texts say, by its key: its premises, and the figures that are computed.
FIGURES: dict[str, tuple[str, Callable[[], Figures]]] = {
    "full/what-changes": ("16", what_changes),
    "full/bytes": ("32", kept_bytes),
    "full/fifty": ("3 8 32 10 4 16 2", fifty),
    "lora/count": ("352 128 8", one_layer),
    "lora/under-one-percent": ("8 1% 135 1 2 3.2 3 4 70", under_one_percent),
    "alpha/keep": ("8 16 32 64 4", multiplier),
    "alpha/lost": ("8 16", lambda: []),
    "alpha/rate": ("8 10 17 1 64", best_rates),
    "alpha/fair": ("8 256 16 1 32 512", lambda: [str(256 // 8)]),
    "memory/shrinks": ("8", shrinks),
    "memory/lora-8b": ("3 32 10 4 16 8 21", lora_8b),
    "memory/choose-batch": ("135 512 8 3 16 24 200", choose_batch),
    "change/energy": ("4 2 1 16 25 9", square_values),
    "change/full": ("128 8", first_eight),
    "change/controls": ("4 8 03 0", lambda: []),
    "keep/times": ("8 32 4 10,000 175 16 100", times_smaller),
    "keep/dozens": ("1", dozens),
    "keep/keep": ("16", lambda: []),
    "keep/bfloat16": ("8", in_bfloat16),
    "qlora/what": ("4 16", lambda: []),
    "qlora/bits": ("4 64 32 8 16", bits),
    "qlora/activations": ("4 8", lambda: []),
    "qlora/merge": ("4", merged_again),
    "memory/fit": ("4", lambda: []),
    "choose/deep": ("8 64", deep),
    "choose/targets": ("30,000", targets),
    "choose/forgetting": ("1 8 64", forgetting),
    "choose/speed": ("8 02", speed),
}


@pytest.mark.parametrize("key", ITEMS)
def test_each_figure_is_computed_or_a_premise(key):
    premises, compute = FIGURES.get(key, ("", lambda: []))
    told = set(NUMBER.findall(texts(ITEMS[key])))
    computed = set(compute())
    assert told - set(premises.split()) - computed == set()
    assert computed <= told, "computed, and nowhere said"


@pytest.mark.parametrize("key", [key for key, item in ITEMS.items() if item.kind == "number"])
def test_a_numbers_options_are_called_by_their_values(key):
    for option in ITEMS[key].options:
        assert as_number(option.text) == pytest.approx(option.value, rel=0.02)


def test_no_figures_are_kept_for_a_question_that_is_gone():
    assert FIGURES.keys() <= ITEMS.keys()


# What has no figure, and is so nonetheless


def module(lines: list[str]) -> type[nn.Module]:
    space = {"nn": nn, "torch": torch}
    exec("\n".join(lines), space)
    return space["MyLoRA"]


def test_the_layers_bug_is_that_the_base_trains_and_the_line_is_all_of_it():
    lines = [option.text for option in ITEMS["lora/bug-layer"].options]
    wrong = module(lines)(nn.Linear(6, 4), 2, 4)
    assert wrong.base.weight.requires_grad
    line = lines.index(ITEMS["lora/bug-layer"].solution)
    lines[line] = "        self.base = base.requires_grad_(False)"
    base = nn.Linear(6, 4)
    layer, x = module(lines)(base, 2, 4), torch.randn(3, 6)
    assert torch.equal(layer(x), base(x))
    assert {name for name, p in layer.named_parameters() if p.requires_grad} == {"A", "B"}


def train_as_written(lines: list[str], monkeypatch, tiny_base: str, batches) -> list[float]:
    """What the loop's losses are, with another base and these batches."""
    monkeypatch.setattr(lk, "load_base", lambda name: load(tiny_base))
    load = lk.checkpoint.load_base
    space = {"lk": lk, "torch": torch, "F": F, "batches": batches, "losses": []}
    exec("\n".join([*lines, "    losses.append(loss.item())"]), space)
    return space["losses"]


def test_the_loops_bug_keeps_the_loss_where_it_is_and_the_line_is_all_of_it(monkeypatch, tiny_base):
    tokens = torch.randint(60, (2, 9), generator=torch.Generator().manual_seed(1))
    batches = [(tokens, tokens)] * 8
    item = ITEMS["lora/bug-optimizer"]
    lines = [option.text for option in item.options]
    losses = train_as_written(lines, monkeypatch, tiny_base, batches)
    assert len(set(losses)) == 1
    late = [line for line in lines if line != item.solution]
    place = next(n for n, line in enumerate(late) if "inject" in line) + 1
    late.insert(place, item.solution.replace("model.parameters()", "lk.trainable(model)"))
    losses = train_as_written(late, monkeypatch, tiny_base, batches)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("option", ITEMS["lora/starts"].options, ids=lambda option: option.text)
def test_a_start_is_right_that_leaves_the_base_as_it_is_and_learns(option: Option):
    zero = re.findall(r"(\w) zero", option.text)
    layer = lk.LoRALinear(nn.Linear(6, 4), lk.LoRAConfig(rank=2))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in "AB":
            p = getattr(layer, name)
            p.copy_(torch.zeros(p.shape) if name in zero else torch.randn(p.shape, generator=draw))
    x = torch.randn(3, 6, generator=draw)
    as_base = torch.equal(layer(x), layer.base(x))
    layer(x).square().sum().backward()
    learns = any(getattr(layer, name).grad.any() for name in "AB")
    assert option.right == (as_base and learns)


def test_only_activations_grow_with_the_batch():
    one, two = (lk.estimate(lk.Setup(model=MINI, batch_size=n, length=32)).most for n in (4, 8))
    names = ("weights", "gradients", "optimizer", "activations")
    grown = [getattr(two, name) > 1.5 * getattr(one, name) for name in names]
    assert grown == [option.right for option in ITEMS["memory/batch"].options]


def test_what_to_change_comes_in_the_order_that_the_lab_advises():
    setup = lk.Setup(model=SMOL, batch_size=8, length=64)
    found = [change.what for change in changes_to_fit(10**8, setup)]
    words = ("micro-batches", "gradient checkpointing", "LoRA", "QLoRA")
    assert all(what.startswith(word) for what, word in zip(found, words, strict=True))
    for option, word in zip(ITEMS["memory/fit"].options, words, strict=True):
        assert option.text.startswith(word)


def test_a_step_of_full_fine_tuning_goes_as_the_order_says():
    step = lk.estimate(lk.Setup(model=MINI, batch_size=4, length=32)).phases
    assert step["forward"].gradients == 0 < step["backward"].gradients
    assert step["forward"].activations > 0.8 * step["backward"].activations
    assert step["optimizer"].activations < 0.1 * step["forward"].activations
    assert is_right(ITEMS["memory/step"], ITEMS["memory/step"].solution)


def test_a_merge_is_not_undone_by_subtraction():
    draw = torch.Generator().manual_seed(0)
    W, delta = torch.randn(64, 64, generator=draw), torch.randn(64, 64, generator=draw) / 100
    assert not torch.equal(W + delta - delta, W)


def test_a_base_in_4_bits_keeps_the_activations():
    setup = lk.Setup(model=MINI, lora=RANK_8, batch_size=4, length=32)
    plain, four = (lk.estimate(replace(setup, quantized=q)).most for q in (False, True))
    assert four.weights < plain.weights
    assert four.activations > 0.9 * plain.activations
