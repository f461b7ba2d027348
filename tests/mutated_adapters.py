"""Adapter files that something happened to: each is refused with ValueError, or loaded right.

What "right" is comes from a reading of the files that shares no code with the lab: the bytes by
safetensors' own description of its format, ranks, alphas and targets by PEFT's functions.
"""

import copy
import json
import math
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import peft
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from torch import nn

from lorakit.adapters import load_adapter, save_adapter
from lorakit.fingerprint import UnknownBase
from lorakit.lora import LoRAConfig, LoRALinear, inject, lora_layers

CONFIG = LoRAConfig(
    rank=2,
    alpha=6.0,
    targets=("q_proj", "up_proj"),
    rank_pattern={r"1\.mlp\.up_proj": 3},
    alpha_pattern={r"0\.self_attn\.q_proj": 2.0},
)
WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
MODERATE = 1e4  # entries of a delta up to here: beyond, a file may well ask for answers without end

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.sampled_from([10**9, 10**400, 2**63, "LORA", "q_proj", ".*up_proj", "all-linear", "("])
    | st.floats()
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=3,
)
FIELDS = st.sampled_from(
    [
        *("r", "lora_alpha", "target_modules", "use_rslora", "lora_dropout", "peft_type", "bias"),
        *("rank_pattern", "alpha_pattern", "use_dora", "modules_to_save", "layers_to_transform"),
        *("fan_in_fan_out", "init_lora_weights", "base_model_name_or_path", "of_tomorrow"),
    ]
)
# Values that a field may well have, so that not all that is drawn is nonsense.
SENSE = {
    "r": st.sampled_from([1, 2, 3, 4]),
    "lora_alpha": st.sampled_from([1, 2.0, 6, 0.25]),
    "use_rslora": st.booleans(),
    "target_modules": st.sampled_from(
        [["q_proj"], ["up_proj", "q_proj"], r".*\.(q|up)_proj", ["0.mlp.up_proj"], "all-linear"]
    ),
    "rank_pattern": st.sampled_from([{}, {".*": 2}, {"up_proj": 3}, {"q_proj": 2, "up_proj": 2}]),
    "alpha_pattern": st.sampled_from([{}, {".*": 2}, {r"mlp\..*": 3.5, "q_proj": 1}]),
}
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.int64, torch.int32, torch.uint8, torch.bool),
]


def damage_bytes(draw, folder: Path) -> str:
    """Flip, cut or insert, in either file; every other flip among the values."""
    path = folder / draw(st.sampled_from([WEIGHTS, SETTINGS]))
    data = bytearray(path.read_bytes())
    assume(data)
    place = draw(st.integers(0, len(data) - 1))
    how = draw(st.sampled_from(["flip", "flip", "flip", "cut", "insert", "truncate"]))
    if how == "flip":
        place = len(data) - 1 - place // 4 if draw(st.booleans()) else place
        data[place] ^= draw(st.integers(1, 255))
    elif how == "cut":
        del data[place : place + draw(st.integers(1, 64))]
    elif how == "insert":
        data[place:place] = draw(st.binary(min_size=1, max_size=16))
    else:
        del data[place:]
    path.write_bytes(bytes(data))
    return f"bytes: {how}"


def damage_settings(draw, folder: Path) -> str:
    """Set a field of adapter_config.json, or take it out."""
    fields = json.loads((folder / SETTINGS).read_text())
    field = draw(FIELDS)
    if draw(st.integers(0, 5)) == 0:
        fields.pop(field, None)
    else:
        field = field if draw(st.booleans()) else draw(st.sampled_from(sorted(SENSE)))
        fields[field] = draw(SENSE.get(field, VALUES) if draw(st.booleans()) else VALUES)
    (folder / SETTINGS).write_text(json.dumps(fields))
    return "settings"


def damage_tensors(draw, folder: Path) -> str:
    """Rename, reshape, retype, drop, add, exchange or spoil whole tensors."""
    tensors = load_file(folder / WEIGHTS)
    keys = sorted(tensors)
    key, other = draw(st.sampled_from(keys)), draw(st.sampled_from(keys))
    kinds = ["rename", "reshape", "retype", "retype all", "drop", "add", "exchange", "spoil"]
    how = draw(st.sampled_from(kinds))
    if how == "rename":
        old, new = draw(
            st.sampled_from([("base_model.", ""), ("lora_A", "lora_B"), (".0.", ".1."), ("", "x")])
        )
        tensors[key.replace(old, new, 1)] = tensors.pop(key)
    elif how == "reshape":
        shape = draw(st.sampled_from([(-1,), (1, -1), (-1, 1), tuple(tensors[key].T.shape)]))
        tensors[key] = tensors[key].reshape(shape)
    elif how == "retype":
        tensors[key] = tensors[key].to(draw(st.sampled_from(DTYPES)))
    elif how == "retype all":
        dtype = draw(st.sampled_from(DTYPES))
        tensors = {key: tensor.to(dtype) for key, tensor in tensors.items()}
    elif how == "drop":
        del tensors[key]
    elif how == "add":
        name = draw(st.sampled_from(["x", key + "x", "base_model.model.lm_head.weight"]))
        tensors[name] = torch.ones(61, 32)
    elif how == "exchange":
        tensors[key], tensors[other] = tensors[other].clone(), tensors[key].clone()
    else:
        spoilt = draw(st.sampled_from([math.nan, math.inf, -math.inf, 3.5]))
        tensors[key].view(-1)[0] = spoilt
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return f"tensors: {how}"


