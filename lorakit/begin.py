"""A run before its first step: its base, what of it trains, its batches."""

import torch

from lorakit.checkpoint import load_base
from lorakit.device import pick_device
from lorakit.lora import inject, unfreeze
from lorakit.model import Llama
from lorakit.run import Run
from lorakit.tasks import load_task
from lorakit.text import encode_batches
from lorakit.train import Training


def make_trainable(model: Llama, run: Run) -> None:
    """Let train what the run's method trains: every weight, or fresh adapters drawn by its seed."""
    if run.lora is None:
        unfreeze(model)
    else:
        generator = torch.Generator(model.lm_head.weight.device).manual_seed(run.seed)
        inject(model, run.lora, generator=generator)


def begin(run: Run) -> Training:
    """The run's training on a fresh copy of its base, before the first step."""
    device = pick_device()
    model, tokenizer = load_base(run.base, dtype=run.dtype(device.type), device=device)
    make_trainable(model, run)
    examples = run.drawn(load_task(run.task, run.sample).train)
    batches = encode_batches(tokenizer, examples, batch_size=run.batch_size, seed=run.seed)
    return Training(model, batches, run.train_config(device.type))
