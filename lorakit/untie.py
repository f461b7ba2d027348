"""An output head of its own, for a model whose head is its embedding.

    logits = E h    becomes    logits = H h, where H starts as a copy of E

Only then can the head be adapted, and the adapter merged, without a change to the embedding.
"""

from dataclasses import replace

from torch import nn

from lorakit.model import Llama


def untie(model: Llama) -> None:
    """Give the output head a copy of the embedding, bit for bit; one of its own is left as it is.

    The config says so from then on (tie_word_embeddings), and so does a folder saved from `model`.
    """
    if not model.config.tie_word_embeddings:
        return
    embedding = model.model.embed_tokens.weight
    own = embedding.detach().clone()
    model.lm_head.weight = nn.Parameter(own, requires_grad=embedding.requires_grad)
    model.config = replace(model.config, tie_word_embeddings=False)
