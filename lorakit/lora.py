"""LoRA from scratch: a frozen linear layer plus a trainable low-rank correction.

    y = W x + scale * B A x        W frozen, A (rank, in), B (out, rank) trained
    scale = alpha / rank           or alpha / sqrt(rank), rank-stabilised LoRA

LoRA: arXiv 2106.09685, section 4.1. Works on any nn.Module; knows nothing of our model, of
training, of files or of widgets.
"""

import difflib
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorakit.fingerprint import remember_file
from lorakit.lora_config import ALL_LINEAR, LoRAConfig, matches


class LoRALinear(nn.Module):
    """A frozen `base` layer with a trainable correction `scale * B @ A` beside it.

    `config` is this layer's own. It starts afresh, A drawn and B zero, or from `factors`, A and B,
    which become its own. `original` is its one state: None, or, while merged, the weight as it was
    before.
    """

    original: Tensor | None

    def __init__(
        self,
        base: nn.Linear,
        config: LoRAConfig,
        generator: torch.Generator | None = None,
        factors: tuple[Tensor, Tensor] | None = None,
    ):
        super().__init__()
        self.base = base
        freeze(base)
        self.config = config
        self.enabled = True
        W = base.weight
        # Full precision over a base of any: half precision would swallow small updates.
        dtype = torch.promote_types(W.dtype, torch.float32)
        if factors is None:
            A = W.new_empty(config.rank, base.in_features, dtype=dtype)
            # nn.Linear's own: the scale of A x depends on in_features (fan-in), never on rank.
            nn.init.kaiming_uniform_(A, a=math.sqrt(5), generator=generator)
            B = W.new_zeros(base.out_features, config.rank, dtype=dtype)
        else:
            A, B = (factor.to(W.device, dtype) for factor in factors)
        self.A, self.B = nn.Parameter(A), nn.Parameter(B)
        self.register_buffer("original", None, persistent=False)

    @property
    def merged(self) -> bool:
        return self.original is not None

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if self.merged or not self.enabled:
            return y
        x = F.dropout(x, self.config.dropout, self.training)
        # Two thin products; B @ A, as large as W, is never formed.
        h = F.linear(x, self.A.to(x.dtype))
        return y + self.config.scale * F.linear(h, self.B.to(x.dtype))

    @torch.no_grad()
    def delta(self) -> Tensor:
        """The correction as one matrix (out, in), in the adapter's own precision."""
        return self.config.scale * (self.B @ self.A)

    @torch.no_grad()
    def merged_weight(self, dtype: torch.dtype | None = None) -> Tensor:
        """W + delta, added in the wider precision and rounded once to W's own, or to `dtype`.

        To `dtype` W is rounded before, as in a base of that precision.
        """
        W = self.base.weight if dtype is None else self.base.weight.to(dtype)
        wide = torch.promote_types(W.dtype, self.A.dtype)
        B, A = self.B.to(wide), self.A.to(wide)
        return torch.addmm(W.to(wide), B, A, alpha=self.config.scale).to(W.dtype)

    def extra_repr(self) -> str:
        state = "merged" if self.merged else "enabled" if self.enabled else "disabled"
        return f"rank={self.config.rank}, scale={self.config.scale:g}, {state}"


def freeze(model: nn.Module) -> None:
    """Stop training every weight, and drop old gradients: they would go on taking memory."""
    for p in model.parameters():
        p.requires_grad_(False)
        p.grad = None


def unfreeze(model: nn.Module) -> None:
    """Let every weight train again, full fine-tuning: soon they are no longer their file's."""
    for p in model.parameters():
        p.requires_grad_(True)
    remember_file(model, None)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def lora_layers(model: nn.Module) -> list[tuple[str, LoRALinear]]:
    """The adapted layers and their paths, in the model's order."""
    return [(name, m) for name, m in model.named_modules() if isinstance(m, LoRALinear)]