def damage_header(draw, folder: Path) -> str:
    """Let the header say something else of a tensor, or of the file."""
    path = folder / WEIGHTS
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    fields = json.loads(data[8 : 8 + size])
    field = draw(st.sampled_from(["shape", "dtype", "data_offsets", "metadata", "length"]))
    numbers = st.lists(st.integers(-2, 2**65) | st.integers(0, 600), max_size=3)
    entry = fields[draw(st.sampled_from(sorted(fields.keys() - {"__metadata__"})))]
    if field in ("shape", "data_offsets"):
        entry[field] = draw(numbers)
    elif field == "dtype":
        entry[field] = draw(st.sampled_from(["F16", "BF16", "F32", "F64", "I32", "U8", "C64", ""]))
    elif field == "metadata":
        told = st.sampled_from(["0123456789abcdef", "f" * 16, ""])
        fields["__metadata__"] = draw(st.dictionaries(st.just("base_fingerprint"), told) | VALUES)
    text = json.dumps(fields).encode()
    length = len(text) if field != "length" else draw(st.integers(0, 2**64 - 1))
    path.write_bytes(length.to_bytes(8, "little") + text + data[8 + size :])
    return f"header: {field}"


DAMAGES = [damage_bytes, damage_settings, damage_tensors, damage_header]


@st.composite
def damages(draw, saved: Path, folder: Path) -> list[str]:
    """Copy the adapter in `saved` to `folder`, and let one to three things happen to it there."""
    for name in (WEIGHTS, SETTINGS):
        (folder / name).write_bytes((saved / name).read_bytes())
    happened = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 1, 2, 3]))):
        damage = draw(st.sampled_from(DAMAGES))
        try:
            happened.append(damage(draw, folder))
        except Exception as error:
            if not type(error).__module__.startswith("hypothesis"):
                break  # what happened before has left nothing that this could be done to
            raise
    assume(happened)
    return happened


def read_values(path: Path) -> dict[str, np.ndarray]:
    """github.com/huggingface/safetensors, "Format": length, header, values; in float32."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    found = {}
    for key, entry in json.loads(data[8 : 8 + size]).items():
        if key == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        raw = data[8 + size + start : 8 + size + end]
        if entry["dtype"] == "BF16":
            bits = np.frombuffer(raw, "<u2").astype("<u4") << 16
            values = bits.view("<f4")
        else:
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]])
        found[key] = values.astype("<f4").reshape(entry["shape"])
    return found


def assert_loaded_right(model: nn.Module, base: nn.Module, folder: Path) -> None:
    """The adapters are the files', by PEFT's rules; nothing else has changed."""
    fields = json.loads((folder / SETTINGS).read_text())
    values = read_values(folder / WEIGHTS)
    adapted = dict(lora_layers(model))
    wanted = peft.LoraConfig(target_modules=fields["target_modules"])
    for name, layer in base.named_modules():
        if isinstance(layer, nn.Linear) and name != "lm_head":
            everything = str(fields["target_modules"]).lower() == "all-linear"
            aimed_at = everything or bool(check_target_module_exists(wanted, name))
            assert (name in adapted) == aimed_at, name
    largest = 0.0
    for name, layer in adapted.items():
        rank, alpha = (
            (patterns := fields.get(pattern) or {}).get(
                get_pattern_key(patterns.keys(), name), fields[field]
            )
            for pattern, field in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))
        )
        scale = alpha / (math.sqrt(rank) if fields.get("use_rslora") else rank)
        assert math.isclose(layer.config.scale, scale, rel_tol=1e-12)
        entries = scale * rank
        for part in "AB":
            expected = values.pop(f"base_model.model.{name}.lora_{part}.weight")
            found = layer.get_parameter(part)
            assert np.array_equal(found.detach().numpy(), expected)
            assert found.requires_grad
            entries *= float(np.abs(expected).max())
        largest = max(largest, entries)
    assert values == {}, "a tensor of the file was passed over"
    for name, weight in base.named_parameters():
        module, _, last = name.rpartition(".")
        holder = model.get_submodule(module)
        now = (holder.base if isinstance(holder, LoRALinear) else holder).get_parameter(last)
        assert torch.equal(now, weight)
        assert not now.requires_grad
    if largest < MODERATE:
        with torch.no_grad():
            assert model.eval()(torch.arange(9)[None]).isfinite().all()


def state(model: nn.Module):
    """What a refusal has to leave as it was."""
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trains = {name: p.requires_grad for name, p in model.named_parameters()}
    return values, trains, [(name, type(m)) for name, m in model.named_modules()]


def outcomes(base: nn.Module, examples: int) -> Counter[str]:
    """Damage an adapter of `base` so many times, look at each, and count what came of it."""
    counted: Counter[str] = Counter()
    adapted = copy.deepcopy(base)
    inject(adapted, CONFIG, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for _, layer in lora_layers(adapted):
            layer.B.copy_(torch.linspace(-0.3, 0.3, layer.B.numel()).view_as(layer.B))

    with tempfile.TemporaryDirectory() as room:
        saved, folder = save_adapter(adapted, Path(room, "saved")), Path(room, "damaged")
        folder.mkdir()

        @settings(
            max_examples=examples,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(damages(saved, folder), st.booleans())
        def look(happened: list[str], carries: bool) -> None:
            model = copy.deepcopy(adapted if carries else base)
            before = state(model)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UnknownBase)
                    load_adapter(model, folder)
            except ValueError as error:
                assert str(error)
                values, *others = state(model)
                assert others == list(before[1:])
                assert values.keys() == before[0].keys()
                assert all(torch.equal(values[name], before[0][name]) for name in values)
                counted["refused"] += 1
            else:
                assert_loaded_right(model, base, folder)
                counted["loaded"] += 1
            counted.update(happened)

        look()
    return counted
