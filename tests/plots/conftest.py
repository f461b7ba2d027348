"""Empty axes, and spectra as runs leave them."""

import pytest

from lorakit.memory import StepMemory, measure
from lorakit.plots import figure
from lorakit.spectrum import Spectrum
from lorakit.step import TrainConfig
from lorakit.text import Batches, Encoded


@pytest.fixture
def ax():
    return figure(700, 400)[1]


@pytest.fixture
def spectra() -> list[Spectrum]:
    return [
        Spectrum(
            layer=f"model.layers.{layer}.self_attn.{name}",
            shape=(24, 40),
            values=tuple(size * 2.0**-i for i in range(6)),
            base_norm=20.0,
        )
        for layer in range(3)
        for name, size in (("q_proj", 1.0 + layer), ("v_proj", 0.5))
    ]


@pytest.fixture
def measured_step(model) -> StepMemory:
    example = Encoded(tokens=(0,) * 9, prompt=1)
    return measure(model, Batches(examples=(example,), batch_size=2, pad_id=0), TrainConfig())
