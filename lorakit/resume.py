"""A run in progress as a folder: stop it today, take it up tomorrow, get the same bits (where steps
are recorded on a GPU: the same up to rounding).

    trainable.safetensors    what trains          optimizer.safetensors    its AdamW state
    run.json                 config, history and so the position, the data's fingerprint

Dropout's random numbers follow from seed and step (`train.py`), so the position is all their state.
The frozen base is not in it: load it as before.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lorakit.files import read_json, replacing, settle, write_json
from lorakit.history import History
from lorakit.train import Training

# How numbers are computed may change on the way, what they are may not.
_COMPUTING = {"fast", "capture", "compile"}
_TENSORS = ("trainable.safetensors", "optimizer.safetensors")


def save_checkpoint(training: Training, folder: Path | str) -> None:
    """Write everything that decides the rest of the run; an earlier checkpoint there gives way."""
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "run.json").exists():
        raise ValueError(f"{folder} holds something else than a checkpoint: name another folder")
    state = training.optimizer.state
    weights = {name: p.detach().contiguous() for name, p in training.parameters.items()}
    moments = {
        f"{key}/{name}": value.contiguous()
        for name, p in training.parameters.items()
        for key, value in state.get(p, {}).items()
    }
    with replacing(folder) as fresh:
        fresh.mkdir()
        for file, tensors in zip(_TENSORS, (weights, moments), strict=True):
            save_file(tensors, fresh / file)
        write_json(
            fresh / "run.json",
            {
                "config": asdict(training.config),
                "batches": training.batches.fingerprint,
                "silent": sorted(training.silent),
                "history": training.history.to_json(),
            },
        )


def load_checkpoint(training: Training, folder: Path | str) -> None:
    """Bring a fresh `training` to where the saved one stood.

    Raises ValueError, nothing changed, for another data set, another config, or a model of which
    other tensors train.
    """
    folder = Path(folder)
    settle(folder)
    if not (folder / "run.json").exists():
        raise ValueError(f"{folder} is no checkpoint: it has no run.json")
    saved = read_json(folder / "run.json")
    if saved["batches"] != training.batches.fingerprint:
        raise ValueError(
            f"{folder} was trained on other data (examples, order or batch size): resume with the "
            "same, or start a new run"
        )
    now = asdict(training.config)
    for name in now.keys() - _COMPUTING:
        if saved["config"].get(name) != now[name]:
            raise ValueError(
                f"{folder} was trained with {name}={saved['config'].get(name)}, not {now[name]}: "
                "resume with the same, or start a new run"
            )
    weights, moments = (load_file(folder / file) for file in _TENSORS)
    shapes = {name: tuple(p.shape) for name, p in training.parameters.items()}
    for name in sorted(shapes.keys() | weights.keys()):
        found = tuple(weights[name].shape) if name in weights else None
        if found != shapes.get(name):
            raise ValueError(
                f"{folder} does not fit this model: "
                f"{name} is {found} there, {shapes.get(name)} here"
            )
    with torch.no_grad():
        for name, p in training.parameters.items():
            p.copy_(weights[name])
    for path, value in moments.items():
        key, _, name = path.partition("/")
        p = training.parameters[name]
        # AdamW keeps its step count on the CPU, its moments beside the parameter.
        training.optimizer.state[p][key] = value if value.ndim == 0 else value.to(p.device)
    training.history = History.from_json(saved["history"])
    training.silent = set(saved["silent"])
