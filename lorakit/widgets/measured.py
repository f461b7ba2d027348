"""Real steps of models with random weights: what estimates are held against."""

from functools import lru_cache

import psutil
import torch

from lorakit.lora import inject
from lorakit.memory import DTYPES, Setup, StepMemory, measure
from lorakit.model import Llama
from lorakit.qlora import quantize_
from lorakit.text import Batches, Encoded


@lru_cache(maxsize=512)
def measured(setup: Setup, device: torch.device) -> StepMemory:
    """What a step of `setup` holds on `device`, found out once; every row is full of tokens."""
    # A slider draws nothing from the random numbers of the cells beside it.
    with torch.random.fork_rng([device] if device.type == "cuda" else []), device:
        net = Llama(setup.model).to(DTYPES[setup.dtype])
        if setup.quantized:
            quantize_(net)
        if setup.lora is not None:
            inject(net, setup.lora)
    example = Encoded(tokens=(0,) * setup.length, prompt=1)
    batches = Batches(examples=(example,), batch_size=setup.batch_size, pad_id=0)
    return measure(net, batches, setup.config)


def free_bytes(device: torch.device) -> int:
    """What this machine could still give to a step there."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available
