"""Adapter files in PEFT's format: what we write PEFT reads, what PEFT wrote we read.

    adapter_model.safetensors    the values, and of which base's file: see adapter_file.py
    adapter_config.json          rank, alpha, targets: see adapter_config.py

The tensors are unscaled, so a config that lost its alpha is another adapter. A loader that skips
what does not fit leaves a model that answers, only worse; this one names it and stops.
"""

import os
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lorakit.adapter_config import CONFIG, config_json, exactly, named, read_adapter_config
from lorakit.adapter_file import (
    FINGERPRINT,
    QUANTIZED,
    WEIGHTS,
    about_base,
    base_in_words,
    keyed,
    keys,
    listing,
    opened,
    read_values,
    reason,
    write_adapter_file,
)
from lorakit.files import replacing, settle, write_json
from lorakit.fingerprint import OtherPrecision, UnknownBase, fingerprint_of
from lorakit.lora import ALL_LINEAR, LoRAConfig, LoRALinear, adapt, lora_layers, target_layers
from lorakit.merging import is_finite
from lorakit.qlora import quantized_form

EARLIER = "base_fingerprint.json"  # what older versions wrote besides; it may be written over


def save_adapter(
    model: nn.Module, folder: Path | str, *, base: str = "", allow_zero: bool = False
) -> Path:
    """Write the model's adapters, in float32, and return the folder; an earlier one gives way.

    `base` names the base model, for the reader; the fingerprint of its file goes along, if there
    is one, and the form of its 4 bits. Raises ValueError, nothing written, if there are no
    adapters, or they are merged, differ in more than rank and alpha, are not finite, or all zero
    (`allow_zero` lets these pass), or if `folder` holds anything but an adapter.
    """
    folder = Path(folder).resolve()
    layers = dict(lora_layers(model))
    config = _config_of(layers, "save")
    tensors = {key: p.detach().float().cpu().contiguous() for key, p in keyed(layers).items()}
    for key, tensor in tensors.items():
        if not is_finite(tensor):
            raise ValueError(f"{key} is not finite: load an earlier adapter, or train again")
    if not allow_zero and not any(layer.B.any() for layer in layers.values()):
        raise ValueError(
            "every B is zero, so nothing was learnt and the adapter would change nothing: train "
            "first, or pass allow_zero=True"
        )
    present = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if present and not {CONFIG, WEIGHTS} <= present <= {CONFIG, WEIGHTS, EARLIER}:
        other = ", ".join(sorted(present - {CONFIG, WEIGHTS, EARLIER}))
        other = other or f"{CONFIG} or {WEIGHTS} is missing"
        raise ValueError(f"{folder} is not an earlier adapter ({other}): name another folder")
    with replacing(folder) as fresh:
        fresh.mkdir()
        write_adapter_file(
            fresh / WEIGHTS, tensors, about_base(fingerprint_of(model), quantized_form(model))
        )
        write_json(fresh / CONFIG, config_json(model, config, base))
    return folder


def load_adapter(
    model: nn.Module, folder: Path | str, *, allow_other_base: bool = False
) -> LoRAConfig:
    """Give `model` the adapters in `folder`, ready to train, and return their config.

    Adapters that the model has already, of the same config, take over the values. Raises
    ValueError, the model untouched, naming the field or the tensor that is missing, too many, of
    another shape or type, not finite or not LoRA's; or if it was trained on another base's file.
    Warns with `UnknownBase` if adapter or model does not tell, with `OtherPrecision` if it was
    trained over 4 bits that this base is not in. `allow_other_base` lets all of this pass.
    """
    folder = Path(folder).resolve()
    settle(folder)
    for name in (CONFIG, WEIGHTS):
        _check_stays(folder, name)
    config = read_adapter_config(folder, model)
    carried = dict(lora_layers(model))
    layers = _layers(model, carried, config)
    tensors, told = _read_tensors(folder, _shapes(layers, config))
    if not allow_other_base:
        _check_base(folder, told.get(FINGERPRINT), fingerprint_of(model))
        _check_precision(folder, told.get(QUANTIZED), quantized_form(model))
    if not carried:
        factors = {name: (tensors[A], tensors[B]) for name in layers for A, B in [keys(name)]}
        adapt(model, layers, config, factors=factors)
        return config
    with torch.no_grad():
        for key, parameter in keyed(carried).items():
            parameter.copy_(tensors[key])
    return _config_of(carried, "load")


def _check_stays(folder: Path, name: str) -> None:
    """A folder from elsewhere may hold a link to any file of this machine."""
    path = os.path.realpath(folder / name)
    if not Path(path).is_relative_to(folder):
        raise ValueError(f"{folder / name} leads out of its folder, to {path}: copy the file there")


