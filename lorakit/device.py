"""Where the lab computes: on a GPU if there is one, else the CPU, or as LORAKIT_DEVICE says."""

import os
import platform

import torch

VARIABLE = "LORAKIT_DEVICE"


def pick_device(name: str | None = None) -> torch.device:
    """`name`, else the variable LORAKIT_DEVICE, else cuda, mps or cpu, the first there is.

    Raises ValueError for a device that this machine or this PyTorch does not have.
    """
    name = name or os.environ.get(VARIABLE)
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if not name:
        name = next(kind for kind, available in there.items() if available)
    kind = name.partition(":")[0]
    if not there.get(kind, False):
        options = ", ".join(kind for kind, available in there.items() if available)
        raise ValueError(f"device {name!r} is not available: here there is {options}")
    return torch.device(name)


def describe(device: torch.device) -> str:
    """The device in words, to stand next to every measured number."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads != 1 else ''}"
