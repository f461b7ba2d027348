"""A function as one CUDA graph: its kernels are recorded once, and from then on launched together.

    step = Captured(function, [tokens, labels], state=weights)
    loss = step(tokens, labels)             the recorded kernels, over these numbers

Worth it where kernels are so small that launching them takes longer than they do. Recorded are
kernels and addresses, and no Python: what differs from call to call must be a tensor among the
inputs, and nothing may wait for the GPU. Knows no model and no training.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from threading import RLock
from typing import Any

import torch
from torch import Tensor

RECORDING = RLock()  # held while a thread works on the stream on which all is recorded


def warm_up(function: Callable[[], object], state: Sequence[Tensor], times: int = 3) -> None:
    """Call `function`, so that libraries choose and allocate; `state` ends as it began."""
    kept = [tensor.detach().clone() for tensor in state]
    try:
        for _ in range(times):
            function()
    finally:
        with torch.no_grad():
            for tensor, before in zip(state, kept, strict=True):
                tensor.copy_(before)


class Captured:
    """`function`, recorded over `inputs` of these shapes; it returns one tensor.

    `state` are the tensors outside of `function` that it changes in place: recording leaves them as
    they were. Raises ValueError if an input is not on a GPU.
    """

    def __init__(
        self, function: Callable[..., Tensor], inputs: Sequence[Tensor], *, state: Sequence[Tensor]
    ):
        for place, value in enumerate(inputs):
            if not value.is_cuda:
                raise ValueError(
                    f"input {place} is on {value.device}: only a GPU's kernels can be recorded"
                )
        self._inputs = [value.clone() for value in inputs]
        device = self._inputs[0].device
        with RECORDING, torch.cuda.device(device):
            # Warmed up and recorded on one stream, which is not the default: that cannot record.
            here, other = torch.cuda.current_stream(), aside(device)
            other.wait_stream(here)
            with torch.cuda.stream(other):
                warm_up(lambda: function(*self._inputs), state)
            here.wait_stream(other)
            self._graph = torch.cuda.CUDAGraph()
            with recording(self._graph, other, torch.cuda.graph_pool_handle()):
                self._output = function(*self._inputs)

    def __call__(self, *values: Tensor) -> Tensor:
        """What `function` would return for `values`, which may lie on the CPU; a tensor of its own.

        Does not wait for the GPU. Raises ValueError if a shape is not the recorded one.
        """
        for place, (held, value) in enumerate(zip(self._inputs, values, strict=True)):
            if held.shape != value.shape:
                raise ValueError(
                    f"input {place} has shape {tuple(value.shape)}, recorded was "
                    f"{tuple(held.shape)}: pad it, or record anew"
                )
            held.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._output.clone()


@contextmanager
def recording(graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream, pool: Any) -> Iterator[None]:
    """Within the block what this thread does on the GPU is recorded into `graph`, on `stream`.

    Other threads, a notebook's own among them, may use the GPU meanwhile. A recording that breaks
    off leaves nothing behind: PyTorch (2.11) leaves the thread on its stream, the generator of
    random numbers without use, and the allocator waiting for its end, with all it holds. An
    interrupt stays one, whatever PyTorch says of the recording that it broke off.
    """
    here, place = torch.cuda.current_stream(), stream.device_index
    generator = torch.cuda.default_generators[place]
    state = generator.get_state()
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            yield
    except BaseException as error:
        torch.cuda.set_stream(here)
        fresh = torch.Generator(generator.device)
        fresh.set_state(state)
        generator.graphsafe_set_state(fresh.graphsafe_get_state())
        with suppress(RuntimeError, AttributeError):  # no longer, where PyTorch itself has ended it
            torch._C._cuda_endAllocateToPool(place, pool)
            torch._C._cuda_releasePool(place, pool)  # a graph that is none never gives it back
        if isinstance(error.__context__, KeyboardInterrupt):
            raise error.__context__ from None
        raise


@cache
def aside(device: torch.device) -> torch.cuda.Stream:
    """One stream for all that is recorded: libraries keep a workspace for every stream they met."""
    return torch.cuda.Stream(device)
