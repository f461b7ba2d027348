"""One run in many processes, as torchrun starts them: each takes rows, all take the same step.

    rows of a batch -> forward -> backward -+
                                            +-> mean of all gradients -> the same step everywhere
    other rows      -> forward -> backward -+

PyTorch's DistributedDataParallel averages the gradients. With the tokens that count averaged too,
mean(sum of losses) / mean(tokens) is the loss of one large batch. What knows of ranks stands here;
in one process alone every function does nothing. Rank 0 alone writes, prints and judges.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from itertools import count
from typing import Any
from warnings import catch_warnings, simplefilter
from weakref import WeakSet

import torch
import torch.distributed as dist  # comes with torch itself
from torch import Tensor, nn

from lorakit import ending
from lorakit.device import VARIABLE, pick_device

MEETING = timedelta(minutes=5)  # until all processes are there
PATIENCE = timedelta(hours=6)  # with one that lives and is busy, such as rank 0 while it judges
SIGNS = ("gloo", "nccl", "connection", "timed out", "processgroup")  # of one that is gone

_openings = count()
_replicas: WeakSet[Any] = WeakSet()  # those of the open group


class Lost(ConnectionError):
    """Another process of this run is gone; the weights are those after the last whole step."""


def size() -> int:
    """How many processes do this run; 1 where torchrun started none."""
    return int(os.environ["WORLD_SIZE"]) if "MASTER_ADDR" in os.environ else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if size() > 1 else 0


def rows(batch_size: int) -> int:
    """How many of a batch's rows one process takes. Raises ValueError if it does not divide."""
    if batch_size % size():
        more = batch_size + size() - batch_size % size()
        raise ValueError(
            f"a batch of {batch_size} rows does not divide among {size()} processes: "
            f"batch_size counts the rows of all, make it {more}, or start fewer processes"
        )
    return batch_size // size()