def _check_base(folder: Path, trained_on: str | None, here: str | None) -> None:
    """Silence means that adapter and model name the same file."""
    if trained_on is None or here is None:
        # Also where neither tells: two bases trained in full on different data are such a pair.
        silent = (
            "this model does not tell its own" if trained_on else "the adapter does not tell it"
        )
        warnings.warn(
            f"{folder}: nobody can tell whether it was trained on this base: {silent}",
            UnknownBase,
            stacklevel=3,
        )
    elif trained_on != here:
        raise ValueError(
            f"{folder} was trained on another base (fingerprint {trained_on}, this model's is "
            f"{here}): load that base, or in Python pass allow_other_base=True"
        )


def _check_precision(folder: Path, trained_over: str | None, here: str | None) -> None:
    """An adapter over 4 bits learns to make up for their rounding, too."""
    if trained_over is not None and trained_over != here:
        weights = "the plain weights" if here is None else f"these ({here})"
        warnings.warn(
            f"{folder} was trained over a base in 4 bits ({trained_over}): over {weights} it may "
            "answer otherwise; in Python quantize_(model) of that form, before the adapter, gives "
            "the base it knows, or judge the answers",
            OtherPrecision,
            stacklevel=3,
        )


def _config_of(layers: Mapping[str, LoRALinear], verb: str) -> LoRAConfig:
    """The one config of adapters that are there and not merged.

    The most common rank and alpha are its own, the others stand in its patterns.
    """
    if not layers:
        raise ValueError(f"nothing to {verb}: no adapters, inject(model, config) adds them")
    if merged := [name for name, layer in layers.items() if layer.merged]:
        raise ValueError(
            f"cannot {verb}: {len(merged)} layers are merged (first: {merged[0]}), and deltas "
            "would count twice; unmerge(model) takes them out again"
        )
    config, *others = dict.fromkeys(
        replace(layer.config, rank=1, alpha=1.0) for layer in layers.values()
    )
    if others:
        raise ValueError(
            f"cannot {verb}: beside rank and alpha the layers' adapters differ, {config} and "
            f"{others[0]}"
        )
    ranks = {name: layer.config.rank for name, layer in layers.items()}
    alphas = {name: layer.config.alpha for name, layer in layers.items()}
    [(rank, _)] = Counter(ranks.values()).most_common(1)
    [(alpha, _)] = Counter(alphas.values()).most_common(1)
    return replace(
        config,
        rank=rank,
        alpha=alpha,
        rank_pattern={exactly(name): own for name, own in ranks.items() if own != rank},
        alpha_pattern={exactly(name): own for name, own in alphas.items() if own != alpha},
    )


def _layers(
    model: nn.Module, present: Mapping[str, LoRALinear], config: LoRAConfig
) -> dict[str, nn.Linear]:
    """The base's layers that an adapter of `config` belongs to, whether they have one or not."""
    if not present:
        return target_layers(model, config.targets)
    own = _config_of(present, "load")
    # One set of layers has many names: "all-linear" is stored as a list.
    same_layers = own.targets == config.targets or (
        config.targets != ALL_LINEAR and named(model, config.targets) == present.keys()
    )
    if not same_layers or any(
        replace(config.at(name), targets=own.targets) != layer.config
        for name, layer in present.items()
    ):
        raise ValueError(
            f"model already has {len(present)} adapters of {own}, the file's are {config}: "
            "merge_and_unload(model) folds them in, remove(model) takes them off"
        )
    return {name: layer.base for name, layer in present.items()}


def _shapes(layers: Mapping[str, nn.Linear], config: LoRAConfig) -> dict[str, tuple[int, int]]:
    """What the file has to hold, by key."""
    shapes = {}
    for name, layer in layers.items():
        rank = config.at(name).rank
        A, B = keys(name)
        shapes[A], shapes[B] = (rank, layer.in_features), (layer.out_features, rank)
    return shapes


def _read_tensors(
    folder: Path, shapes: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of these shapes, no more and no fewer, in float32, and the file's metadata."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = folder / "adapter_model.bin"
        raise ValueError(
            f"{folder} has only {pickled.name}, a pickle, which can run any code when opened: load "
            "it with PEFT once and save_pretrained it"
            if pickled.exists()
            else f"{folder} is no whole adapter: it has no {WEIGHTS}"
        )
    with opened(path) as file:
        found = {key: (shape, dtype) for key, shape, dtype in listing(file, path)}
        if extra := sorted(found.keys() - shapes.keys()):
            raise ValueError(f"{path} holds {extra[0]}: {reason(extra, found)}")
        for key, shape in shapes.items():
            if key not in found:
                raise ValueError(f"{path} lacks {key}, which the config's target_modules ask for")
            if found[key][0] != shape:
                rank = shape[0 if ".lora_A." in key else 1]
                raise ValueError(
                    f"{path}: {key} is {found[key][0]}, this model and r={rank} need {shape}"
                    + base_in_words(folder)
                )
        told = file.metadata() or {}
    values = read_values(path)
    tensors = {key: values[key].float() for key in shapes}
    for key, tensor in tensors.items():
        if not is_finite(tensor):
            raise ValueError(f"{path}: {key} is not finite; load an earlier adapter")
    return tensors, told
