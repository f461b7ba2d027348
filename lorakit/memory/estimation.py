"""A step's memory before the step: the dry run's, for any batch, rank and number of layers.

On a GPU four things differ from what the tensors say, and this table is all of them:

    a tensor's bytes       go through the caching allocator's rules        allocator.py
    its kernels            take workspaces of their own                    kernels.py
    AdamW                  takes all tensors at once ("foreach")           in `_what_counts`
    libraries              cuBLAS keeps a workspace in the allocator,
                           the driver a context outside of it              WORKSPACE, CONTEXT

Where PyTorch has CUDA the dry run's tensors claim to be there; else they are the CPU's. Both give
the same births and deaths, to some bytes of attention. A tensor that claims to be on a GPU aborts
a process whose PyTorch knows none: never make one there.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from lorakit.linear import MANY
from lorakit.lora import LoRAConfig
from lorakit.memory.account import Gpu, account
from lorakit.memory.allocator import MIB, Allocator
from lorakit.memory.breakdown import StepMemory
from lorakit.memory.dry_run import dry_run
from lorakit.memory.layers import Blueprint
from lorakit.memory.scribe import Log
from lorakit.memory.setup import DEVICES, DTYPES, Setup, few_layers
from lorakit.model import ModelConfig
from lorakit.step import TrainConfig

WORKSPACE = 64 * MIB  # measured on an H100 after products in float32 and bfloat16: 67,108,864 bytes
CONTEXT = 777 * MIB  # measured there: 787 to 815 million bytes, the kernels' code among them
MARGIN = 0.01  # of a budget, left free: an estimate may be as much too low


@lru_cache(maxsize=512)
def estimate(setup: Setup) -> StepMemory:
    """What a step holds once the optimizer's state is there: its second one, and all after it."""
    held = _account(setup, None)
    assert held is not None
    return held


@lru_cache(maxsize=512)
def estimate_within(budget: int, setup: Setup) -> StepMemory | None:
    """The same on a device of so many bytes; None if they do not suffice.

    Short of memory a GPU's allocator gives back segments before it fails: less is reserved then.
    """
    return _account(setup, budget)


def _account(setup: Setup, budget: int | None) -> StepMemory | None:
    rank = setup.lora.rank if setup.lora else 1
    family = _family(
        setup.model,
        setup.lora and replace(setup.lora, rank=1, alpha=1.0),
        setup.quantized,
        setup.length,
        _what_counts(setup.config, setup.device),
        setup.dtype,
        setup.device,
        setup.batch_size == 1,
        rank == 1,
        # Layers choose by the number of tokens how to compute: only that much of it counts.
        min(setup.batch_size * setup.length, MANY) // MANY * MANY,
    )
    sizes = family.sizes(setup.batch_size, rank)
    if (more := setup.config.accumulation - 2) > 0:
        sizes[family.first_batch] *= 1 + more  # all of a step's are there from its start
    gpu = None
    if setup.device == "cuda":
        limit = None if budget is None else int((1 - MARGIN) * (budget - CONTEXT - WORKSPACE))
        gpu = Gpu(Allocator(limit), workspace=WORKSPACE, context=CONTEXT)
    try:
        held = account(
            family.blueprint.events,
            sizes,
            family.blueprint.kinds,
            family.blueprint.marks,
            source=f"estimated for {DEVICES[setup.device]}",
            gpu=gpu,
        )
    except MemoryError:
        return None
    return held if budget is None or held.device <= budget else None


def _what_counts(config: TrainConfig, device: str) -> TrainConfig:
    """The config as far as memory depends on it."""
    implementation = config.implementation
    if implementation == "auto":  # PyTorch's choice; a tensor without memory would mislead it
        implementation = "foreach" if device == "cuda" else "plain"
    return TrainConfig(
        accumulation=min(config.accumulation, 2),  # from the second on, micro-batches are alike
        weight_decay=float(config.weight_decay > 0),
        momentum=float(config.momentum > 0),
        autocast=config.autocast,
        gradient_checkpointing=config.gradient_checkpointing,
        optimizer=config.optimizer,
        implementation=implementation,
        fast=config.fast,
    )


@dataclass(frozen=True)
class _Family:
    """The steps that differ in batch and rank alone.

    The bytes of a storage are in proportion to the batch, to the rank, to both or to neither: the
    dry run at a batch of 2 and rank 2 tells how many, one at 3 each tells which. A batch or a rank
    of 1 is a family of its own: some copies are not made there.
    """

    blueprint: Blueprint
    first: np.ndarray  # bytes, by storage
    by_batch: np.ndarray  # more of them for one row more
    by_rank: np.ndarray
    by_both: np.ndarray
    batch_size: int  # of `first`
    rank: int

    @property
    def first_batch(self) -> list[int]:
        """The storages of a step's first tokens and labels."""
        names = enumerate(self.blueprint.names)
        return [place for place, name in names if name.phase == "batch" and name.which in (0, 1)]

    def sizes(self, batch_size: int, rank: int) -> np.ndarray:
        rows, ranks = batch_size - self.batch_size, rank - self.rank
        return (
            self.first + rows * self.by_batch + ranks * self.by_rank + rows * ranks * self.by_both
        )


@lru_cache(maxsize=64)
def _family(
    model: ModelConfig,
    lora: LoRAConfig | None,
    quantized: bool,
    length: int,
    config: TrainConfig,
    dtype: str,
    device: str,
    one_row: bool,
    rank_one: bool,
    tokens: int,
) -> _Family:
    few = few_layers(model, lora.targets) if lora else few_layers(model)
    here = device if device == "cuda" and torch.cuda.is_available() else "cpu"

    def run(batch_size: int, rank: int, whole: bool = True) -> Log:
        return dry_run(
            few,
            lora and replace(lora, rank=rank),
            batch_size=batch_size,
            length=length,
            config=config,
            dtype=DTYPES[dtype],
            device=here,
            target=device,
            tokens=tokens,
            quantized=quantized,
            whole=whole,
        )

    batch_size, rank = 1 if one_row else 2, 1 if rank_one else 2
    log = run(batch_size, rank)
    blueprint = Blueprint(log, few.num_hidden_layers, model.num_hidden_layers)
    first = blueprint.sizes(log)
    none = np.zeros_like(first)
    by_batch = none if one_row else blueprint.sizes(run(3, rank, whole=False), log) - first
    by_rank = none if rank_one else blueprint.sizes(run(batch_size, 3)) - first
    by_both = np.where((by_batch > 0) & (by_rank > 0), first // 4, 0)
    return _Family(blueprint, first, by_batch, by_rank, by_both, batch_size, rank)
