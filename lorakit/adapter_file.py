"""What adapter_model.safetensors is made of, byte by byte: its header, every A, every B.

    8 bytes: the header's length        header: JSON, padded to a multiple of 8        the values
    base_model.model.PATH.lora_A.weight    (rank, in)
    base_model.model.PATH.lora_B.weight    (out, rank)

The header also tells of the base, as metadata, which other readers pass over: the fingerprint of
its file, and if it was in 4 bits, in which form. github.com/huggingface/safetensors, "Format".
Knows how to write such a file and what is in one; whether that fits a model is adapters.py's to
know.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lorakit.adapter_config import CONFIG
from lorakit.counts import at_rank_1, skeleton
from lorakit.files import read_json
from lorakit.lora import LoRAConfig, LoRALinear, lora_layers
from lorakit.model import ModelConfig

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
FINGERPRINT, QUANTIZED = "base_fingerprint", "base_quantized"  # metadata
FACTOR = re.compile(rf"{re.escape(PREFIX)}(.+)\.lora_([AB])\.weight")
# PEFT's save_embedding_layers writes both, twice the same values where head and embedding are tied.
EMBEDDINGS = ("model.embed_tokens", "lm_head")
TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # of an adapter
DTYPES = {name: dtype.itemsize for name, dtype in TYPES.items()}  # and their bytes


@dataclass(frozen=True, kw_only=True)
class AdapterFile:
    """The bytes of an adapter's file by what they hold; A and B by the name of their module."""

    header: int
    A: Mapping[str, int]
    B: Mapping[str, int]
    beside: Mapping[str, int]  # what is neither, embeddings for one: by module

    @property
    def total(self) -> int:
        return self.header + sum(sum(part.values()) for part in (self.A, self.B, self.beside))


@lru_cache(maxsize=4096)
def adapter_file(
    model: ModelConfig, lora: LoRAConfig, *, embeddings: bool = False, quantized: str | None = None
) -> AdapterFile:
    """What `save_adapter` would write for a base that was read from a file, from shapes alone.

    `quantized` is the form of a base in 4 bits, as "nf4/64/double". With `embeddings`, as PEFT
    would with save_embedding_layers over a base in float32.
    """
    shapes = _shapes(model, lora)
    if embeddings:
        net = skeleton(model)
        for name in EMBEDDINGS:
            key = f"{name}.weight"
            shapes = shapes | {f"{PREFIX}{key}": tuple(net.get_parameter(key).shape)}
    sizes = {key: DTYPES["F32"] * math.prod(shape) for key, shape in shapes.items()}
    return _parts(len(_header(sorted(shapes.items()), about_base("0" * 16, quantized))), sizes)


def adapter_bytes(model: ModelConfig, lora: LoRAConfig, quantized: str | None = None) -> int:
    """The size of the file that `save_adapter` would write, to the byte; as `adapter_file`."""
    return adapter_file(model, lora, quantized=quantized).total


def about_base(fingerprint: str | None, quantized: str | None) -> dict[str, str]:
    """The metadata that tell of a base: what is None they leave out."""
    told = {FINGERPRINT: fingerprint, QUANTIZED: quantized}
    return {key: value for key, value in told.items() if value is not None}


