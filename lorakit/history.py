"""What a training run leaves to read: one record a step, and what it had to say."""

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What one step did. `loss` is the mean over response tokens; `tokens` counts padding too."""

    step: int
    loss: float
    lr: float
    grad_norm: float  # before clipping
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


@dataclass
class History:
    """Every step so far, and what the run has to say about itself."""

    steps: list[StepRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        return [record.loss for record in self.steps]

    @property
    def seconds(self) -> float:
        return sum(record.seconds for record in self.steps)

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict) -> "History":
        return cls([StepRecord(**record) for record in value["steps"]], list(value["notes"]))
