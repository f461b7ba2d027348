"""A Llama in a Hugging Face folder, in and out.

    config.json    model.safetensors, or its shards and their index    tokenizer.json and its config

Weights are mapped into memory, not read: pages come when they are used, and a page that training
writes to becomes a private copy, never a change of the file. Pickle files are not opened.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lorakit.counts import skeleton
from lorakit.files import read_json, replacing, settle, write_json
from lorakit.fingerprint import fingerprint, remember_file
from lorakit.lora import lora_layers
from lorakit.model import Llama, ModelConfig, RopeScaling
from lorakit.qlora import quantized_layers
from lorakit.text import Tokenizer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SAVED = {CONFIG, WEIGHTS, "tokenizer.json", "tokenizer_config.json"}  # what save_folder writes

# The parts of Hugging Face's Llama that this decoder has in one kind only.
FIXED = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}


def load_folder(
    folder: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[Llama, Tokenizer]:
    """Model and tokenizer of a Hugging Face folder; weights of the same dtype stay mapped on CPU.

    Raises ValueError naming the file, the field or the tensor that is missing or not read.
    """
    folder = Path(folder).resolve()
    config = read_config(folder)
    tokenizer = Tokenizer.load(folder)
    model = build(config, _read_weights(folder), folder)
    remember_file(model, fingerprint(model.named_parameters()))
    model.to(dtype=dtype, device=device)
    return model, tokenizer


def save_folder(model: Llama, tokenizer: Tokenizer, folder: Path | str) -> Path:
    """Write a folder that transformers reads too, and return it; an earlier save gives way whole.

    Raises ValueError, nothing written, if `model` holds adapters or layers in 4 bits, or `folder`
    holds something else.
    """
    folder = Path(folder).resolve()
    if quantized := quantized_layers(model):
        raise ValueError(
            f"model has {len(quantized)} layers in 4 bits (first: {quantized[0][0]}), which such a "
            "folder cannot hold: dequantize_ makes them plain, save_adapter saves adapters alone"
        )
    if adapters := lora_layers(model):
        raise ValueError(
            f"model holds {len(adapters)} adapters (first: {adapters[0][0]}): merge_and_unload "
            "folds them in, save_adapter saves them alone"
        )
    present = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if present and not {CONFIG, WEIGHTS} <= present <= SAVED:
        other = ", ".join(sorted(present - SAVED)) or f"no {WEIGHTS} with a {CONFIG}"
        raise ValueError(f"{folder} is not an earlier save ({other}): name another folder")
    weights = {name: p.detach().contiguous() for name, p in model.named_parameters()}
    with replacing(folder) as fresh:
        fresh.mkdir()
        write_json(fresh / CONFIG, _config_json(model, tokenizer))
        save_file(weights, fresh / WEIGHTS, metadata={"format": "pt"})
        tokenizer.save(fresh)
    return folder


def read_config(folder: Path | str) -> ModelConfig:
    """The shape that a folder's config.json tells, in transformers 4's or 5's manner.

    Raises ValueError naming the architecture or the field that this decoder does not have.
    """
    folder = Path(folder).resolve()
    settle(folder)
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} is no Hugging Face model folder: it has no {CONFIG}")
    saved = read_json(path)
    if not isinstance(saved, dict):
        raise ValueError(f"{path} holds no fields, but {saved!r}")
    if (kind := saved.get("model_type")) != "llama":
        raise ValueError(f'{path}: this code reads llama, and "{kind}" is another architecture')
    for field, value in FIXED.items():
        if saved.get(field, value) != value:
            raise ValueError(f"{path}: {field}={saved[field]!r} is not read, only {value!r} is")
    try:
        config = _parse(saved)
    except KeyError as missing:
        raise ValueError(f"{path} lacks {missing}") from missing
    except (AttributeError, TypeError) as error:
        raise ValueError(
            f"{path}: a field is of another kind than it has to be: {error}"
        ) from error
    if saved.get("head_dim") not in (None, config.head_dim):
        raise ValueError(
            f"{path}: head_dim={saved['head_dim']} is not read, only hidden_size / "
            f"num_attention_heads = {config.head_dim} is"
        )
    return config


def build(config: ModelConfig, weights: Mapping[str, Tensor], source: Path) -> Llama:
    """A model around these very tensors, uncopied; `source` is where errors say they come from.

    Raises ValueError naming a tensor that is missing, of another shape, or of no use.
    """
    model = skeleton(config)
    weights = {n: t for n, t in weights.items() if not n.endswith("rotary_emb.inv_freq")}
    if config.tie_word_embeddings:
        weights.pop("lm_head.weight", None)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    for name, shape in shapes.items():
        if name not in weights:
            raise ValueError(f"{source} lacks the tensor {name}: is it wholly there?")
        if (found := tuple(weights[name].shape)) != shape:
            raise ValueError(f"{source}: {name} is {found}, its config says {shape}")
        if not weights[name].is_floating_point():
            raise ValueError(f"{source}: {name} is {weights[name].dtype}, and weights are floats")
    if unused := sorted(weights.keys() - shapes.keys()):
        raise ValueError(f"{source} holds {unused[0]}, for which its config has no place")
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie()
    return model


def _read_weights(folder: Path) -> dict[str, Tensor]:
    if (folder / WEIGHTS).exists():
        files = [folder / WEIGHTS]
    elif (folder / INDEX).exists():
        files = [folder / shard for shard in _shards(folder / INDEX)]
    else:
        raise ValueError(
            f"{folder} has no {WEIGHTS}; pickle files (pytorch_model.bin) are not read, they may "
            "run any code when opened: load it with transformers once and save_pretrained it"
        )
    weights: dict[str, Tensor] = {}
    for file in files:
        try:
            weights |= load_file(file)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{file} is missing or damaged: {error}") from error
    return weights


def _shards(index: Path) -> list[str]:
    """The names of the files that hold the weights, each in the index's own folder.

    A name is all that is judged: in the hub's cache every file is a link to somewhere else.
    """
    saved = read_json(index)
    places = saved.get("weight_map") if isinstance(saved, dict) else None
    if not isinstance(places, dict) or not all(isinstance(s, str) for s in places.values()):
        raise ValueError(f"{index} has no weight_map from tensors to files")
    for name, shard in places.items():
        if Path(shard).is_absolute() or ".." in Path(shard).parts:
            raise ValueError(f"{index}: {name} is in {shard!r}, which leaves the folder")
    return sorted(set(places.values()))


def _parse(saved: dict[str, Any]) -> ModelConfig:
    """Fields left out of config.json stand at LlamaConfig's own defaults."""
    rope = saved.get("rope_parameters") or saved.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        raise ValueError(f'rope type "{kind}" is not read, only "default" and "llama3" are')
    stretched = kind == "llama3"
    heads = saved["num_attention_heads"]
    return ModelConfig(
        vocab_size=saved["vocab_size"],
        hidden_size=saved["hidden_size"],
        intermediate_size=saved["intermediate_size"],
        num_hidden_layers=saved["num_hidden_layers"],
        num_attention_heads=heads,
        num_key_value_heads=saved.get("num_key_value_heads") or heads,
        max_position_embeddings=saved.get("max_position_embeddings", 2048),
        rope_theta=rope.get("rope_theta", saved.get("rope_theta", 10_000.0)),
        rope_scaling=RopeScaling(**{f.name: rope[f.name] for f in fields(RopeScaling)})
        if stretched
        else None,
        rms_norm_eps=saved.get("rms_norm_eps", 1e-6),
        tie_word_embeddings=saved.get("tie_word_embeddings", False),
    )


def _config_json(model: Llama, tokenizer: Tokenizer) -> dict[str, Any]:
    values = asdict(model.config)
    scaling = values.pop("rope_scaling")
    stretched = scaling and {"rope_type": "llama3", **scaling}
    bos = tokenizer.special.get("bos_token")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": str(model.model.embed_tokens.weight.dtype).removeprefix("torch."),
        **FIXED,
        **values,
        "head_dim": model.config.head_dim,
        # transformers 4 reads rope_theta and rope_scaling, 5 reads rope_parameters.
        "rope_scaling": stretched,
        "rope_parameters": {
            "rope_type": "default",
            **(stretched or {}),
            "rope_theta": model.config.rope_theta,
        },
        "bos_token_id": bos and tokenizer.tokenizer.token_to_id(bos),
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
