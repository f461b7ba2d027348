"""A run as a value: what to do, how far it is, and what it left behind. Does nothing itself."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lorakit.adapter_file import adapter_bytes
from lorakit.checkpoint import MINI
from lorakit.counts import Count, count
from lorakit.files import read_json, settle
from lorakit.history import History
from lorakit.lora import ALL_LINEAR, LoRAConfig
from lorakit.memory import DEVICES, Setup, StepMemory
from lorakit.model import Llama, ModelConfig
from lorakit.scoring import Score
from lorakit.spectrum import Spectrum
from lorakit.step import TrainConfig
from lorakit.text import Example, Tokenizer

# A small B A needs larger steps than a large W, and a small model larger ones than a large model.
LEARNING_RATES = {"lora": 1e-3, "qlora": 1e-3, "full": 5e-5}
MINI_LEARNING_RATES = {"lora": 5e-3, "qlora": 5e-3, "full": 5e-4}
RATES = ", ".join(
    f"{lr:g} for {method} ({MINI_LEARNING_RATES[method]:g} on {MINI})"
    for method, lr in LEARNING_RATES.items()
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What to do. `lr` None takes the method's own; `heldout` is how many examples judge.

    The seed decides the adapter's start, the order of the examples, and, with `sample`, which of
    the training examples there are.

    The method decides three things here: what trains, whether the base is quantised to 4 bits, and
    in which precision a GPU holds it.
    """

    base: str = "smollm2"
    task: str = "orders"
    method: str = "lora"
    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] | str = ALL_LINEAR
    lr: float | None = None
    batch_size: int = 4
    steps: int = 40
    heldout: int = 100
    answers: int = 3
    seed: int = 0
    sample: int | None = None
    accumulation: int = 1  # micro-batches of `batch_size` a step
    gradient_checkpointing: bool = False
    fast: bool = True  # adapters by fast.py where they can be; lora.py's are the reference

    def __post_init__(self):
        if self.method not in LEARNING_RATES:
            methods = ", ".join(f'"{method}"' for method in LEARNING_RATES)
            raise ValueError(f"method must be one of {methods}, got {self.method!r}")
        for name, least in {"batch_size": 1, "heldout": 1, "answers": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.sample is not None and self.sample < 1:
            raise ValueError(f"sample must be at least 1, or None for all, got {self.sample}")
        _ = self.lora, self.train_config("cpu")  # they check the rest

    def with_method(self, method: str) -> "Run":
        """The same run by another method; a learning rate is its method's own."""
        return replace(self, method=method, lr=self.lr if method == self.method else None)

    def drawn(self, examples: Sequence[Example]) -> tuple[Example, ...]:
        """The training examples of this run: all, or `sample` of them.

        Raises ValueError if there are fewer.
        """
        if self.sample is None:
            return tuple(examples)
        if self.sample > len(examples):
            raise ValueError(f"sample={self.sample}: the task has {len(examples)} to train on")
        return tuple(random.Random(self.seed).sample(examples, self.sample))

    @property
    def lora(self) -> LoRAConfig | None:
        if self.method == "full":
            return None
        return LoRAConfig(rank=self.rank, alpha=self.alpha, targets=self.targets)

    @property
    def quantized(self) -> bool:
        """Whether the adapters train over a base in 4 bits."""
        return self.method == "qlora"

    @property
    def learning_rate(self) -> float:
        rates = MINI_LEARNING_RATES if self.base == MINI else LEARNING_RATES
        return rates[self.method] if self.lr is None else self.lr

    def train_config(self, device: str) -> TrainConfig:
        """How to train on a device of type `device`."""
        return TrainConfig(
            steps=self.steps,
            lr=self.learning_rate,
            # Weights that train stay in float32, where a small update is not rounded away; on a
            # GPU they are rounded for the products alone.
            autocast=device == "cuda" and self.method == "full",
            accumulation=self.accumulation,
            gradient_checkpointing=self.gradient_checkpointing,
            fast=self.fast,
            seed=self.seed,
        )

    def dtype(self, device: str) -> torch.dtype:
        """What the base's weights are held in: a GPU holds a frozen base in bfloat16."""
        return torch.bfloat16 if device == "cuda" and self.lora else torch.float32

    def setup(self, model: ModelConfig, length: int, device: str) -> Setup:
        """A training step of this run on `length` tokens a row, for `memory.estimate`.

        A device that estimates do not know is taken for a CPU.
        """
        kind = device if device in DEVICES else "cpu"
        return Setup(
            model=model,
            lora=self.lora,
            quantized=self.quantized,
            batch_size=self.batch_size,
            length=length,
            config=self.train_config(device),
            dtype=str(self.dtype(device)).removeprefix("torch."),
            device=kind,
        )


def disk_bytes(model: ModelConfig, lora: LoRAConfig | None, quantized: str | None = None) -> int:
    """Bytes that one variant takes on disk: its adapter, or every weight again in float32.

    An adapter's file names the form that its base is `quantized` in, if it is.
    """
    return 4 * count(model).total if lora is None else adapter_bytes(model, lora, quantized)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands: `done` of `total` in this stage, and what training has shown so far."""

    stage: str
    done: int = 0
    total: int = 1
    seconds_left: float | None = None
    losses: tuple[float, ...] = ()
    memory: StepMemory | None = None  # of the last step that was followed
    followed: int = 0  # its number


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A held-out question, what should come, what the base says, and the tuned model, if asked."""

    prompt: str
    expected: str
    base: str
    tuned: str | None = None


@dataclass(kw_only=True)
class Result:
    """What a run left behind; `after` is None if it was stopped before it could be judged."""

    run: Run
    device: str
    model: Llama
    tokenizer: Tokenizer
    parameters: Count
    disk: int  # bytes, see `disk_bytes`
    history: History
    memory: StepMemory | None  # of the step with the highest peak among those followed
    before: Score
    after: Score | None = None
    answers: list[Answer] = field(default_factory=list)
    spectra: list[Spectrum] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Everything but the weights and the history, which have files of their own."""
        return {
            "run": asdict(self.run),
            "device": self.device,
            "torch": torch.__version__,
            "before": asdict(self.before),
            "after": asdict(self.after) if self.after else None,
            "parameters": asdict(self.parameters),
            "disk": self.disk,
            "memory": self.memory.to_json() if self.memory else None,
            "seconds": self.history.seconds,
            "notes": self.history.notes,
            "answers": [asdict(answer) for answer in self.answers],
        }


def stopped_run(folder: Path | str) -> tuple[Run, Score, list[Answer]]:
    """What a stopped run's folder says: the run, the base's score and the base's answers.

    Raises ValueError if there is nothing to resume.
    """
    folder = Path(folder)
    settle(folder / "checkpoint")
    if not (folder / "checkpoint").is_dir() or not (folder / "result.json").is_file():
        raise ValueError(f"{folder} holds no stopped run: there is no checkpoint to resume")
    saved = read_json(folder / "result.json")
    if not isinstance(saved["run"]["targets"], str):
        saved["run"]["targets"] = tuple(saved["run"]["targets"])
    answers = [Answer(**answer) for answer in saved["answers"]]
    return Run(**saved["run"]), Score(**saved["before"]), answers
