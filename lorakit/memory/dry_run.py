"""The real step on tensors that have a shape and no memory."""

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from lorakit.fast import as_for
from lorakit.lora import LoRAConfig, inject
from lorakit.memory.scribe import BackwardDone, Log, Scribe
from lorakit.memory.tracker import state, weights
from lorakit.model import Attention, Llama, ModelConfig
from lorakit.norm import RMSNorm
from lorakit.qlora import quantize_
from lorakit.step import TrainConfig, make_optimizer, prepare, step


def dry_run(
    model: ModelConfig,
    lora: LoRAConfig | None,
    *,
    batch_size: int,
    length: int,
    config: TrainConfig,
    dtype: torch.dtype,
    device: str,
    target: str,
    tokens: int,
    quantized: bool = False,
    whole: bool = True,
) -> Log:
    """Build the model, take a step, and the optimizer's part of a second one.

    A quantised base is there at once, as it comes to a device: its plain weights never were.
    `device` is where the tensors claim to be, `target` the device that they stand for. Here a
    model has as many layers as its config says. Without `whole` the optimizer is left out. The step
    may be a small one in place of one of so many `tokens` a micro-batch.
    """
    half = dtype in (torch.bfloat16, torch.float16)
    with FakeTensorMode():
        scribe = Scribe(device, target, whole)
        ready = _quantized(model, dtype, device) if quantized else None
        with scribe:
            net = _arrive(ready, scribe) if ready else _build(model, dtype, device)
            if lora is not None:
                inject(net, lora)
            prepare(net, config)
            as_for(net, tokens, target)
            if device != target:
                for module in net.modules():
                    if isinstance(module, Attention):
                        module.shared = target == "cuda" and (half or config.autocast)
                    elif isinstance(module, RMSNorm):
                        module.fused = target == "cuda"
            optimizer = make_optimizer(net, config)
            scribe.watch(net, optimizer)
            for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
                scribe.name(tensor, name, "weight")
            for tensor in weights(net):
                scribe.see(tensor, "weights")
            scribe.phase = "batch"
            batches = [_batch(batch_size, length, device) for _ in range(config.accumulation)]
            try:
                step(net, optimizer, batches, config, phase=scribe)
            except BackwardDone:
                scribe.close()
                return scribe.log()
            scribe.phase = "again"
            for name, parameter in net.named_parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.zeros_like(parameter)
                    scribe.name(parameter.grad, name, "gradient")
                    scribe.see(parameter.grad, "gradients")
            with scribe("optimizer"):
                scribe.phase = "optimizer again"
                parameters = optimizer.param_groups[0]["params"]
                norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if device == "cpu" and target != "cpu" and config.implementation != "fused":
                scribe.forget([tensor for key, tensor in state(optimizer) if key == "step"])
            del norm, batches
        scribe.close()
    return scribe.log()


def _batch(batch_size: int, length: int, device: str) -> tuple[Tensor, Tensor]:
    def zeros() -> Tensor:
        return torch.zeros(batch_size, length, dtype=torch.long, device=device)

    return zeros(), zeros()


class _Made(TorchFunctionMode):
    """Weights are made in this precision, in this thread alone."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.empty, torch.ones) and kwargs.get("dtype") is None:
            kwargs["dtype"] = self.dtype
        return func(*args, **kwargs)


def _build(model: ModelConfig, dtype: torch.dtype, device: str) -> Llama:
    with torch.device(device), _Made(dtype):
        net = Llama(model)
    # Nothing is drawn here; what another thread draws is not to be drawn again.
    net.checkpointing["preserve_rng_state"] = False
    return net


def _quantized(model: ModelConfig, dtype: torch.dtype, device: str) -> Llama:
    net = _build(model, dtype, device)
    quantize_(net)
    return net


def _arrive(net: Llama, scribe: Scribe) -> Llama:
    """Let the scribe see every tensor, in the order in which `net.to(device)` makes them there."""

    def see(module: nn.Module) -> None:
        for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            scribe.see(tensor, "weights")

    return net.apply(see)
