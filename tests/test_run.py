"""A run is a value: it checks itself, and says what its method means."""

import pytest
import torch

from lorakit.checkpoint import MINI
from lorakit.lora import LoRAConfig
from lorakit.presets import PRESETS
from lorakit.run import LEARNING_RATES, MINI_LEARNING_RATES, Run, disk_bytes
from lorakit.text import Example


def test_the_method_decides_what_trains_and_how_fast():
    assert Run(method="full").lora is None
    for method in ("lora", "qlora"):
        assert Run(method=method, rank=4, alpha=2).lora == LoRAConfig(rank=4, alpha=2)
    for method, lr in LEARNING_RATES.items():
        assert Run(method=method).train_config("cpu").lr == lr
        assert Run(method=method, lr=3e-5).train_config("cpu").lr == 3e-5


def test_a_gpu_holds_a_frozen_base_in_bfloat16_and_what_trains_in_float32():
    assert Run(method="lora").dtype("cuda") == torch.bfloat16
    assert Run(method="qlora").dtype("cuda") == torch.bfloat16
    assert Run(method="full").dtype("cuda") == torch.float32
    assert Run(method="full").train_config("cuda").autocast
    assert not Run(method="lora").train_config("cuda").autocast
    for method in LEARNING_RATES:
        assert Run(method=method).dtype("cpu") == torch.float32
        assert not Run(method=method).train_config("cpu").autocast


def test_qlora_alone_has_a_quantised_base_and_so_has_its_step():
    for method in LEARNING_RATES:
        run = Run(method=method)
        assert run.quantized == (method == "qlora")
        assert run.setup(PRESETS["mini"], 20, "cpu").quantized == run.quantized


def test_qlora_has_the_rates_of_lora():
    for rates in (LEARNING_RATES, MINI_LEARNING_RATES):
        assert rates["qlora"] == rates["lora"]


def test_a_variant_is_a_whole_copy_or_a_few_megabytes():
    model = PRESETS["smollm2-135m"]
    assert disk_bytes(model, None) == 4 * 134_515_008
    assert disk_bytes(model, LoRAConfig(rank=8)) < disk_bytes(model, None) / 50


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("method", "dora"),
        ("rank", 0),
        ("alpha", -1),
        ("batch_size", 0),
        ("steps", 0),
        ("heldout", 0),
        ("answers", -1),
        ("lr", float("nan")),
        ("sample", 0),
    ],
)
def test_nonsense_is_refused_and_named(field, value):
    with pytest.raises(ValueError, match=f"{field} must be .* got {value!r}"):
        Run(**{field: value})


def test_a_sample_is_drawn_by_the_seed_and_all_is_all():
    examples = [Example(f"question {n}", f"answer {n}") for n in range(40)]
    first, second = (Run(sample=20, seed=seed).drawn(examples) for seed in (0, 1))
    assert first == Run(sample=20, seed=0).drawn(examples) != second
    assert len(set(first)) == 20 and set(first) < set(examples)
    assert Run().drawn(examples) == tuple(examples)
    with pytest.raises(ValueError, match="sample=41: the task has 40 to train on"):
        Run(sample=41).drawn(examples)


def test_the_mini_base_has_learning_rates_of_its_own():
    for method, lr in MINI_LEARNING_RATES.items():
        assert Run(base=MINI, method=method).learning_rate == lr > LEARNING_RATES[method]
        assert Run(base=MINI, method=method, lr=1e-4).learning_rate == 1e-4


def test_another_method_has_its_own_learning_rate():
    run = Run(method="full", lr=1e-4, rank=2)
    assert run.with_method("full") == run
    assert run.with_method("lora") == Run(method="lora", rank=2)
