"""Running out of memory without losing anything but the run.

    copy what trains to the host -> train -> on failure: say what was alive, let go, copy back

What failed goes with its frames, which would keep its tensors alive, and with its gradients and
optimizer state. On a GPU the device itself says that it is full. On a CPU the operating system
kills without a word, so there a budget takes its place.
"""

import gc
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn

from lorakit.history import StepRecord
from lorakit.memory import (
    Fit,
    MemoryBreakdown,
    Recorder,
    Setup,
    changes_to_fit,
    estimate,
    largest_batch,
)
from lorakit.memory.estimation import CONTEXT, estimate_within
from lorakit.memory.tracker import weights
from lorakit.train import Training

P = ParamSpec("P")
T = TypeVar("T")

SIGNS = (  # a GPU, its libraries, a CPU
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "can't allocate memory",
    "not enough memory",
)


class OutOfMemory(RuntimeError):
    """A run that needed more memory than there is; its model is as it was before the run.

    `step` is the one that failed, 0 if none was begun. `held` is what was alive at that moment, or
    at the peak of the last step that was followed, or is the estimate if there was none (`source`
    says which); `left` what of it is alive now, if known. `copied` bytes on the host kept the
    values of what trains. `fit` is the largest batch for this budget.
    """

    def __init__(
        self,
        *,
        step: int,
        budget: int,
        held: MemoryBreakdown,
        source: str,
        fit: Fit,
        advice: str,
        left: MemoryBreakdown | None = None,
        copied: int = 0,
    ):
        self.step, self.budget, self.held, self.source = step, budget, held, source
        self.fit, self.advice, self.left, self.copied = fit, advice, left, copied
        when = f"in step {step}" if step else "before the first step"
        super().__init__(
            f"out of memory {when}: {held.total / 1e6:,.0f} MB of {budget / 1e6:,.0f} MB "
            f"({source}); {advice}"
        )

    def __reduce__(self):
        return partial(OutOfMemory, **vars(self)), ()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is any of the names that PyTorch and Python have for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def there(model: nn.Module) -> int:
    """Bytes that a run may take here, with those that its model holds already."""
    device = next(model.parameters()).device
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in weights(model)}
    held = sum(storage.nbytes() for storage in storages.values())
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        share = int(torch.cuda.get_per_process_memory_fraction(device) * total)
        others = torch.cuda.memory_allocated(device) - held
        return min(free + torch.cuda.memory_reserved(device), share) - others + CONTEXT
    import psutil

    return psutil.virtual_memory().available + held


def check_budget(setup: Setup, budget: int) -> None:
    """Raise OutOfMemory if a step of this kind is estimated to need more than `budget` bytes."""
    if estimate_within(budget, setup) is None:
        held = estimate(setup)
        raise OutOfMemory(
            step=0,
            budget=budget,
            held=held.peak,
            source=held.source,
            **_way_out(setup, budget),
        )


def lets_go(run: Callable[P, T]) -> Callable[P, T]:
    """Decorate what may raise OutOfMemory: the error leaves without the frames it came through."""

    @wraps(run)
    def call(*args: P.args, **options: P.kwargs) -> T:
        try:
            return run(*args, **options)
        except OutOfMemory as error:
            _forget(error)
            failure = error
        try:
            raise failure
        finally:  # this frame goes with the error
            del failure, args, options

    return call


@lets_go
def survive(
    training: Training,
    setup: Setup,
    *,
    budget: int | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[StepRecord, Recorder], None] = lambda record, recorder: None,
) -> Recorder:
    """`training.run`, which a lack of memory ends with OutOfMemory instead of a kernel's death.

    `setup` is a step of it, for the advice. On a CPU a followed step may hold `budget` bytes, by
    default what there is. After a failure the model is as before, and the training is spent: its
    history tells how far it came.
    """
    budget = there(training.model) if budget is None else budget
    changing = {**training.parameters, **dict(training.model.named_buffers())}
    kept = {name: t.detach().to("cpu", copy=True) for name, t in changing.items()}
    limit = budget if setup.device == "cpu" else None
    recorder = Recorder(training.model, training.optimizer, limit, first=training.position)
    try:
        training.run(stop=stop, on_step=lambda record: on_step(record, recorder), phase=recorder)
        return recorder
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        _forget(error)
    _let_go(training)
    with torch.no_grad():
        for name, tensor in changing.items():
            tensor.copy_(kept[name])
    held, source = recorder.failed, "alive when it failed"
    if held is None and recorder.latest is not None:
        held, source = recorder.latest.peak, f"at the peak of step {recorder.step}"
    if held is None:
        told = estimate(setup)
        held, source = told.peak, told.source
    raise OutOfMemory(
        step=training.position + 1,
        budget=budget,
        held=held,
        source=source,
        left=recorder.left() if recorder.left else None,
        copied=sum(t.nbytes for t in kept.values()),
        **_way_out(setup, budget),
    )


def _way_out(setup: Setup, budget: int) -> dict[str, Any]:
    """The largest batch, and in words what to change."""
    fit = largest_batch(budget, setup)
    if estimate_within(budget, setup) is not None:
        advice = "by the estimate it fits: does something else use this memory?"
        return {"fit": fit, "advice": advice}
    rows = f"{fit.batch_size} rows" if fit.batch_size else "not even one row"
    changes = changes_to_fit(budget, setup)
    steps = [f"{change.what} (saves {change.saves / 1e6:,.0f} MB)" for change in changes]
    if not (changes and changes[-1].fits):
        steps.append("a smaller model, shorter texts or another device")
    return {"fit": fit, "advice": f"{rows} would fit; else {', then '.join(steps)}"}


def _let_go(training: Training) -> None:
    """Give back all but the model."""
    training.optimizer.state.clear()  # a step that fails has let go of its gradients itself
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _forget(error: BaseException | None) -> None:
    """Part an error, and those that led to it, from their frames: they hold a step's tensors."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