def write_adapter_file(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write float32 tensors on the CPU, and metadata; the same ones make the same bytes.

    Two entries of metadata are more than safetensors' own save_file keeps in one order.
    """
    pairs = sorted(tensors.items())
    with path.open("wb") as file:
        file.write(_header([(key, tensor.shape) for key, tensor in pairs], about))
        for _, tensor in pairs:
            file.write(tensor.numpy().tobytes())


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file as safetensors opens it. Raises ValueError naming it if it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def listing(file: Any, path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    """Key, shape and type of every tensor. Raises ValueError for a type that no adapter has."""
    keys = file.keys()
    slices = [(key, file.get_slice(key)) for key in sorted(keys)]
    found = [(key, tuple(one.get_shape()), one.get_dtype()) for key, one in slices]
    for key, _, dtype in found:
        if dtype not in DTYPES:
            raise ValueError(f"{path}: {key} is {dtype}, an adapter's are {', '.join(DTYPES)}")
    return found


def read_values(path: Path) -> dict[str, Tensor]:
    """Every tensor by its key, in memory of its own; of a file that `opened` has let pass.

    safetensors' own are mapped: written over, the file would change them, cut short, end Python.
    """
    values = {}
    with path.open("rb") as file:
        fields = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        fields.pop("__metadata__", None)
        # No byte lies between two tensors: safetensors refuses such a file.
        for key, field in sorted(fields.items(), key=lambda pair: pair[1]["data_offsets"]):
            values[key] = torch.empty(field["shape"], dtype=TYPES[field["dtype"]])
            file.readinto(values[key].view(torch.uint8).numpy())  # type: ignore[arg-type]
    return values


def reason(extra: list[str], found: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    """Why the first of these tensors has no place in a model; `found` has their shapes, types."""
    key = extra[0]
    if not key.startswith(PREFIX):
        return f"PEFT's keys begin with {PREFIX!r}; save it with PEFT's save_pretrained"
    if "lora_magnitude_vector" in key:
        return "DoRA's magnitudes are not supported by this lab"
    if "lora_embedding" in key:
        return "adapters on embeddings are not supported by this lab"
    whole = {f"{PREFIX}{name}.weight" for name in EMBEDDINGS}
    if key in whole:
        sizes = [math.prod(found[name][0]) * DTYPES[found[name][1]] for name in whole & {*extra}]
        return (
            f"the base's own embedding or head, {sum(sizes):,} bytes in all, which an adapter on "
            "linear layers does not change; save it in PEFT with save_embedding_layers=False"
        )
    return "no layer of this model that target_modules name has such a tensor"


def base_in_words(folder: Path) -> str:
    """Which base an adapter's config names, as the end of a sentence; nothing if it names none."""
    base = read_json(folder / CONFIG).get("base_model_name_or_path")
    return f"; it was trained over {base!r}: load that base" if base else ""


def keys(name: str) -> tuple[str, str]:
    """PEFT's keys of a layer's A and B."""
    return f"{PREFIX}{name}.lora_A.weight", f"{PREFIX}{name}.lora_B.weight"


def keyed(layers: Mapping[str, LoRALinear]) -> dict[str, Tensor]:
    """A and B of every layer, under PEFT's keys."""
    return {
        key: factor
        for name, layer in layers.items()
        for key, factor in zip(keys(name), (layer.A, layer.B), strict=True)
    }


def _shapes(model: ModelConfig, lora: LoRAConfig) -> dict[str, tuple[int, ...]]:
    """Each tensor's shape by its key."""
    if lora.rank_pattern:
        return _real_shapes(model, lora)
    # Without patterns one rank is every layer's: a slider over ranks builds no model.
    return {
        key: (lora.rank, wide) if ".lora_A." in key else (out, lora.rank)
        for key, (out, wide) in _real_shapes(model, at_rank_1(lora)).items()
    }


@lru_cache(maxsize=64)
def _real_shapes(model: ModelConfig, lora: LoRAConfig) -> dict[str, tuple[int, ...]]:
    layers = dict(lora_layers(skeleton(model, lora)))
    return {key: tuple(tensor.shape) for key, tensor in keyed(layers).items()}


def _header(shapes: Iterable[tuple[str, Sequence[int]]], about: Mapping[str, str]) -> bytes:
    fields: dict[str, Any] = {"__metadata__": {**about, "format": "pt"}}
    end = 0
    for key, shape in shapes:
        start, end = end, end + DTYPES["F32"] * math.prod(shape)
        fields[key] = {"dtype": "F32", "shape": [*shape], "data_offsets": [start, end]}
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _parts(header: int, sizes: Mapping[str, int]) -> AdapterFile:
    parts: dict[str, Counter[str]] = {"A": Counter(), "B": Counter(), "beside": Counter()}
    for key, size in sizes.items():
        factor = FACTOR.fullmatch(key)
        path, part = factor.groups() if factor else (key.removesuffix(".weight"), "beside")
        parts[part][path.rpartition(".")[2]] += size
    return AdapterFile(header=header, **{name: dict(part) for name, part in parts.items()})
