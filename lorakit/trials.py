"""What becomes of a finished run: its delta cut, its adapter swapped, merged, or on 4 bits.

Each trial gives rows, judged by exact match on the held-out examples of the run's task.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from lorakit.checkpoint import load_base
from lorakit.deltas import cut, deltas
from lorakit.device import pick_device
from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.merge_cost import logit_change, merge_cost
from lorakit.merging import merge_and_unload
from lorakit.model import Llama
from lorakit.qlora_merge import merge_everywhere
from lorakit.run import Result, Run
from lorakit.scoring import score
from lorakit.tasks import load_task
from lorakit.text import Tokenizer, encode_example

Row = dict[str, Any]
CUTS = (1, 2, 4, 8, 16, 32, 64, None)


@torch.no_grad()
def cut_rows(result: Result, ks: Sequence[int | None] = CUTS) -> list[Row]:
    """Exact match of the base with each delta's first k directions, None for all of them.

    What has no delta is the base's, as with an adapter; and, of full fine-tuning, as trained.
    """
    base = _base(result.run)
    found, model = deltas(result.model, base), copy.deepcopy(base)
    rows = []
    rests = {"base": None} | ({"trained": result.model} if result.run.lora is None else {})
    for rest, trained in rests.items():
        for k in ks:
            if k is None or k < max(len(delta.values) for delta in found):
                cut(model, base, found, k, trained)
                rows.append(
                    {
                        "method": result.run.method,
                        "seed": result.run.seed,
                        "rest": rest,
                        "k": k,
                        "match": _match(model, result.tokenizer, result.run),
                    }
                )
    return rows


def swap_rows(results: Sequence[Result]) -> list[Row]:
    """Each result's adapter, judged on the task of every one."""
    tasks = [result.run.task for result in results]
    return [
        {
            "adapter": result.run.task,
            "task": task,
            "match": _match(result.model, result.tokenizer, replace(result.run, task=task)),
        }
        for result in results
        for task in tasks
    ]


@torch.no_grad()
def merge_rows(result: Result) -> list[Row]:
    """An adapter over its base in each dtype: what a merge loses, and what answers it costs."""
    tokens = _first_prompt(result)
    rows = []
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        base = _base(result.run, dtype)
        model = _with_adapters(base, result.model)
        cost = merge_cost(model)
        kept = _match(model, result.tokenizer, result.run)
        change = logit_change(model, tokens)
        merge_and_unload(model)
        rows.append(
            {
                "dtype": cost.dtype,
                "size": median(layer.size for layer in cost.layers),
                "lost": cost.loss,
                "worst": cost.worst.loss,
                "unchanged": cost.unchanged,
                "logits": change,
                "kept": kept,
                "merged": _match(model, result.tokenizer, result.run),
            }
        )
    return rows


@torch.no_grad()
def quantised_rows(result: Result) -> list[Row]:
    """An adapter trained over 4 bits: as trained, and merged in each place; logits in norms."""
    tokens = _first_prompt(result)
    expected = result.model(tokens).float()
    base = _base(result.run, result.model.lm_head.weight.dtype)
    models = {"as trained": result.model, **merge_everywhere(result.model, base)}
    return [
        {
            "model": name,
            "match": _match(model, result.tokenizer, result.run),
            "logits": ((model(tokens).float() - expected).norm() / expected.norm()).item(),
        }
        for name, model in models.items()
    ]


def _base(run: Run, dtype: torch.dtype = torch.float32) -> Llama:
    return load_base(run.base, dtype=dtype, device=pick_device())[0]


@torch.no_grad()
def _with_adapters(base: Llama, trained: Llama) -> Llama:
    """`base` with copies of the adapters of `trained`, whatever base those were trained over."""
    layers = dict(lora_layers(trained))
    config: LoRAConfig = next(iter(layers.values())).config
    inject(base, config)
    for name, layer in lora_layers(base):
        layer.A.copy_(layers[name].A)
        layer.B.copy_(layers[name].B)
    return base


def _match(model: Llama, tokenizer: Tokenizer, run: Run) -> float:
    examples = [encode_example(tokenizer, e) for e in load_task(run.task).heldout[: run.heldout]]
    found = score(model, examples, pad_id=tokenizer.pad_id, batch_size=16)
    assert found is not None
    return found.exact_match


def _first_prompt(result: Result) -> torch.Tensor:
    prompt = load_task(result.run.task).heldout[0].prompt
    tokens = result.tokenizer.encode(result.tokenizer.prompt(prompt))
    return torch.tensor([tokens], device=pick_device())