def target_layers(model: nn.Module, targets: tuple[str, ...] | str) -> dict[str, nn.Linear]:
    """The linear layers that `targets` name, by path; nothing is changed.

    Raises ValueError for a target that matches no linear layer (with the nearest names), or that
    names a layer whose weight another module shares.
    """
    modules = dict(model.named_modules())
    linear = {name: m for name, m in modules.items() if isinstance(m, nn.Linear)}
    tied = _tied(modules)
    if targets == ALL_LINEAR:
        head = getattr(model, "get_output_embeddings", lambda: None)()
        layers = {name: m for name, m in linear.items() if m is not head and name not in tied}
        if not layers:
            raise ValueError('"all-linear" matches nothing: the model has no linear layer')
        return layers
    chosen: set[str] = set()
    for target in targets:
        matches = [name for name in linear if f".{name}".endswith(f".{target}")]
        if not matches:
            raise ValueError(_no_match(model, linear, target))
        for name in matches:
            if name in tied:
                raise ValueError(
                    f"{name} shares its weight with {tied[name]} (tied), so a change to one would "
                    f"change the other: leave {target!r} out of targets, or untie(model) first"
                )
        chosen.update(matches)
    return {name: m for name, m in linear.items() if name in chosen}


def _tied(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """The modules that share a parameter with another one, by path, and that other's path."""
    holders: dict[int, list[str]] = {}
    for name, module in modules.items():
        for p in module._parameters.values():  # its own alone, those of its children are theirs
            if p is not None:
                holders.setdefault(id(p), []).append(name)
    shared = [names for names in holders.values() if len(names) > 1]
    return {name: names[names[0] == name] for names in shared for name in names}


def _no_match(model: nn.Module, linear: dict[str, nn.Linear], target: str) -> str:
    for name, module in model.named_modules():
        if name and f".{name}".endswith(f".{target}"):
            kind = type(module).__name__
            return f"target {target!r} is a {kind}, not a linear layer: LoRA here adapts nn.Linear"
    last_names = dict.fromkeys(name.rpartition(".")[2] for name in linear)
    near = difflib.get_close_matches(target, [*last_names, *linear], n=3, cutoff=0.5)
    hint = f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(last_names)}"
    return f"target {target!r} matches no linear layer of the model; {hint}"


def inject(
    model: nn.Module,
    config: LoRAConfig,
    *,
    generator: torch.Generator | None = None,
    factors: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> list[str]:
    """Freeze `model`, give every targeted linear layer an adapter, and return the layers' paths.

    The same call again changes no value. Raises ValueError, the model untouched, if it carries
    adapters of another config or a target matches nothing. `generator` draws the A matrices;
    `factors`, by path, are A (rank, in) and B (out, rank) to start from instead, copied.
    """
    if present := lora_layers(model):
        other = next((layer.config for n, layer in present if layer.config != config.at(n)), None)
        if other is None:
            adapters = {id(p) for _, layer in present for p in (layer.A, layer.B)}
            for p in model.parameters():
                p.requires_grad_(id(p) in adapters)
            return [name for name, _ in present]
        raise ValueError(
            f"model already has {len(present)} adapters of {other}, asked for {config}: "
            "merge_and_unload(model) folds them in, remove(model) takes them off"
        )
    layers = target_layers(model, config.targets)
    copies = factors and {name: (A.clone(), B.clone()) for name, (A, B) in factors.items()}
    return adapt(model, layers, config, generator, copies)


def adapt(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    config: LoRAConfig,
    generator: torch.Generator | None = None,
    factors: Mapping[str, tuple[Tensor, Tensor]] | None = None,
) -> list[str]:
    """The change that `inject` makes, to a model without adapters whose target layers are known.

    `factors` become the layers' own, uncopied.
    Raises ValueError, the model untouched, for a pattern that matches none of `layers`.
    """
    for pattern, _ in (*config.rank_pattern, *config.alpha_pattern):
        if not any(matches(pattern, name) for name in layers):
            raise ValueError(
                f"the pattern {pattern!r} of rank or alpha matches none of the {len(layers)} "
                f"targeted layers (first: {next(iter(layers))})"
            )
    freeze(model)
    adapted = {}
    for name, layer in layers.items():
        start = None if factors is None else factors[name]
        adapted[name] = LoRALinear(layer, config.at(name), generator, start)
    put(model, adapted)
    return list(layers)


def put(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Make each of `layers` stand at its path, in place of what stands there."""
    modules = dict(model.named_modules())
    for path, layer in layers.items():
        parent, _, name = path.rpartition(".")
        setattr(modules[parent], name, layer)
