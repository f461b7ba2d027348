"""Peers and snapshots for the tests of adapter files."""

import dataclasses
import json
from collections import Counter
from contextlib import contextmanager

import pytest
import torch
import transformers
from safetensors.torch import load_file

from lorakit.adapter_file import AdapterFile


def hugging_face(model) -> transformers.LlamaForCausalLM:
    """The same weights in transformers' Llama."""
    settings = dataclasses.asdict(model.config)
    del settings["rope_scaling"]
    rope = {"rope_theta": settings.pop("rope_theta"), "rope_type": "default"}
    config = transformers.LlamaConfig(**settings, rope_parameters=rope, attention_bias=False)
    peer = transformers.LlamaForCausalLM(config).eval()
    peer.load_state_dict(model.state_dict())
    return peer


def edit_config(folder, **changes) -> None:
    """Set fields of adapter_config.json; the value `...` takes a field out."""
    path = folder / "adapter_config.json"
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in fields.items() if v is not ...}))


def contents(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def parts(path) -> AdapterFile:
    """What is in a file, asked of its tensors."""
    found: dict[str, Counter] = {"lora_A": Counter(), "lora_B": Counter(), "beside": Counter()}
    for key, tensor in load_file(path).items():
        *_, name, part = key.removesuffix(".weight").split(".")
        part, name = (part, name) if part in found else ("beside", part)
        found[part][name] += tensor.nbytes
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    A, B, beside = found.values()
    return AdapterFile(header=header, A=A, B=B, beside=beside)


@contextmanager
def refused(model, message):
    """The block raises `message` and leaves values, requires_grad and modules as they were."""

    def state():
        values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        trains = {name: p.requires_grad for name, p in model.named_parameters()}
        return values, trains, [(name, type(m)) for name, m in model.named_modules()]

    values, *others = state()
    with pytest.raises(ValueError, match=message):
        yield
    values_after, *others_after = state()
    assert others_after == others
    assert values_after.keys() == values.keys()
    assert all(torch.equal(values_after[name], values[name]) for name in values)
