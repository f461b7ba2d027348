"""The public page: what `import lorakit as lk` shows, loaded when `lk` is asked for a name."""

from lorakit.adapter_file import adapter_bytes
from lorakit.adapters import load_adapter, save_adapter
from lorakit.begin import begin
from lorakit.changes import Change, changes, snapshot
from lorakit.checkpoint import load_base, save_folder
from lorakit.combining import Combined, compressed, concatenated, shortcut
from lorakit.counts import Count, count
from lorakit.deltas import Delta, cut, deltas, extract, random_deltas
from lorakit.device import pick_device
from lorakit.experiment import finetune, resume_run
from lorakit.generation import ask, generate, generate_rows, stream
from lorakit.history import History, StepRecord
from lorakit.lora import (
    ALL_LINEAR,
    LoRAConfig,
    LoRALinear,
    freeze,
    inject,
    lora_layers,
    trainable,
    unfreeze,
)
from lorakit.memory import (
    MemoryBreakdown,
    Setup,
    StepMemory,
    changes_to_fit,
    estimate,
    largest_batch,
    measure,
)
from lorakit.merge_cost import MergeCost, logit_change, merge_cost, tokens_a_second
from lorakit.merging import disabled, merge, merge_and_unload, remove, rescaled, twin, unmerge
from lorakit.model import Llama, ModelConfig
from lorakit.presets import PRESETS
from lorakit.qlora import (
    QuantizedBytes,
    QuantizedLinear,
    dequantize_,
    quantize_,
    quantized_bytes,
    quantized_layers,
)
from lorakit.qlora_merge import MergeError, merge_errors, merge_everywhere
from lorakit.quantize import CODEBOOKS, Quantized, dequantize, quantize
from lorakit.resume import load_checkpoint, save_checkpoint
from lorakit.run import Result, Run
from lorakit.scoring import Score, score
from lorakit.shelf import Shelf
from lorakit.spectrum import (
    Spectrum,
    energy,
    singular_values,
    singular_values_of_product,
    stable_rank,
)
from lorakit.step import TrainConfig
from lorakit.step_times import StepTimes, step_times
from lorakit.subspaces import (
    amplification,
    intruders,
    overlaps,
    random_cosine,
    random_overlaps,
)
from lorakit.survival import OutOfMemory, survive
from lorakit.tasks import Task, load_task
from lorakit.text import Batches, Example, Tokenizer, encode_batches, encode_example
from lorakit.train import Diverged, Training, train
from lorakit.untie import untie

__all__ = [
    "ALL_LINEAR",
    "CODEBOOKS",
    "PRESETS",
    "Batches",
    "Change",
    "Combined",
    "Count",
    "Delta",
    "Diverged",
    "Example",
    "History",
    "Llama",
    "LoRAConfig",
    "LoRALinear",
    "MemoryBreakdown",
    "MergeCost",
    "MergeError",
    "ModelConfig",
    "OutOfMemory",
    "Quantized",
    "QuantizedBytes",
    "QuantizedLinear",
    "Result",
    "Run",
    "Score",
    "Setup",
    "Shelf",
    "Spectrum",
    "StepMemory",
    "StepRecord",
    "StepTimes",
    "Task",
    "Tokenizer",
    "TrainConfig",
    "Training",
    "adapter_bytes",
    "amplification",
    "ask",
    "begin",
    "changes",
    "changes_to_fit",
    "compressed",
    "concatenated",
    "count",
    "cut",
    "deltas",
    "dequantize",
    "dequantize_",
    "disabled",
    "encode_batches",
    "encode_example",
    "energy",
    "estimate",
    "extract",
    "finetune",
    "freeze",
    "generate",
    "generate_rows",
    "inject",
    "intruders",
    "largest_batch",
    "load_adapter",
    "load_base",
    "load_checkpoint",
    "load_task",
    "logit_change",
    "lora_layers",
    "measure",
    "merge",
    "merge_and_unload",
    "merge_cost",
    "merge_errors",
    "merge_everywhere",
    "overlaps",
    "pick_device",
    "quantize",
    "quantize_",
    "quantized_bytes",
    "quantized_layers",
    "random_cosine",
    "random_deltas",
    "random_overlaps",
    "remove",
    "rescaled",
    "resume_run",
    "save_adapter",
    "save_checkpoint",
    "save_folder",
    "score",
    "shortcut",
    "singular_values",
    "singular_values_of_product",
    "snapshot",
    "stable_rank",
    "step_times",
    "stream",
    "survive",
    "tokens_a_second",
    "train",
    "trainable",
    "twin",
    "unfreeze",
    "unmerge",
    "untie",
]
