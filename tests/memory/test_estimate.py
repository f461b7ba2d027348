"""The dry run says what the real step holds, for any depth, batch, rank and setting."""

from dataclasses import replace

import pytest
import torch

from lorakit.attention import attend
from lorakit.linear import MANY
from lorakit.lora import LoRAConfig, inject
from lorakit.memory import DTYPES, PARTS, Setup, StepMemory, estimate, measure
from lorakit.memory.dry_run import dry_run
from lorakit.model import Llama
from lorakit.presets import PRESETS
from lorakit.qlora import quantize_
from lorakit.step import TrainConfig, make_optimizer, prepare, step
from lorakit.text import Batches, Encoded

MINI = PRESETS["mini"]
LORA = LoRAConfig(rank=8)


def built(setup: Setup) -> Llama:
    torch.set_default_dtype(DTYPES[setup.dtype])
    try:
        net = Llama(setup.model)
    finally:
        torch.set_default_dtype(torch.float32)
    if setup.quantized:
        quantize_(net)
    if setup.lora is not None:
        inject(net, setup.lora)
    return net


def measured(setup: Setup) -> StepMemory:
    example = Encoded((1,) * setup.length, prompt=1)
    batches = Batches(examples=(example,), batch_size=setup.batch_size, pad_id=0)
    return measure(built(setup), batches, setup.config)


def assert_agree(setup: Setup, rel: float = 1e-3) -> None:
    expected, found = measured(setup), estimate(setup)
    for phase, held in expected.phases.items():
        for part in PARTS:
            asked = getattr(found.phases[phase], part)
            # A few numbers of some bytes each count once a layer or once in all.
            assert asked == pytest.approx(getattr(held, part), rel=rel, abs=256), (phase, part)
    assert found.peak.total == pytest.approx(expected.peak.total, rel=rel)
    assert found.phase == expected.phase


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("layers", [1, 2, 4, 5, 9])
def test_any_number_of_layers_follows_from_four(layers, lora):
    model = replace(MINI, num_hidden_layers=layers)
    assert_agree(Setup(model=model, lora=lora, batch_size=3, length=20))


@pytest.mark.parametrize("lora", [None, LoRAConfig(rank=1), LoRAConfig(rank=24)])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 16])
def test_any_batch_and_any_rank_follow_from_two_and_three(batch_size, lora):
    assert_agree(Setup(model=MINI, lora=lora, batch_size=batch_size, length=20))


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(implementation="foreach"),
        TrainConfig(implementation="fused"),
        TrainConfig(optimizer="sgd"),
        TrainConfig(optimizer="sgd", momentum=0.9, weight_decay=0.1),
        TrainConfig(accumulation=2),
        TrainConfig(accumulation=4),
        TrainConfig(gradient_checkpointing=True),
        TrainConfig(autocast=True),
        TrainConfig(autocast=True, gradient_checkpointing=True),
        TrainConfig(gradient_checkpointing=True, accumulation=2, implementation="foreach"),
    ],
    ids=lambda config: "-".join(
        str(value) for name, value in vars(config).items() if value != getattr(TrainConfig, name)
    ),
)
def test_every_setting_of_a_step_counts(config, lora):
    model = replace(MINI, num_hidden_layers=5)
    assert_agree(Setup(model=model, lora=lora, batch_size=3, length=20, config=config))


@pytest.mark.parametrize("lora", [None, LORA, LoRAConfig(rank=48)], ids=["full", "8", "48"])
@pytest.mark.parametrize(("rows", "length"), [(1, 120), (1, MANY - 1), (1, MANY), (3, 89)])
def test_a_wide_model_is_estimated_for_few_tokens_and_for_many(rows, length, lora):
    model = replace(MINI, hidden_size=576, vocab_size=4096, num_hidden_layers=5)
    config = TrainConfig(optimizer="sgd")
    assert_agree(Setup(model=model, lora=lora, batch_size=rows, length=length, config=config))


