"""A Llama-style decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

    x = embed(tokens)
    x = x + attention(norm(x));  x = x + mlp(norm(x))        num_hidden_layers times
    logits = lm_head(norm(x))                                lm_head often is the embedding, tied

Module paths and config fields are those of Hugging Face's Llama, so real checkpoints load with no
renaming. This file knows no LoRA, no training and no files.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lorakit.attention import attend
from lorakit.linear import Linear
from lorakit.norm import RMSNorm


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama 3.1's stretching of slow rotations (Hugging Face's rope type `llama3`)."""

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of a decoder; fields are named as in Hugging Face's `LlamaConfig`."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True

    def __post_init__(self):
        for name in [field.name for field in fields(self) if field.type is int]:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size={self.hidden_size} must be an even multiple of "
                f"num_attention_heads={self.num_attention_heads}: rotary positions turn pairs"
            )
        if (heads := self.num_attention_heads) % (shared := self.num_key_value_heads):
            raise ValueError(
                f"num_attention_heads={heads} must be a multiple of num_key_value_heads={shared}"
            )

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


def rotation(config: ModelConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (length, head_dim), of the angles that rotary positions turn by.

    Computed when needed and in float32: a stored table would be rounded by `model.bfloat16()`.
    RoFormer, arXiv 2104.09864, section 3.2.
    """
    pairs = torch.arange(0, config.head_dim, 2, device=positions.device, dtype=torch.float32)
    frequencies = config.rope_theta ** (-pairs / config.head_dim)
    if scaling := config.rope_scaling:
        turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
        low, high = scaling.low_freq_factor, scaling.high_freq_factor
        keep = ((turns - low) / (high - low)).clamp(0, 1)
        frequencies = frequencies * (keep + (1 - keep) / scaling.factor)
    angles = positions.float()[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + head_dim/2]) by its angle; x is (..., length, head_dim)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat([-second, first], dim=-1) * sin.to(x.dtype)


class KVCache:
    """Keys and values of the tokens seen so far, (batch, kv heads, capacity, head_dim) a layer."""

    def __init__(self, config: ModelConfig, batch: int, capacity: int, *, dtype, device):
        shape = (batch, config.num_key_value_heads, capacity, config.head_dim)
        layers = range(config.num_hidden_layers)
        self.keys = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.empty(shape, dtype=dtype, device=device) for _ in layers]
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append one layer's new keys and values; return all of that layer's, old and new."""
        end = self.length + k.shape[2]
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def positions(self, count: int) -> Tensor:
        """Where the next `count` tokens stand."""
        return torch.arange(self.length, self.length + count, device=self.keys[0].device)

    def mask(self, count: int) -> Tensor | None:
        """Which keys each new query sees, all up to itself: None for one (all), or at the start."""
        if count == 1 or not self.length:
            return None
        ends = self.positions(count)[:, None]
        return torch.arange(self.length + count, device=ends.device) <= ends


class Attention(nn.Module):
    """Causal self-attention; query heads share key-value heads (GQA, arXiv 2305.13245)."""

    shared: bool | None = None  # whether the kernel reads shared keys; None, as attention.py says

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        kv_size = config.num_key_value_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, config.hidden_size, bias=False)
        self.k_proj = Linear(config.hidden_size, kv_size, bias=False)
        self.v_proj = Linear(config.hidden_size, kv_size, bias=False)
        self.o_proj = Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, kv: KVCache | None = None) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            proj(x).view(batch, length, -1, self.head_dim).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mask = None
        if kv is not None:
            mask = kv.mask(length)
            k, v = kv.extend(self.layer, k, v)
        return self.o_proj(attend(q, k, v, mask, self.shared))


class MLP(nn.Module):
    """SwiGLU (arXiv 2002.05202): one projection gates the other."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One decoder layer: attention, then MLP, each on a normed copy and added back."""

    def __init__(self, config: ModelConfig, layer: int):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, kv: KVCache | None = None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, kv)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Everything but the output head (Hugging Face's `LlamaModel`)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    """tokens (batch, length) -> logits (batch, length, vocab_size), or of the `last` token alone.

    With `gradient_checkpointing` a layer keeps nothing but its input for backward, and is computed
    again there (arXiv 1604.06174).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, self.gradient_checkpointing = config, False
        self.checkpointing: dict = {"use_reentrant": False, "preserve_rng_state": True}
        self.model = Decoder(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        if not self.lm_head.weight.is_meta:
            self.apply(_initialise)
        self.tie()

    def tie(self) -> None:
        """Make the output head the embedding itself, where the config says so."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def get_output_embeddings(self) -> nn.Linear:
        """The output head, under the name Hugging Face's models give it."""
        return self.lm_head

    def forward(self, tokens: Tensor, kv: KVCache | None = None, last: bool = False) -> Tensor:
        count, limit = tokens.shape[1], self.config.max_position_embeddings
        if (end := count + (kv.length if kv is not None else 0)) > limit:
            raise ValueError(
                f"{end} tokens are longer than max_position_embeddings={limit}: shorten the text"
            )
        positions = torch.arange(end, device=tokens.device) if kv is None else kv.positions(count)
        x = self.model.embed_tokens(tokens)
        cos, sin = (table.to(x.dtype) for table in rotation(self.config, positions))
        for layer in self.model.layers:
            if self.gradient_checkpointing and kv is None and torch.is_grad_enabled():
                x = checkpoint(layer, x, cos, sin, **self.checkpointing)
            else:
                x = layer(x, cos, sin, kv)
        if kv is not None:
            kv.length = end
        return self.lm_head(self.model.norm(x[:, -1:] if last else x))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
