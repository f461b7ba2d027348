"""Options that more than one command has."""

from typing import Annotated

from typer import Option

from lorakit.checkpoint import BASES
from lorakit.lora import ALL_LINEAR
from lorakit.presets import PRESETS
from lorakit.run import LEARNING_RATES

ADAPTER = "An adapter's folder, such as runs/orders-lora/adapter."
Base = Annotated[str, Option(help=f"{BASES}.")]
Shape = Annotated[str, Option(help=f"A preset ({', '.join(PRESETS)}), or a base as elsewhere.")]
Method = Annotated[str, Option(help=" or ".join(LEARNING_RATES) + ".")]
Rank = Annotated[int, Option(help="Rows of A, columns of B.")]
Targets = Annotated[str, Option(help="Layers to adapt, such as q_proj,v_proj.")]
BatchSize = Annotated[int, Option(help="Examples at once: a micro-batch.")]
Accumulation = Annotated[int, Option(help="Micro-batches a step.")]
Checkpointing = Annotated[
    bool,
    Option("--gradient-checkpointing", help="Keep each layer's input, compute the rest again."),
]
Json = Annotated[bool, Option("--json", help="Print JSON instead of tables.")]


def parse_targets(targets: str) -> tuple[str, ...] | str:
    return targets if targets == ALL_LINEAR else tuple(t.strip() for t in targets.split(","))