@pytest.mark.parametrize(
    "setup",
    [
        Setup(model=MINI, lora=LORA, batch_size=3, length=20, dtype="bfloat16"),
        Setup(model=MINI, batch_size=2, length=1),
        Setup(model=MINI, lora=LORA, batch_size=1, length=1),
        Setup(model=MINI, lora=LoRAConfig(rank=3, dropout=0.2), batch_size=4, length=20),
        Setup(model=MINI, lora=LoRAConfig(rank=3, targets=("q_proj", "v_proj")), length=33),
        Setup(model=MINI, lora=LoRAConfig(targets=("model.layers.1.mlp.up_proj",)), length=33),
        Setup(
            model=replace(
                MINI, num_key_value_heads=2, tie_word_embeddings=False, num_hidden_layers=6
            ),
            batch_size=7,
            length=45,
        ),
    ],
    ids=[
        "16 bits",
        "one token",
        "one token, one row",
        "dropout",
        "q and v",
        "one layer",
        "another",
    ],
)
def test_shapes_that_are_not_the_usual_ones(setup):
    assert_agree(setup)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 33])
@pytest.mark.parametrize("implementation", ["plain", "foreach"])
def test_a_batch_of_any_size_is_a_direct_dry_run_of_it(batch_size, implementation):
    from lorakit.memory.account import account
    from lorakit.memory.dry_run import dry_run
    from lorakit.memory.layers import Blueprint

    config = TrainConfig(implementation=implementation)
    log = dry_run(
        MINI,
        None,
        batch_size=batch_size,
        length=40,
        config=config,
        dtype=torch.float32,
        device="cpu",
        target="cpu",
        tokens=40 * batch_size,
    )
    direct = Blueprint(log, MINI.num_hidden_layers, MINI.num_hidden_layers)
    sizes = direct.sizes(log)
    expected = account(direct.events, sizes, direct.kinds, direct.marks, source="")
    found = estimate(Setup(model=MINI, batch_size=batch_size, length=40, config=config))
    for phase, held in expected.phases.items():
        assert found.phases[phase].total == pytest.approx(held.total, rel=0.005), phase


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_that_nobody_follows_takes_as_much(dtype, lora, checkpointing):
    """PyTorch's profiler counts what is allocated and freed, and changes nothing."""
    config = TrainConfig(gradient_checkpointing=checkpointing)
    setup = Setup(model=MINI, lora=lora, batch_size=8, length=64, config=config, dtype=dtype)
    net = built(setup)
    prepare(net, config)
    optimizer = make_optimizer(net, config)
    tokens = torch.zeros(8, 64, dtype=torch.long)
    step(net, optimizer, [(tokens, tokens)], config)
    with torch.profiler.profile(profile_memory=True) as profiler:
        step(net, optimizer, [(tokens, tokens)], config)
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    told = estimate(setup)
    at_start = told.most.weights + told.most.optimizer
    assert told.peak.total - at_start == pytest.approx(peak, rel=0.005)


