"""A run that takes a tenth of a second, and a page that is empty before every test."""

from dataclasses import replace

import ipywidgets
import pytest
import torch

from lorakit.checkpoint import load_base
from lorakit.experiment import finetune
from lorakit.presets import PRESETS
from lorakit.run import Result, Run
from lorakit.widgets import (
    AdapterFileExplorer,
    BudgetExplorer,
    Explorable,
    FinetuneExplorer,
    Handshake,
    LiveMemoryExplorer,
    MemoryExplorer,
    MergeExplorer,
    OverlapExplorer,
    ParametersExplorer,
    QuantizeExplorer,
    SpectrumExplorer,
    StartsExplorer,
    StepExplorer,
    TruncationExplorer,
)

# Wide enough for a rank of 64.
SHAPE = replace(PRESETS["mini"], hidden_size=64, intermediate_size=96, num_hidden_layers=1)
SHAPES = {
    "mini": SHAPE,
    "smollm2-135m": replace(SHAPE, num_hidden_layers=2, max_position_embeddings=1024),
    "large": replace(SHAPE, intermediate_size=256, num_hidden_layers=5, vocab_size=5000),
}


@pytest.fixture(autouse=True)
def page(monkeypatch):
    """Errors of callbacks are raised, and no widget outlives its test.

    One thread: for models this small a second one costs more than it brings.
    """
    monkeypatch.setenv("LORAKIT_TEST", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    Explorable._made.clear()
    ipywidgets.Widget.close_all()


@pytest.fixture
def shape():
    return SHAPE


@pytest.fixture(scope="session")
def run(small_base_to_read) -> Run:
    return Run(
        base=small_base_to_read,
        task="json",
        sample=20,
        rank=4,
        alpha=8,
        lr=1e-2,
        steps=8,
        batch_size=2,
        heldout=4,
        answers=1,
    )


@pytest.fixture(scope="session")
def lora(run) -> Result:
    return finetune(run)


@pytest.fixture(scope="session")
def full(run) -> Result:
    return finetune(replace(run, method="full"))


@pytest.fixture(scope="session")
def learnt(run) -> Result:
    """A full fine-tune that gets some answers right, and not by its layers alone."""
    return finetune(
        replace(run, task="label", method="full", sample=None, lr=3e-2, batch_size=8, steps=20)
    )


@pytest.fixture(scope="session")
def other_lora(run) -> Result:
    """Another rank and another seed."""
    return finetune(replace(run, rank=2, seed=1))


@pytest.fixture
def shapes(monkeypatch):
    """Models for the budget, under the names of larger ones."""
    monkeypatch.setattr("lorakit.widgets.budget.PRESETS", SHAPES)
    return SHAPES


def visited(explorer: TruncationExplorer) -> TruncationExplorer:
    """Every choice was made once: from then on none leaves a trace in the pictures."""
    for rest in reversed(explorer.rest.options):
        explorer.rest.value = rest
        for rank in reversed(explorer.ranks):
            explorer.rank.value = rank
    explorer.rank.value = 8
    return explorer


@pytest.fixture
def make(run, full, lora, learnt, other_lora, shapes):
    """Makes an explorable by its name."""
    makers = {
        "parameters": lambda: ParametersExplorer("mini", rank=8, alpha=16),
        "adapter file": lambda: AdapterFileExplorer("mini", rank=8),
        "memory": lambda: MemoryExplorer(SHAPE, run, length=12),
        "estimate": lambda: MemoryExplorer(SHAPE, run, length=12, measure=False),
        "spectrum": lambda: SpectrumExplorer(full, lora),
        "truncation": lambda: visited(TruncationExplorer(learnt)),
        "merge": lambda: MergeExplorer(lora),
        "quantize": lambda: QuantizeExplorer(load_base(run.base)[0]),
        "overlap": lambda: OverlapExplorer(lora, other_lora),
        "step": lambda: StepExplorer(run),
        "handshake": lambda: Handshake(),
        "finetune": lambda: FinetuneExplorer(run),
        "starts": lambda: StartsExplorer(run),
        "budget": lambda: BudgetExplorer(length=32, batch_size=2),
        "live": lambda: LiveMemoryExplorer(run),
    }
    return lambda name: makers[name]()


@pytest.fixture
def brief(monkeypatch) -> None:
    """No advice: it takes most of the time, and is in no picture."""
    monkeypatch.setattr("lorakit.widgets.budget.advice", lambda budget, setups, rank: "")
