"""A run before its first step: its base, what of it trains, its batches."""

import torch

from lorakit.checkpoint import Progress, load_base, silent
from lorakit.device import pick_device
from lorakit.lora import inject, unfreeze
from lorakit.model import Llama
from lorakit.qlora import quantize_
from lorakit.run import Run
from lorakit.tasks import load_task
from lorakit.text import Tokenizer, encode_batches
from lorakit.train import Training


def base_of(run: Run, device: torch.device, progress: Progress = silent) -> tuple[Llama, Tokenizer]:
    """The base that the run trains, or trains over, and its tokenizer; quantised if it asks so.

    Raises as `load_base` does.
    """
    dtype = run.dtype(device.type)
    if not run.quantized:
        return load_base(run.base, dtype=dtype, device=device, progress=progress)
    # Before it comes to the device, which need not have room for the plain weights; and from
    # float32 everywhere, so that the 4 bits are the same everywhere.
    model, tokenizer = load_base(run.base, progress=progress)
    progress("putting the base in 4 bits")
    quantize_(model)
    return model.to(device=device, dtype=dtype), tokenizer


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
    model, tokenizer = base_of(run, device)
    make_trainable(model, run)
    examples = run.drawn(load_task(run.task, run.sample).train)
    batches = encode_batches(tokenizer, examples, batch_size=run.batch_size, seed=run.seed)
    return Training(model, batches, run.train_config(device.type))