def share(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """This process's rows of (tokens, labels), each (batch, length), as long as all the others."""
    own = rows(len(batch[0]))
    tokens, labels = (t[rank() * own : (rank() + 1) * own] for t in batch)
    return tokens, labels


@contextmanager
def group() -> Iterator[None]:
    """Within the block the processes are one group, each on a GPU of its own where there are any.

    A block within a block is the outer one's; alone, nothing happens. SIGTERM then asks to stop, as
    far as `anywhere` is asked. Raises ValueError for a process without a GPU of its own, and Lost
    if another does not come.
    """
    if size() == 1 or dist.is_initialized():
        yield
        return
    gpu = _take_gpu()
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    with noticing("as the run began"):
        store = dist.PrefixStore(f"lorakit/{next(_openings)}", _store())
        dist.init_process_group(
            backend, store=store, rank=rank(), world_size=size(), timeout=PATIENCE
        )
    try:
        with ending.heard(_break_off if gpu else None):
            yield
            with noticing("at the end"):
                anywhere(lambda: False)  # nobody closes while another still exchanges
    finally:
        # A reducer that outlives the group, in an error's frames say, would free it with Python's
        # lock in hand, and wait for threads of the group that wait for the lock.
        for wrapped in _replicas:
            wrapped.reducer = wrapped.logger = None
        _replicas.clear()
        dist.destroy_process_group()


def _take_gpu() -> bool:
    """Make this process's own GPU the current one; False on a CPU."""
    device = pick_device()
    if device.type == "mps" or device.index is not None:
        raise ValueError(
            f"{size()} processes cannot share the device {device}: {VARIABLE}=cpu, or cuda without "
            "a number, gives each its own"
        )
    if device.type == "cpu":
        return False
    number, gpus = int(os.environ.get("LOCAL_RANK", rank())), torch.cuda.device_count()
    if number >= gpus:
        raise ValueError(
            f"process {number + 1} of this machine finds {gpus} GPUs: start at most {gpus} "
            "(--nproc-per-node)"
        )
    torch.cuda.set_device(number)
    return True


@cache
def _store() -> Any:
    """Where the processes find each other; one for all groups, which follow one another."""
    return next(dist.rendezvous("env://", timeout=MEETING))[0]


def _break_off() -> None:
    """End what the GPU waits for: it never comes."""
    backend: Any = dist.group.WORLD._get_backend(torch.device("cuda"))  # type: ignore[union-attr]
    backend.abort()


@contextmanager
def noticing(where: str) -> Iterator[None]:
    """Within the block the absence of another process is Lost, and says where it was noticed."""
    try:
        yield
    except RuntimeError as error:
        if size() == 1 or not any(sign in str(error).lower() for sign in SIGNS):
            raise
        reason = re.sub(r"^\[\S+\.cc:\d+\] ", "", str(error).splitlines()[0]).split(". ")[0]
        raise Lost(
            f"rank {rank()} of {size()} found {where} that another process is gone or hangs "
            f"({reason}): the run ends here"
        ) from error


class _Spared(nn.Module):
    """`model`, and a parameter that nothing uses.

    A run may leave parameters of its own unused. Told to look for such, DistributedDataParallel
    warns on stderr where it finds none.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.spare = nn.Parameter(torch.zeros(1, device=next(model.parameters()).device))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(tokens)


def replica(model: nn.Module) -> nn.Module:
    """`model`, or DistributedDataParallel around it, which gives all the parameters of rank 0.

    Its `no_sync()` lets a backward keep its gradients to itself. Raises ValueError outside `group`,
    and for a model on another process's GPU.
    """
    if size() == 1:
        return model
    if not dist.is_initialized():
        raise ValueError(
            f"this is process {rank()} of {size()}, and they are no group: train(...) and "
            "finetune(...) make one, else write `with lorakit.parallel.group():` around"
        )
    where = next(model.parameters()).device
    if where.type == "cuda" and where.index != torch.cuda.current_device():
        raise ValueError(
            f"the model is on {where}, and the GPU of rank {rank()} is number "
            f"{torch.cuda.current_device()}: make it within `with lorakit.parallel.group():`"
        )
    with noticing("before the first step"), catch_warnings():
        simplefilter("ignore", FutureWarning)  # a new name for `broadcast_buffers`
        wrapped = nn.parallel.DistributedDataParallel(
            _Spared(model),
            broadcast_buffers=False,  # training changes none
            find_unused_parameters=True,
            gradient_as_bucket_view=True,
        )
    _replicas.add(wrapped)
    return wrapped


def check_whole() -> None:
    """Raise RuntimeError, to be noticed, if what the GPUs exchanged was broken off."""
    if ending.broken.is_set():
        raise RuntimeError("no gradients came: the connection is broken off")


def average(value: Tensor) -> Tensor:
    """The mean of the processes' values, the same on all; alone, `value` itself."""
    if size() == 1:
        return value
    total = value.float()
    dist.all_reduce(total)
    return total / size()


def anywhere(asked: Callable[[], bool]) -> bool:
    """Whether `asked` is true on any process, or one was told to end: the same on all."""
    if size() == 1:
        return asked()
    flag = torch.tensor(int(heeding(asked)()))
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def heeding(stop: Callable[[], bool]) -> Callable[[], bool]:
    """`stop`, on this process alone, or that it was told to end."""
    return lambda: stop() or ending.told.is_set()


def told(compute: Callable[[], Any]) -> Any:
    """What rank 0 computes, something that JSON can say, on every rank; the others wait."""
    if size() == 1:
        return compute()
    text = json.dumps(compute()).encode() if rank() == 0 else b""
    with noticing("between two stages"):
        length = torch.tensor(len(text))
        dist.broadcast(length, 0)
        letters = torch.zeros(int(length), dtype=torch.uint8)
        if text:
            letters.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        dist.broadcast(letters, 0)
    return json.loads(bytes(letters.tolist()))


@contextmanager
def in_turn() -> Iterator[None]:
    """Within the block rank 0 comes first: it mends what the others then read."""
    if rank():
        told(lambda: None)
    yield
    if not rank():
        told(lambda: None)
