"""PEFT's adapter_config.json and our LoRAConfig, both ways.

    r = rank        lora_alpha = alpha        target_modules = targets, as PEFT would match them
    rank_pattern, alpha_pattern: the layers that differ, by regular expressions on their paths

PEFT knows many adapters that are not LoRA's y = W x + scale * B A x, and tells them by fields of
this file. A field that this lab cannot honour is refused by name, never skipped. Knows no tensors.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from lorakit.files import read_json
from lorakit.lora import ALL_LINEAR, LoRAConfig, LoRALinear, lora_layers
from lorakit.lora_config import matches

CONFIG = "adapter_config.json"

REQUIRED = ("peft_type", "r", "lora_alpha", "target_modules")
TYPES: dict[str, tuple[type, ...]] = {
    "r": (int,),
    "lora_alpha": (int, float),
    "lora_dropout": (int, float),
    "use_rslora": (bool,),
    "target_modules": (list, str),
    "rank_pattern": (dict, type(None)),
    "alpha_pattern": (dict, type(None)),
}
ALLOWED: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),  # these start from W as is
}
# Fields of any value: they do not change what a trained adapter computes.
NOTES = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision"),
    *("eva_config", "megatron_core", "qalora_group_size", "runtime_config", "task_type"),
}
BY_PATH = "name the layers in target_modules by their full paths instead"
REASONS = {
    "peft_type": "only LORA is read",
    "bias": "biases of the base were trained too",
    "init_lora_weights": "it may have changed the base's own weights",
    "use_dora": "DoRA trains a magnitude beside A and B",
    "modules_to_save": "whole layers were trained beside the adapter",
    "fan_in_fan_out": "its base holds weights as (in, out)",
    "layers_to_transform": BY_PATH,
    "layers_pattern": BY_PATH,
    "exclude_modules": BY_PATH,
}


def config_json(model: nn.Module, config: LoRAConfig, base: str) -> dict[str, Any]:
    """What adapter_config.json says of `model`, which carries adapters of `config`."""
    return {
        "alpha_pattern": dict(sorted(dict(config.alpha_pattern).items())),
        "base_model_name_or_path": base or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": dict(sorted(dict(config.rank_pattern).items())),
        "target_modules": _target_modules(model, config),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": config.use_rslora,
    }


def read_adapter_config(folder: Path | str, model: nn.Module) -> LoRAConfig:
    """The config of the adapter in `folder`; a pattern as targets becomes the paths in `model`.

    Raises ValueError naming the field that is missing, of a wrong value, or not LoRA's.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} is no adapter: it has no {CONFIG}")
    stored = read_json(path)
    _check(stored, path)
    try:
        _check_reach("lora_alpha", stored["lora_alpha"])
        return LoRAConfig(
            rank=stored["r"],
            alpha=stored["lora_alpha"],
            dropout=stored.get("lora_dropout", 0.0),
            use_rslora=stored.get("use_rslora", False),
            targets=_targets(stored["target_modules"], model),
            rank_pattern=_pattern(stored, "rank_pattern", TYPES["r"]),
            alpha_pattern=_pattern(stored, "alpha_pattern", TYPES["lora_alpha"]),
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def exactly(path: str) -> str:
    """The pattern that matches the layer at `path` and no other, here and in PEFT."""
    return f"^{re.escape(path)}"


def named(model: nn.Module, targets: Collection[str]) -> set[str]:
    """The modules of the base that PEFT takes a list of targets to name, linear or not."""
    return {
        name
        for name in _base_modules(model)
        if any(f".{name}".endswith(f".{target}") for target in targets)
    }


def _base_modules(model: nn.Module) -> Mapping[str, nn.Module]:
    """Modules by path, as they stand without adapters."""
    modules = dict(model.named_modules())
    for name, module in list(modules.items()):
        if isinstance(module, LoRALinear):
            modules[name] = modules.pop(f"{name}.base")
    return modules


def _target_modules(model: nn.Module, config: LoRAConfig) -> list[str]:
    """Names by which PEFT finds the adapted layers and no other: short, or else full paths."""
    paths = {name for name, _ in lora_layers(model)}
    if config.targets == ALL_LINEAR:
        short = {path.rpartition(".")[2] for path in paths}
    else:
        short = set(config.targets)
    return sorted(short if named(model, short) == paths else paths)


def _targets(stored: list[str] | str, model: nn.Module) -> tuple[str, ...] | str:
    """A list names modules; a string is "all-linear", or a pattern that a whole path matches."""
    if isinstance(stored, list):
        if odd := [target for target in stored if not isinstance(target, str)]:
            raise ValueError(f"target_modules must be names, got {odd[0]!r} among them")
        return tuple(stored)
    if stored.lower() == ALL_LINEAR:
        return ALL_LINEAR
    linear = [name for name, m in _base_modules(model).items() if isinstance(m, nn.Linear)]
    with _as_pattern("target_modules", stored):
        paths = tuple(name for name in linear if re.fullmatch(stored, name))
    if not paths:
        raise ValueError(f"target_modules={stored!r} matches no linear layer of the model")
    return paths


def _pattern(stored: Mapping[str, Any], field: str, kinds: tuple[type, ...]) -> dict[str, Any]:
    """A rank or an alpha by pattern, in the file's order: the first that matches counts."""
    found = stored.get(field) or {}
    for key, value in found.items():
        with _as_pattern(field, key):
            matches(key, "")
        if type(value) not in kinds:
            raise ValueError(f"{field}[{key!r}] must be {_either(kinds)}, got {value!r}")
        _check_reach(field, value)
    return found


def _check_reach(field: str, value: int | float) -> None:
    """JSON's whole numbers have no end, a float's do."""
    try:
        float(value)
    except OverflowError:
        digits = len(str(value))
        raise ValueError(f"{field} must fit a float, got a number of {digits} digits") from None


@contextmanager
def _as_pattern(field: str, pattern: str) -> Iterator[None]:
    """Within the block `pattern` is taken for a regular expression, which it may not be."""
    try:
        yield
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{field}: {pattern!r} is no pattern: {error}") from error


def _either(kinds: tuple[type, ...]) -> str:
    return " or ".join(kind.__name__ for kind in kinds)


def _check(stored: Any, path: Path) -> None:
    """Every field that decides the result is there, and none asks for what is not LoRA's."""
    if not isinstance(stored, dict):
        raise ValueError(f"{path} holds no fields, but {stored!r}")
    for field in REQUIRED:
        if stored.get(field) is None:
            raise ValueError(f"{path} lacks {field}: without it the result would be a guess")
    for field, value in sorted(stored.items()):
        if field in TYPES:
            if type(value) not in TYPES[field]:
                kinds = _either(TYPES[field])
                raise ValueError(f"{path}: {field} must be {kinds}, got {value!r}")
        elif field in ALLOWED:
            if value not in ALLOWED[field]:
                raise ValueError(f"{path}: {field}={value!r} is not read: {REASONS[field]}")
        # Empty values switch nothing on. 0 is not empty: layers_to_transform=0 is the first layer.
        elif field not in NOTES and value is not False and value not in (None, "", [], {}):
            reason = REASONS.get(field, "this lab does not know what it would change")
            raise ValueError(f"{path}: {field}={value!r} is not read: {reason}")
