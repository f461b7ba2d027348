"""What to adapt, and how: the one value that says it. Knows no layers and no tensors."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

ALL_LINEAR = "all-linear"  # every linear layer but the output head


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """What to adapt and how: `targets` are last names ("q_proj"), full paths, or "all-linear".

    The patterns give some layers a rank or alpha of their own, by the end of their path, as in
    {"v_proj": 4}: regular expressions, the first that matches counts, as in PEFT.
    """

    rank: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] | str = ALL_LINEAR
    dropout: float = 0.0
    use_rslora: bool = False  # scale = alpha / sqrt(rank), arXiv 2312.03732
    # Kept as pairs, in their order, so that a config can be hashed.
    rank_pattern: Mapping[str, int] | tuple[tuple[str, int], ...] = ()
    alpha_pattern: Mapping[str, float] | tuple[tuple[str, float], ...] = ()

    def __post_init__(self):
        for name, rule in {"rank": _check_rank, "alpha": _check_alpha}.items():
            rule(name, getattr(self, name))
            pattern = f"{name}_pattern"
            pairs = tuple(dict(getattr(self, pattern)).items())
            for key, value in pairs:
                rule(f"{pattern}[{key!r}]", value)
                try:
                    re.compile(key)
                except re.error as error:
                    raise ValueError(f"{pattern}: {key!r} is no pattern: {error}") from error
            object.__setattr__(self, pattern, pairs)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout!r}")
        if self.targets != ALL_LINEAR:
            names = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
            if not names:
                raise ValueError(f'targets is empty: name a layer, or "{ALL_LINEAR}"')
            object.__setattr__(self, "targets", names)

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.use_rslora else self.rank)

    def at(self, path: str) -> "LoRAConfig":
        """What holds for the layer at `path`: its own rank and alpha, and no patterns."""
        if not (self.rank_pattern or self.alpha_pattern):
            return self
        return replace(
            self,
            rank=_first_match(self.rank_pattern, path, self.rank),
            alpha=_first_match(self.alpha_pattern, path, self.alpha),
            rank_pattern=(),
            alpha_pattern=(),
        )


def _check_rank(name: str, value) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def _check_alpha(name: str, value) -> None:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a number above 0, got {value!r}")


def matches(pattern: str, path: str) -> bool:
    """Whether a regular expression names a layer: it matches the end of its path, whole names."""
    return re.match(rf"(.*\.)?({pattern})$", path) is not None


def _first_match(pairs, path: str, default):
    return next((value for pattern, value in pairs if matches(pattern, path)), default)