@pytest.mark.parametrize("layers", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_quantised_base_is_estimated_to_the_byte(layers, batch_size):
    model = replace(MINI, num_hidden_layers=layers)
    options = {"model": model, "lora": LORA, "quantized": True, "length": 20}
    assert_agree(Setup(**options, batch_size=batch_size), rel=0)


@pytest.mark.parametrize(
    "options",
    [
        {"config": TrainConfig(gradient_checkpointing=True)},
        {"config": TrainConfig(autocast=True)},
        {"config": TrainConfig(accumulation=3)},
        {"dtype": "bfloat16"},
        {"lora": LoRAConfig(rank=3, targets=("q_proj", "v_proj"), dropout=0.2)},
    ],
    ids=["checkpointing", "autocast", "accumulation", "16 bits", "q and v"],
)
def test_over_a_quantised_base_every_setting_counts(options):
    few = {"model": MINI, "lora": LORA, "quantized": True, "batch_size": 3, "length": 20}
    assert_agree(Setup(**few | options))


def test_4_bits_take_the_place_of_the_plain_weights_and_of_no_activation():
    # Over 4 bits adapters are computed as in lora.py.
    plain = Setup(model=MINI, lora=LORA, batch_size=8, length=64, config=TrainConfig(fast=False))
    held, packed = estimate(plain), estimate(replace(plain, quantized=True))
    linear, saved = 802_816, held.most.weights - packed.most.weights
    assert 4 - saved / linear == pytest.approx(0.516, rel=0.01)
    assert packed.most.activations == held.most.activations
    assert packed.most.optimizer == held.most.optimizer


def test_a_weight_that_is_made_whole_is_a_temporary_of_the_step():
    setup = Setup(model=MINI, lora=LoRAConfig(rank=1), batch_size=1, length=2)
    largest = 4 * MINI.hidden_size * MINI.intermediate_size
    for phase in ("forward", "backward"):
        held, packed = (
            estimate(replace(setup, quantized=quantized)).phases[phase].temporaries
            for quantized in (False, True)
        )
        assert held < largest <= packed


def test_quantising_is_no_part_of_the_step_and_leaves_no_room_behind():
    model = replace(PRESETS["llama-3-8b"], num_hidden_layers=4, vocab_size=64)
    options = {"model": model, "lora": LoRAConfig(rank=1), "length": 4, "dtype": "bfloat16"}
    held = estimate(Setup(**options, quantized=True, device="cuda"))
    plain = estimate(Setup(**options)).most.weights
    assert held.reserved < 1.3 * held.peak.tensors < 0.7 * plain


def test_large_models_are_estimated_from_their_configs():
    llama = PRESETS["llama-3-8b"]
    options = {"batch_size": 4, "length": 512, "dtype": "bfloat16", "device": "cuda"}
    full = estimate(Setup(model=llama, **options))
    lora = estimate(Setup(model=llama, lora=LoRAConfig(rank=16), **options))
    assert full.most.weights == 2 * 8_030_261_248
    assert full.most.gradients == full.most.weights
    assert full.phase == "optimizer"
    assert lora.most.gradients == 4 * 41_943_040, "A and B in float32"
    assert lora.phase == "backward"


def test_checkpointing_keeps_fewer_activations_and_makes_more_on_the_way():
    keeps = estimate(Setup(model=MINI, batch_size=8, length=64))
    again = estimate(
        Setup(model=MINI, batch_size=8, length=64, config=TrainConfig(gradient_checkpointing=True))
    )
    assert again.most.activations < 0.3 * keeps.most.activations
    assert again.phases["backward"].temporaries > keeps.phases["backward"].temporaries
    assert again.peak.total < 0.7 * keeps.peak.total


def test_no_byte_depends_on_the_rate_or_on_alpha():
    one = Setup(model=MINI, lora=LORA, batch_size=2, length=20)
    other = replace(one, lora=replace(LORA, alpha=99.0), config=TrainConfig(lr=0.5, steps=7))
    assert estimate(one) == estimate(other)
    assert measured(one).phases == measured(other).phases


@pytest.mark.parametrize(
    ("target", "dtype", "autocast", "told"),
    [
        ("cpu", torch.float32, False, None),
        ("cuda", torch.float32, False, False),
        ("cuda", torch.bfloat16, False, True),
        ("cuda", torch.float16, False, True),
        ("cuda", torch.float32, True, True),
        ("mps", torch.bfloat16, False, False),
    ],
)
def test_keys_are_shared_as_on_the_device_that_a_dry_run_is_for(
    monkeypatch, target, dtype, autocast, told
):
    seen = []

    def noted(q, k, v, mask, shared):
        seen.append((shared, q.dtype))
        return attend(q, k, v, mask, shared)

    monkeypatch.setattr("lorakit.model.attend", noted)
    config = TrainConfig(autocast=autocast)
    sizes = {"batch_size": 2, "length": 20, "tokens": 40}
    devices = {"device": "cpu", "target": target}
    dry_run(
        replace(MINI, num_key_value_heads=2), LORA, config=config, dtype=dtype, **sizes, **devices
    )
    assert set(seen) == {(told, torch.bfloat16 if autocast else dtype)}
