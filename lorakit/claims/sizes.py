"""Claims about what LoRA saves: parameters, memory, disk. Counted, or measured on a GPU once."""

from lorakit.claims.evidence import Row, memory
from lorakit.claims.finding import Curves, Finding, Lines, decided, point
from lorakit.counts import count
from lorakit.lora import LoRAConfig
from lorakit.presets import PRESETS
from lorakit.run import disk_bytes

QV = LoRAConfig(rank=1, alpha=1.0, targets=("q_proj", "v_proj"))
BASES = ("mini", "smollm2-135m", "llama-3-8b", "llama-3-70b")


def parameters(base: str) -> Finding:
    config = PRESETS[base]
    found = count(config, QV)
    fewer = found.total / found.trainable
    shares = {name: count(PRESETS[name], LoRAConfig()).percent for name in BASES}
    return Finding(
        f"rank 1 on q and v: {found.trainable:,} of {found.total:,}, {fewer:,.0f} times fewer; "
        f"rank 8 on all linear layers: {count(config, LoRAConfig()).percent:.2g}%",
        decided(fewer >= 10_000, None),
        None,
        "counted",
        Curves(
            "base",
            "% of the parameters at rank 8",
            {"all linear layers": [point(name, [share]) for name, share in shares.items()]},
            (False, True),
        ),
    )


def vram(base: str) -> Finding:
    """Full fine-tuning's peak beside that of rank 4, AdamW in float32, 128 tokens a row."""

    def peak(model: str, method: str, batch: int) -> int:
        wanted: Row = {"model": model, "method": method, "batch_size": batch, "dtype": "float32"}
        wanted |= {"checkpointing": False, "implementation": "foreach", "autocast": False}
        (cell,) = [cell for cell in memory()["cells"] if wanted.items() <= cell.items()]
        return cell["measured"]["allocated"]

    def left(model: str, batch: int) -> float:
        return peak(model, "r4", batch) / peak(model, "full", batch)

    batches = (1, 8, 32)
    saved = 1 - left(base, 1)
    lines: Lines = {
        {"30m": "30M parameters"}.get(model, model): [
            point(batch, [left(model, batch)]) for batch in batches
        ]
        for model in ("mini", "30m", "smollm2-135m")
    }
    return Finding(
        f"rank 4 takes {left(base, 1):.0%} of full fine-tuning's peak with 1 row, "
        f"{left(base, 8):.0%} with 8, {left(base, 32):.0%} with 32 (of 128 tokens)",
        decided(saved >= 0.5, None),
        None,
        "memory-h100.json",
        Curves("rows of 128 tokens", "peak, relative to full", lines, (True, False)),
    )


def disk(base: str) -> Finding:
    config = PRESETS[base]
    full, adapter = (
        disk_bytes(config, None),
        disk_bytes(config, LoRAConfig(rank=4, targets=QV.targets)),
    )
    lines: Lines = {
        f"rank {rank}": [
            point(name, [disk_bytes(PRESETS[name], None) / disk_bytes(PRESETS[name], _qv(rank))])
            for name in BASES
        ]
        for rank in (1, 4, 16)
    }
    return Finding(
        f"rank 4 on q and v: {adapter:,} bytes a task beside {full:,}, {full / adapter:,.0f} times "
        "smaller; a test compares the bytes with those of real files",
        decided(full / adapter >= 100, None),
        None,
        "counted",
        Curves("base", "times smaller on disk", lines, (False, True)),
    )


def _qv(rank: int) -> LoRAConfig:
    return LoRAConfig(rank=rank, targets=QV.targets)
