"""The forward of a model that writes: the prompt at once, then token by token, on a GPU as a graph.

    read = Decoding(model, rows=1, capacity=100)
    logits = read(prompt)                    (rows, length) -> (rows, vocab_size), of the last token
    logits = read(token)                     (rows, 1), at the next position

To launch the many small kernels of one token takes far longer than they do, so after a few tokens
they are recorded as one CUDA graph. One graph serves every position, because the position is a
tensor: the keys have room for the whole text, and a mask hides what is not yet filled of it.
Chooses no token.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lorakit.capture import Captured
from lorakit.model import KVCache, Llama

AFTER = 3  # forwards, the prompt's among them: shorter answers are done before recording pays
PAYS = 8  # tokens that may still come: recording takes as long as four or five
ALIGNED = 16  # keys: attention would copy a mask of another width, for every layer


class Decoding:
    """A model that reads `rows` texts of one length, of at most `capacity` tokens, in step.

    Where `captured`, the GPU allows it, and enough tokens come, the later ones are a replayed graph
    of the model as it stood at the first of them: it follows values that change in place, and no
    layer that is put on or taken off. Module modes are as they were after each call.
    """

    def __init__(self, model: Llama, rows: int, capacity: int, *, captured: bool = True):
        weight = model.model.embed_tokens.weight
        room = capacity + -capacity % ALIGNED
        self.kv = KVCache(model.config, rows, room, dtype=weight.dtype, device=weight.device)
        self.model, self.capacity, self.forwards = model, capacity, 0
        self.captures = captured and can_record(model)
        self._graph: Captured | None = None
        self._held: list[nn.Module | Tensor] = []

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits in float32 of each row's last token; tokens may lie on the CPU."""
        self.forwards += 1
        if self._graph is None and not (tokens.shape[1] == 1 and self._pays()):
            with evaluating(self.model.modules()):
                logits = self.model(tokens.to(self.kv.keys[0].device), self.kv, last=True)
            return logits[:, -1].float()
        position = torch.tensor([self.kv.length])
        if self._graph is None:
            self._record(tokens, position)
        assert self._graph is not None
        self.kv.length += 1
        return self._graph(tokens, position)

    def _pays(self) -> bool:
        coming = self.capacity - self.kv.length
        return self.captures and self.forwards > AFTER and coming >= PAYS

    def _record(self, *inputs: Tensor) -> None:
        clear(self.kv)
        # The graph knows addresses: what lies there stays until it goes, whatever leaves the model.
        self._held = [*self.model.modules(), *(p.detach() for p in self.model.parameters())]
        device = self.kv.keys[0].device
        with evaluating(self.model.modules()):
            self._graph = Captured(
                # It writes its own position's keys and no others: called twice, it does the same.
                lambda token, position: step(self.model, self.kv, token, position),
                [value.to(device) for value in inputs],
                state=(),
            )


def can_record(model: nn.Module) -> bool:
    """Whether a graph of the model's kernels would do all that calling it does."""
    if not next(model.parameters()).is_cuda or torch.is_autocast_enabled("cuda"):
        return False  # autocast keeps copies of weights, and drops them when it ends
    return not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def step(model: Llama, kv: KVCache, token: Tensor, position: Tensor) -> Tensor:
    """Logits in float32 (rows, vocab_size) after `token` (rows, 1) at `position` (1,).

    What no forward has filled of `kv` must be finite, as `clear` makes it; its length stays.
    """
    return model(token, _At(kv, position), last=True)[:, -1].float()


class _At(KVCache):
    """The tensors of a cache, for one token a row, whose position is a tensor and not known here.

    All keys are returned, and those hidden that are not there yet.
    """

    def __init__(self, kv: KVCache, position: Tensor):
        self.keys, self.values, self.length, self.position = kv.keys, kv.values, 0, position
        keys = kv.keys[0]
        later = torch.arange(keys.shape[2], device=keys.device) > position
        self.hidden = keys.new_zeros(1, keys.shape[2]).masked_fill_(later, -math.inf)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys = self.keys[layer].index_copy_(2, self.position, k)
        return keys, self.values[layer].index_copy_(2, self.position, v)

    def positions(self, count: int) -> Tensor:
        return self.position

    def mask(self, count: int) -> Tensor:
        return self.hidden


def clear(kv: KVCache) -> None:
    """Make the room that is not filled zeros: hidden from attention, it still must be finite."""
    for tensor in (*kv.keys, *kv.values):
        tensor[:, :, kv.length :].zero_()


@contextmanager
def evaluating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Within the block no module is in training mode; then each is as it was."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
