"""The exercise on files: an adapter there and back."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from lorakit.checks.difference import times
from lorakit.checks.exercise import Exercise, Facet, Mistake
from lorakit.lora import LoRAConfig, LoRALinear


def trained(base: nn.Linear) -> LoRALinear:
    """An adapter with a rank and an alpha that are nobody's defaults, and a B that is not zero."""
    layer = LoRALinear(base, LoRAConfig(rank=2, alpha=6.0))
    nn.init.normal_(layer.B)
    return layer


def _round_trip(
    save: Callable[[LoRALinear, Path], None], load: Callable[[nn.Linear, Path], LoRALinear]
) -> Iterator[Facet]:
    base, x = nn.Linear(64, 48), torch.randn(3, 64)
    layer, weight = trained(base), base.weight.detach().clone()
    fresh = nn.Linear(64, 48)
    fresh.load_state_dict(base.state_dict())
    with TemporaryDirectory() as folder:
        save(layer, Path(folder))
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        yield "there are files", bool(files)
        starts = [path.read_bytes()[:2] for path in files]
        # A zip, as torch.save makes it, or a bare pickle.
        yield (
            "a file may run code when opened",
            any(s in (b"PK", b"\x80\x04", b"\x80\x02") for s in starts),
        )
        held = sum(path.stat().st_size for path in files)
        yield "the base is in the files", held > weight.nbytes
        loaded: Any = load(fresh, Path(folder))
    with torch.no_grad():
        yield (
            "the loaded delta, beside the saved one",
            times(loaded(x) - base(x), layer(x) - base(x)),
        )
    yield (
        "A and B are the same bits",
        torch.equal(loaded.A, layer.A) and torch.equal(loaded.B, layer.B),
    )
    yield "the base is as it was", torch.equal(base.weight, weight)


check_save_load = Exercise(
    key="save-load",
    page="06",
    prompt="""\
### Exercise: there and back

Write one layer's adapter into `folder`, and read it back onto a fresh copy of its base. No pickle
(`save_file` and `load_file` are safetensors'; JSON for the rest), no base weights, and nothing
lost: the loaded layer computes what the saved one did.""",
    imports=(
        "import json\nfrom pathlib import Path\n\nimport lorakit as lk\nfrom torch import nn\n"
        "from safetensors.torch import load_file, save_file"
    ),
    starter="""\
def save(layer: lk.LoRALinear, folder: Path) -> None: ...


def load(base: nn.Linear, folder: Path) -> lk.LoRALinear:
    return ...""",
    solution="""\
def save(layer: lk.LoRALinear, folder: Path) -> None:
    tensors = {"A": layer.A.detach(), "B": layer.B.detach()}
    save_file(tensors, folder / "adapter.safetensors")
    config = {"rank": layer.config.rank, "alpha": layer.config.alpha}
    (folder / "config.json").write_text(json.dumps(config))


def load(base: nn.Linear, folder: Path) -> lk.LoRALinear:
    config = json.loads((folder / "config.json").read_text())
    layer = lk.LoRALinear(base, lk.LoRAConfig(**config))
    layer.load_state_dict(load_file(folder / "adapter.safetensors"), strict=False)
    return layer""",
    answers=("save", "load"),
    observe=_round_trip,
    first='Save `layer.A.detach()` with `save_file({"A": ...}, folder / "adapter.safetensors")`',
    hints=(
        "with A and B alone, can `load` know by what to multiply them?",
        "`lk.LoRALinear(base, config)` starts with an A and a B of its own. How do the saved ones "
        "get there?",
    ),
    example="",
    right="A few bytes, nothing that runs, and the same layer",
    mistakes=(
        Mistake(
            "a pickle",
            "What may happen to somebody who opens your file, and did not write it?",
            {
                'save_file(tensors, folder / "adapter.safetensors")': (
                    '__import__("torch").save(tensors, folder / "adapter.pt")'
                ),
                'load_file(folder / "adapter.safetensors")': (
                    '__import__("torch").load(folder / "adapter.pt")'
                ),
            },
        ),
        Mistake(
            "base saved too",
            "Your files are larger than the base. Which of the layer's tensors are in its "
            "`state_dict()`?",
            {'{"A": layer.A.detach(), "B": layer.B.detach()}': "layer.state_dict()"},
        ),
        Mistake(
            "alpha lost",
            "A and B came back, and the delta has another size. What multiplies B A, and who told "
            "`load`?",
            {', "alpha": layer.config.alpha': ""},
        ),
        Mistake(
            "B did not come back",
            "The loaded layer computes what its base does, as a fresh one would. On which way did "
            "B get lost?",
            {', "B": layer.B.detach()': ""},
        ),
        Mistake(
            "A did not come back",
            "B came back, and the delta has another direction. Does a fresh A have the same "
            "numbers twice?",
            {'"A": layer.A.detach(), ': ""},
        ),
        Mistake(
            "rounded to half precision",
            "The outputs are near, the bits are not the same. In which type were A and B trained, "
            "and in which are they stored?",
            {
                "layer.A.detach()": "layer.A.detach().half()",
                "layer.B.detach()": "layer.B.detach().half()",
            },
        ),
    ),
)
