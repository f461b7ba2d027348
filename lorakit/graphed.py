"""Steps as CUDA graphs: forward, loss, backward, clipping and optimizer in one launch.

    a shape seen first      the step is done, kernel by kernel, and then recorded
    and from then on        the batch is copied in, and the recording launched

At a student's sizes a step's kernels are so small that launching them takes longer than they do. A
recording holds no Python and waits for nothing, so what differs from step to step is a tensor: the
batch, the learning rate, and whether a number was not finite, after which no weight moves any more.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lorakit.capture import RECORDING, aside, recording
from lorakit.lora import LoRALinear
from lorakit.step import TrainConfig, response_loss, step

MOST = 64  # steps between two reads


def obstacle_to_recording(model: nn.Module, config: TrainConfig) -> str | None:
    """Why a training's steps are not recorded, in words; None if they can be."""
    device = next(p for p in model.parameters() if p.requires_grad).device
    if not config.capture:
        return "the run asks for none"
    if device.type != "cuda":
        return f"only a GPU's kernels can be, this runs on {device.type}"
    if config.implementation not in ("auto", "fused"):
        return f"the {config.implementation} optimizer waits for the GPU"
    if config.gradient_checkpointing:
        return "gradient checkpointing looks at the state of random numbers"
    for name, module in model.named_modules():
        dropout = module.config.dropout if isinstance(module, LoRALinear) else 0
        if dropout or (isinstance(module, nn.Dropout) and module.p):
            return "dropout draws anew in each step"
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        if any(hooks):
            return f"{name or 'the model'} has a hook, which is Python"
    return None


class Unrecorded(RuntimeError):
    """A step could not be recorded. Whether it was done, kernel by kernel, `read` tells."""


class Graphs:
    """Recordings of steps by the shapes of their batches, on the GPU that the parameters are on.

    `loss` may be a compiled `response_loss`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        loss: Callable[[Tensor, Tensor], Tensor] = response_loss,
    ):
        self.model, self.optimizer, self.config, self.loss = model, optimizer, config, loss
        self.device = optimizer.param_groups[0]["params"][0].device
        self.lr = torch.zeros((), device=self.device)
        self.bad = torch.zeros((), device=self.device)  # 1 from the first number not finite on
        self._log = torch.zeros(MOST, 2, device=self.device)
        self._count = torch.zeros(1, dtype=torch.int64, device=self.device)
        self._stream, self._pool = aside(self.device), torch.cuda.graph_pool_handle()
        self._recorded: dict[tuple, tuple[torch.cuda.CUDAGraph, list[Tensor]]] = {}

    @property
    def shapes(self) -> int:
        """How many recordings there are."""
        return len(self._recorded)

    def forget(self) -> None:
        """Drop every recording: what was recorded is to be done otherwise."""
        self._recorded.clear()

    def step(self, micro_batches: Sequence[tuple[Tensor, Tensor]], lr: float) -> None:
        """Set a step off, without waiting for it; at most `MOST` between two reads.

        Raises Unrecorded if a step of these shapes cannot be recorded.
        """
        given = [tensor for pair in micro_batches for tensor in pair]
        shapes = tuple(tensor.shape for tensor in given)
        self.lr.fill_(lr)
        if shapes not in self._recorded:
            self._record(shapes, given)
            return
        graph, held = self._recorded[shapes]
        for place, tensor in zip(held, given, strict=True):
            place.copy_(tensor, non_blocking=True)
        graph.replay()

    def read(self) -> list[tuple[float, float]]:
        """Loss and gradient norm of each step since the last time; waits for them."""
        *rows, (count, _) = torch.cat([self._log, self._count.expand(1, 2)]).tolist()
        self._count.zero_()
        return [(loss, norm) for loss, norm in rows[: int(count)]]

    def _record(self, shapes: tuple, given: Sequence[Tensor]) -> None:
        held = [tensor.to(self.device, copy=True) for tensor in given]
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        done = False
        with RECORDING, torch.cuda.device(self.device):
            here = torch.cuda.current_stream()
            self._stream.wait_stream(here)
            try:
                with torch.cuda.stream(self._stream):
                    self._work(held)
                here.wait_stream(self._stream)
                done = True
                graph = torch.cuda.CUDAGraph()
                with recording(graph, self._stream, self._pool):
                    self._work(held)
            except RuntimeError as error:
                # A recording keeps memory of its own, beside a step's; and not all can be recorded.
                if not done and not isinstance(error, torch.OutOfMemoryError):
                    raise
                reason = str(error).splitlines()[0]
            else:
                self._recorded[shapes] = graph, held
                return
        raise Unrecorded(reason)

    def _work(self, held: Sequence[Tensor]) -> None:
        def check(loss: Tensor, grad_norm: Tensor) -> None:
            self.bad.copy_((self.bad > 0) | ~(loss + grad_norm).isfinite())

        pairs = list(zip(held[::2], held[1::2], strict=True))
        try:
            parts = self.model, self.optimizer, pairs, self.config
            found = step(*parts, check=check, loss=self.loss)
        finally:
            self.optimizer.zero_grad(set_to_none=True)  # also what an error left half made
        self._log.index_copy_(0, self._count, torch.stack([x.float() for x in found])[None])
        self._count += 1

    @contextmanager
    def taking_over(self) -> Iterator[None]:
        """Within the block the optimizer finds its learning rate and its step on the GPU.

        It is fused: those kernels leave everything as it is once a number was not finite.
        """
        groups, states = self.optimizer.param_groups, self.optimizer.state.values()
        before = [dict(group) for group in groups]
        places = [(state, state["step"].device) for state in states if "step" in state]
        fields = {"fused": True, "foreach": False, "lr": self.lr}
        if "capturable" in groups[0]:
            fields["capturable"] = True
        try:
            for group in groups:
                group.update(fields)
            for state, _ in places:
                state["step"] = state["step"].to(self.device)
            vars(self.optimizer)["found_inf"] = self.bad
            yield
        finally:
            vars(self.optimizer).pop("found_inf", None)
            for group, old in zip(groups, before, strict=True):
                group.update({name: old[name] for name in fields})
            for state, place in places:
                state["step"] = state["step"].to(place)
