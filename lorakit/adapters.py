"""Adapter files in PEFT's format: what we write PEFT reads, what PEFT wrote we read.

    adapter_model.safetensors    base_model.model.PATH.lora_A.weight    (rank, in)
                                 base_model.model.PATH.lora_B.weight    (out, rank)
    adapter_config.json          rank, alpha, targets: see adapter_config.py
    base_fingerprint.json        ours alone: which base the adapter was trained on

The tensors are unscaled, so a config that lost its alpha is another adapter. A loader that skips
what does not fit leaves a model that answers, only worse; this one names it and stops.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lorakit.adapter_config import CONFIG, config_json, named, read_adapter_config
from lorakit.counts import at_rank_1, skeleton
from lorakit.files import read_json, replacing, settle, write_json
from lorakit.lora import ALL_LINEAR, LoRAConfig, LoRALinear, inject, lora_layers, target_layers
from lorakit.model import ModelConfig

WEIGHTS = "adapter_model.safetensors"
BASE = "base_fingerprint.json"
PREFIX = "base_model.model."
METADATA = {"format": "pt"}


def save_adapter(
    model: nn.Module, folder: Path | str, *, base: str = "", allow_zero: bool = False
) -> Path:
    """Write the model's adapters, in float32, and return the folder; an earlier one gives way.

    `base` names the base model, for the reader. Raises ValueError, nothing written, if there are no
    adapters, or they are merged, of several configs, not finite, or all zero (`allow_zero` lets
    these pass), or if `folder` holds anything but an adapter.
    """
    folder = Path(folder).resolve()
    layers = dict(lora_layers(model))
    config = _config_of(layers, "save")
    tensors = {key: p.detach().float().cpu().contiguous() for key, p in _keyed(layers).items()}
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{key} is not finite: load an earlier adapter, or train again")
    if not allow_zero and not any(layer.B.any() for layer in layers.values()):
        raise ValueError(
            "every B is zero, so nothing was learnt and the adapter would change nothing: train "
            "first, or pass allow_zero=True"
        )
    present = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if present and not {CONFIG, WEIGHTS} <= present <= {CONFIG, WEIGHTS, BASE}:
        other = ", ".join(sorted(present - {CONFIG, WEIGHTS, BASE}))
        other = other or f"{CONFIG} or {WEIGHTS} is missing"
        raise ValueError(f"{folder} is not an earlier adapter ({other}): name another folder")
    trained_on = base_fingerprint({name: layer.base for name, layer in layers.items()})
    with replacing(folder) as fresh:
        fresh.mkdir()
        save_file(tensors, fresh / WEIGHTS, metadata=METADATA)
        write_json(fresh / CONFIG, config_json(model, config, base))
        write_json(fresh / BASE, {"base_fingerprint": trained_on})
    return folder


def load_adapter(
    model: nn.Module, folder: Path | str, *, allow_other_base: bool = False
) -> LoRAConfig:
    """Give `model` the adapters in `folder`, ready to train, and return their config.

    Adapters that the model has already, of the same config, take over the values. Raises
    ValueError, the model untouched, naming the field or the tensor that is missing, too many, of
    another shape, not finite or not LoRA's; or if the file was trained on another base
    (`allow_other_base` lets this pass; files that PEFT wrote do not tell).
    """
    folder = Path(folder).resolve()
    settle(folder)
    config = read_adapter_config(folder, model)
    tensors = _read_tensors(folder)
    layers = _layers(model, config)
    _check_tensors(tensors, layers, config.rank, folder / WEIGHTS)
    if not allow_other_base and (folder / BASE).is_file():
        trained_on = read_json(folder / BASE)["base_fingerprint"]
        if trained_on != (here := base_fingerprint(layers)):
            raise ValueError(
                f"{folder} was trained on another base (fingerprint {trained_on[:8]}, this model's "
                f"is {here[:8]}): load that base, or in Python pass allow_other_base=True"
            )
    if not lora_layers(model):
        inject(model, config)
    adapted = dict(lora_layers(model))
    with torch.no_grad():
        for key, parameter in _keyed(adapted).items():
            parameter.copy_(tensors[key])
    return _config_of(adapted, "load")


@lru_cache(maxsize=4096)
def adapter_bytes(model: ModelConfig, lora: LoRAConfig) -> int:
    """The size of the adapter_model.safetensors that `save_adapter` would write, to the byte.

    Such a file is 8 bytes, a JSON header padded to a multiple of 8, then the values; the header is
    built here from the shapes of the real modules. github.com/huggingface/safetensors, "Format".
    """
    header: dict[str, Any] = {"__metadata__": METADATA}
    end = 0
    for key, shape in _shapes(model, at_rank_1(lora)):
        shape = [lora.rank, shape[1]] if ".lora_A" in key else [shape[0], lora.rank]
        start, end = end, end + 4 * math.prod(shape)
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"))
    return 8 + len(text) + -len(text) % 8 + end


@lru_cache(maxsize=64)
def _shapes(model: ModelConfig, lora: LoRAConfig) -> list[tuple[str, list[int]]]:
    """Each tensor's key in the file and its shape, sorted by key."""
    tensors = _keyed(dict(lora_layers(skeleton(model, lora))))
    return [(key, [*tensor.shape]) for key, tensor in sorted(tensors.items())]


