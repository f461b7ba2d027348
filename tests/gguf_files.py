"""Small GGUF files, written as llama.cpp's converter writes them."""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, TokenType
from tokenizers.pre_tokenizers import ByteLevel

from lorakit.model import Llama, ModelConfig

SHAPE = ModelConfig(
    vocab_size=262,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rope_theta=50_000.0,
)

# Three special tokens, one for every byte, and three merges.
TOKENS = ["<|start|>", "<|end|>", "<|pad|>", *sorted(ByteLevel.alphabet()), "he", "hell", "ll"]
MERGES = ["h e", "l l", "he ll"]


def metadata(config: ModelConfig) -> dict:
    return {
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.freq_base": config.rope_theta,
        "llama.rope.dimension_count": config.head_dim,
        "llama.vocab_size": config.vocab_size,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [int(TokenType.CONTROL)] * 3
        + [int(TokenType.NORMAL)] * (len(TOKENS) - 3),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": "{{ bos_token }}{{ messages[0]['content'] }}:",
    }


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to q_proj and k_proj, row by row: halves become pairs."""
    size = len(weight) // heads
    order = [
        head * size + half * size // 2 + i
        for head in range(heads)
        for i in range(size // 2)
        for half in range(2)
    ]
    return weight[order]


def tensors(model: Llama) -> dict[str, np.ndarray]:
    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    found = {}
    for name, parameter in model.named_parameters():
        weight = parameter.detach().numpy()
        if "q_proj" in name:
            weight = permuted(weight, config.num_attention_heads)
        if "k_proj" in name:
            weight = permuted(weight, config.num_key_value_heads)
        found[names.get_name(name, try_suffixes=(".weight",))] = weight
    return found


def write_gguf(
    path: Path,
    model: Llama,
    *,
    architecture: str = "llama",
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    changes: dict | None = None,
    extra: dict[str, np.ndarray] | None = None,
) -> Path:
    """A file of `model`; `changes` to the metadata (None leaves a field out), `extra` tensors."""
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in (metadata(model.config) | (changes or {})).items():
        match value:
            case None:
                pass
            case str():
                writer.add_string(name, value)
            case int():
                writer.add_uint32(name, value)
            case float():
                writer.add_float32(name, value)
            case list():
                writer.add_array(name, value)
    for name, weight in (tensors(model) | (extra or {})).items():
        exact = weight.ndim == 1 or kind == GGMLQuantizationType.F32
        writer.add_tensor(
            name,
            weight if exact else gguf.quants.quantize(weight, kind),
            raw_dtype=GGMLQuantizationType.F32 if exact else kind,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def speaking(config: ModelConfig = SHAPE) -> Llama:
    """A random model, louder than a fresh start, so that attention and MLP speak up."""
    torch.manual_seed(0)
    model = Llama(config)
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter.mul_(1 if parameter.ndim == 1 else 8)
    return model
