"""A Llama-type GGUF file, llama.cpp's one-file format: shape, weights and tokenizer.

    blk.0.attn_q.weight: quantised, rows permuted  ->  model.layers.0.self_attn.q_proj.weight

GGUF: github.com/ggml-org/ggml, docs/gguf.md. Weights come back in float32 under Hugging Face's
names. Knows the byte-level BPE that SmolLM was trained with, and no other tokenizer.
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor

from lorakit.model import ModelConfig
from lorakit.text import Tokenizer

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def read_gguf(path: Path | str) -> tuple[ModelConfig, dict[str, Tensor], Tokenizer]:
    """Config, float32 weights under Hugging Face's names, and tokenizer of a Llama-type GGUF.

    A file without `output.weight` has its head tied to the embedding: no `lm_head.weight` then.
    Raises ValueError naming the architecture, tokenizer, tensor or field that is not read.
    """
    path = Path(path)
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{path} is not a readable GGUF file: {error}") from error
    metadata = {name: field.contents() for name, field in reader.fields.items()}
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise ValueError(
            f'{path}: this code reads llama, and "{architecture}" is another architecture'
        )
    try:
        tokenizer = _tokenizer(metadata)
        config = _config(metadata, {tensor.name for tensor in reader.tensors})
    except KeyError as missing:
        raise ValueError(f"{path} lacks the metadata field {missing}") from missing
    return config, {_name(t.name): _weight(t, config) for t in reader.tensors}, tokenizer


def _config(metadata: dict[str, Any], tensors: set[str]) -> ModelConfig:
    scaling = metadata.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(f'rope scaling "{scaling}" is not read from a GGUF file: only "none" is')
    heads = metadata["llama.attention.head_count"]
    return ModelConfig(
        vocab_size=len(metadata["tokenizer.ggml.tokens"]),
        hidden_size=metadata["llama.embedding_length"],
        intermediate_size=metadata["llama.feed_forward_length"],
        num_hidden_layers=metadata["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=metadata.get("llama.attention.head_count_kv", heads),
        max_position_embeddings=metadata["llama.context_length"],
        rope_theta=_decimal(metadata.get("llama.rope.freq_base", 10_000.0)),
        rms_norm_eps=_decimal(metadata["llama.attention.layer_norm_rms_epsilon"]),
        tie_word_embeddings="output.weight" not in tensors,
    )


def _decimal(value: float) -> float:
    """The shortest decimal that a float32 stands for: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _name(name: str) -> str:
    match name.split("."):
        case ["token_embd", "weight"]:
            return "model.embed_tokens.weight"
        case ["output_norm", "weight"]:
            return "model.norm.weight"
        case ["output", "weight"]:
            return "lm_head.weight"
        case ["blk", layer, part, "weight"] if part in LAYER_NAMES:
            return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"
    raise ValueError(f"tensor {name} belongs to no plain Llama: biases and experts are not read")


def _weight(tensor: gguf.ReaderTensor, config: ModelConfig) -> Tensor:
    values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    if tensor.name.endswith("attn_q.weight"):
        values = _unpermuted(values, config.num_attention_heads)
    elif tensor.name.endswith("attn_k.weight"):
        values = _unpermuted(values, config.num_key_value_heads)
    # Values stored as float32 come as a view of the file, which is read-only.
    return torch.from_numpy(np.require(values, requirements=("C", "W")))


def _unpermuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows back in Hugging Face's order: llama.cpp turns neighbours, (0, 1), as a pair.

    Hugging Face turns row i of a head with row i + head_dim/2, as `lorakit.model.rotate` does.
    """
    out, into = weight.shape
    return weight.reshape(heads, out // heads // 2, 2, into).swapaxes(1, 2).reshape(out, into)


def _tokenizer(metadata: dict[str, Any]) -> Tokenizer:
    kind = metadata["tokenizer.ggml.model"], metadata.get("tokenizer.ggml.pre")
    if kind != ("gpt2", "smollm"):
        raise ValueError(
            f'tokenizer "{kind[0]}" with pre-tokenizer "{kind[1]}" is not read: only "gpt2" with '
            '"smollm" is; give the Hugging Face folder that the file was made from'
        )
    tokens, merges = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.merges"]
    fast = FastTokenizer(
        models.BPE(
            {token: i for i, token in enumerate(tokens)},
            [tuple(merge.split(" ")) for merge in merges],
        )
    )
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    control = [t for t, kind in zip(tokens, types, strict=True) if kind == gguf.TokenType.CONTROL]
    fast.add_special_tokens([AddedToken(token, normalized=False) for token in control])

    def special(role: str) -> str | None:
        place = metadata.get(f"tokenizer.ggml.{role}_token_id")
        return None if place is None else tokens[place]

    return Tokenizer(
        fast,
        chat_template=metadata.get("tokenizer.chat_template"),
        eos_token=tokens[metadata["tokenizer.ggml.eos_token_id"]],
        pad_token=special("padding"),
        bos_token=special("bos"),
    )