def base_fingerprint(layers: Mapping[str, nn.Linear]) -> str:
    """A hash of each layer's name, shape and about 64 of its weights, rounded to bfloat16.

    Rounded, so that one base in float32 here and in bfloat16 there is the same. A sample shows that
    two bases differ, never that they do not; layers without an adapter are not looked at.
    """
    digest = hashlib.sha256()
    for name, layer in layers.items():
        values = layer.weight.detach().flatten()
        sample = values[:: max(1, len(values) // 64)].bfloat16().cpu()
        digest.update(f"{name} {tuple(layer.weight.shape)}".encode())
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _key(name: str, part: str) -> str:
    return f"{PREFIX}{name}.lora_{part}.weight"


def _keyed(layers: Mapping[str, LoRALinear]) -> dict[str, nn.Parameter]:
    """A and B of every layer, under PEFT's keys."""
    return {
        _key(name, part): parameter
        for name, layer in layers.items()
        for part, parameter in (("A", layer.A), ("B", layer.B))
    }


def _config_of(layers: Mapping[str, LoRALinear], verb: str) -> LoRAConfig:
    """The one config of adapters that are there and not merged."""
    if not layers:
        raise ValueError(f"nothing to {verb}: no adapters, inject(model, config) adds them")
    if merged := [name for name, layer in layers.items() if layer.merged]:
        raise ValueError(
            f"cannot {verb}: {len(merged)} layers are merged (first: {merged[0]}), and deltas "
            "would count twice; unmerge(model) takes them out again"
        )
    config, *others = dict.fromkeys(layer.config for layer in layers.values())
    if others:
        raise ValueError(f"cannot {verb}: the layers' adapters differ, {config} and {others[0]}")
    return config


def _layers(model: nn.Module, config: LoRAConfig) -> dict[str, nn.Linear]:
    """The base's layers that an adapter of `config` belongs to, whether they have one or not."""
    present = dict(lora_layers(model))
    if not present:
        return target_layers(model, config.targets)
    own = _config_of(present, "load")
    # One set of layers has many names: "all-linear" is stored as a list.
    same_layers = own.targets == config.targets or (
        config.targets != ALL_LINEAR and named(model, config.targets) == present.keys()
    )
    if not same_layers or replace(config, targets=own.targets) != own:
        raise ValueError(
            f"model already has {len(present)} adapters of {own}, the file's are {config}: "
            "merge_and_unload(model) folds them in, remove(model) takes them off"
        )
    return {name: layer.base for name, layer in present.items()}


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor, in float32."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = folder / "adapter_model.bin"
        raise ValueError(
            f"{folder} has only {pickled.name}, a pickle, which can run any code when opened: load "
            "it with PEFT once and save_pretrained it"
            if pickled.exists()
            else f"{folder} is no whole adapter: it has no {WEIGHTS}"
        )
    try:
        return {key: tensor.float() for key, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _check_tensors(
    tensors: Mapping[str, Tensor], layers: Mapping[str, nn.Linear], rank: int, path: Path
) -> None:
    """The tensors are those that `layers` need, no more and no fewer, each of its shape, finite."""
    shapes = {}
    for name, layer in layers.items():
        shapes[_key(name, "A")] = (rank, layer.in_features)
        shapes[_key(name, "B")] = (layer.out_features, rank)
    if extra := sorted(tensors.keys() - shapes.keys()):
        raise ValueError(f"{path} holds {extra[0]}: {_reason(extra[0])}")
    for key, shape in shapes.items():
        if key not in tensors:
            raise ValueError(f"{path} lacks {key}, which the config's target_modules ask for")
        if (found := tuple(tensors[key].shape)) != shape:
            raise ValueError(f"{path}: {key} is {found}, this model and r={rank} need {shape}")
        if not tensors[key].isfinite().all():
            raise ValueError(f"{path}: {key} is not finite; load an earlier adapter")


def _reason(key: str) -> str:
    """Why a tensor has no place."""
    if not key.startswith(PREFIX):
        return f"PEFT's keys begin with {PREFIX!r}; save it with PEFT's save_pretrained"
    if "lora_magnitude_vector" in key:
        return "DoRA's magnitudes are not supported by this lab"
    if "lora_embedding" in key:
        return "adapters on embeddings are not supported by this lab"
    return "no layer of this model that target_modules name has such a tensor"
