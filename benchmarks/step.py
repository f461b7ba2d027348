"""One training step: full fine-tuning, LoRA in several hands, and the floor under every LoRA.

    python benchmarks/step.py --out data/results/step-h100.json      a GPU: about ten minutes
    python benchmarks/step.py --out data/results/step-cpu.json       a CPU: about five

floor       all weights frozen but one gain of the first layer: the gradient flows through all of
            it and nothing else is done; no LoRA can be quicker
full        every weight trains
taught      lora.py's layer
fast        fast.py's, packed where steps are captured
peft        PEFT's layers in the lab's Llama; peft, hf: in transformers' with the same weights
loralib     Microsoft's layers in the lab's Llama

eager       kernel by kernel          captured             the step as one CUDA graph
compiled    layers and loss by torch.compile               compiled, captured     both

All do the lab's own step on the same tokens: forward, loss on every token, backward, clipping,
fused AdamW; what is freed stays in the process, as in training. Adapters are on the seven
projections; ours are in float32, PEFT's and loralib's in the base's precision, which is their
quicker way. On a CPU whose oneDNN is the quicker library (linear.py) it makes the products of the
lab's Llama, whoever adapts it, but not those of transformers' and loralib's layers. Contenders take
turns, step by step; numbers are a median, the least and the most, in milliseconds. `peak` is what a
contender allocates at most in this mode, weights and all, `ready` the seconds until its first step
is done. A first round warms up.

The bars stand in `bars`, and what came of them in the result. The last line is one line of JSON.
Needs transformers, peft and loralib.
"""

import argparse
import datetime
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import Tensor, nn

from lorakit.device import describe
from lorakit.fast import set_fast
from lorakit.files import write_json
from lorakit.graphed import Graphs
from lorakit.heap import kept_heap
from lorakit.linear import ONEDNN
from lorakit.lora import LoRAConfig, freeze, inject
from lorakit.model import Llama, ModelConfig
from lorakit.packed import packed
from lorakit.presets import PRESETS
from lorakit.step import TrainConfig, make_optimizer, response_loss, step

NAMES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONFIG = TrainConfig(steps=10**6, lr=1e-5, warmup_steps=0, implementation="fused")


class Case(NamedTuple):
    """A model's shape, the tokens of a step, and which ranks are measured."""

    model: ModelConfig
    batch_size: int
    length: int
    ranks: tuple[int, ...]


def llama(width: int, layers: int, vocab: int, feed_forward: int, heads: int) -> ModelConfig:
    return ModelConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=feed_forward,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2048,
    )


BILLION = ModelConfig(**{**vars(PRESETS["llama-3.2-1b"]), "vocab_size": 32_000})
GPU = {
    "30M": Case(llama(512, 8, 8192, 1408, 8), 4, 128, (4, 16, 64)),
    "135M": Case(PRESETS["smollm2-135m"], 16, 512, (4, 16, 64)),
    "1B": Case(BILLION, 4, 1024, (16,)),
}
CPU = {
    "1M": Case(llama(128, 4, 512, 352, 4), 16, 64, (4, 16, 64)),
    "5M": Case(llama(256, 6, 512, 688, 4), 16, 64, (4, 16, 64)),
    "25M": Case(llama(512, 8, 512, 1376, 8), 16, 64, (4, 16)),
}
EVERYONE = ("full", "floor", "taught", "fast", "peft", "peft, hf", "loralib")
# Recordings keep their memory: so many fit side by side. Compiling all would take an hour.
IN_MODE = {
    "eager": EVERYONE,
    "captured": ("full", "floor", "taught", "fast", "peft, hf"),
    "compiled": ("full", "floor", "fast", "peft, hf"),
    "compiled, captured": ("full", "floor", "taught", "fast"),
}


class Hf(nn.Module):
    """transformers' Llama, as the lab's step calls a model."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.inner = model

    def forward(self, tokens: Tensor) -> Tensor:
        return self.inner(input_ids=tokens, use_cache=False).logits


def build(kind: str, case: Case, rank: int, device: torch.device) -> nn.Module:
    """The same weights for all, in bfloat16 on a GPU."""
    torch.manual_seed(0)
    with device:
        model: nn.Module = Llama(case.model)
    model.to(torch.bfloat16 if device.type == "cuda" else torch.float32)
    if kind == "floor":
        freeze(model)
        model.get_parameter("model.layers.0.input_layernorm.weight").requires_grad_(True)
    elif kind in ("taught", "fast"):
        inject(model, LoRAConfig(rank=rank, alpha=2 * rank))
        set_fast(model, kind == "fast")
    elif kind in ("peft", "peft, hf"):
        import peft

        chosen = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=NAMES)
        if kind == "peft":
            freeze(model)
            peft.inject_adapter_in_model(chosen, model)
            for name, p in model.named_parameters():
                p.requires_grad_("lora_" in name)
                p.data = p.data.to(model.get_parameter("lm_head.weight").dtype)
        else:
            theirs = in_transformers(model, case.model)
            model = Hf(peft.get_peft_model(theirs, chosen, autocast_adapter_dtype=False))
    elif kind == "loralib":
        in_loralib(model, rank)
    return model.train()


def in_transformers(model: nn.Module, config: ModelConfig) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    fields = {k: v for k, v in vars(config).items() if k not in ("rope_theta", "rope_scaling")}
    weight = model.get_parameter("lm_head.weight")
    with weight.device:
        theirs = LlamaForCausalLM(LlamaConfig(**fields, attn_implementation="sdpa"))
    theirs.to(weight.dtype).load_state_dict(model.state_dict(), strict=False)
    return theirs


def in_loralib(model: nn.Module, rank: int) -> None:
    import loralib

    for name, layer in list(model.named_modules()):
        if name.rpartition(".")[2] in NAMES:
            shape = layer.in_features, layer.out_features
            fresh = loralib.Linear(
                *shape, r=rank, lora_alpha=2 * rank, merge_weights=False, bias=False
            )
            fresh.to(layer.weight.device, layer.weight.dtype).weight.data = layer.weight.data
            model.set_submodule(name, fresh)
    loralib.mark_only_lora_as_trainable(model)


class Contender:
    """A model in a mode: `go` does one step, and does not wait for a GPU."""

    def __init__(self, kind: str, mode: str, case: Case, rank: int, device: torch.device):
        self.stack = ExitStack()
        before = allocated(device)
        self.model = build(kind, case, rank, device)
        self.optimizer = make_optimizer(self.model, CONFIG)
        shape = case.batch_size, case.length
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, case.model.vocab_size, shape, generator=draw).to(device)
        loss = response_loss
        step(self.model, self.optimizer, [(tokens, tokens)], CONFIG)
        wait(device)
        allocated(device)  # from here on a peak is this mode's own
        start = time.perf_counter()
        if kind == "fast" and "captured" in mode:
            self.stack.enter_context(packed(self.model))
        if "compiled" in mode:
            start = time.perf_counter()
            lists = [m for m in self.model.modules() if isinstance(m, nn.ModuleList)]
            for layer in max(lists, key=len):
                layer.compile(dynamic=False)
            loss = torch.compile(response_loss, dynamic=False)
        if "captured" in mode:
            graphs = Graphs(self.model, self.optimizer, CONFIG, loss)
            self.stack.enter_context(graphs.taking_over())
            self.go: Callable[[], object] = lambda: graphs.step([(tokens, tokens)], CONFIG.lr)
            self.read = graphs.read
        else:
            pairs = [(tokens, tokens)]
            self.go = lambda: step(self.model, self.optimizer, pairs, CONFIG, loss=loss)
            self.read = list
        self.go()
        wait(device)
        self.ready = time.perf_counter() - start  # compiling, or recording, and a step or two
        self.peak = peak(device) - before

    def close(self) -> None:
        self.stack.close()


def allocated(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else 0


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def race(
    kinds: tuple[str, ...], mode: str, case: Case, rank: int, device: torch.device, rounds: int
) -> dict[str, Any]:
    """Milliseconds of a step, by contender, in turns."""
    torch._dynamo.reset()
    contenders = {kind: Contender(kind, mode, case, rank, device) for kind in kinds}
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds + 1):
        for kind, contender in contenders.items():
            wait(device)
            start = time.perf_counter()
            contender.go()
            wait(device)
            if number:
                taken[kind].append(1000 * (time.perf_counter() - start))
            contender.read()
    found = {
        kind: {
            "median": round(median(taken[kind]), 3),
            "min": round(min(taken[kind]), 3),
            "max": round(max(taken[kind]), 3),
            "ready": round(contender.ready, 1),
        }
        | ({"peak": contender.peak} if contender.peak else {})
        for kind, contender in contenders.items()
    }
    for contender in contenders.values():
        contender.close()
    contenders.clear()
    return found


def parts(kind: str, case: Case, rank: int, device: torch.device) -> dict[str, float]:
    """Milliseconds of each phase of an eager step; a median of ten."""
    from contextlib import contextmanager

    model = build(kind, case, rank, device)
    optimizer = make_optimizer(model, CONFIG)
    tokens = torch.randint(0, case.model.vocab_size, (case.batch_size, case.length)).to(device)
    taken: dict[str, list[float]] = {}

    @contextmanager
    def phase(name: str):
        wait(device)
        start = time.perf_counter()
        yield
        wait(device)
        taken.setdefault(name, []).append(1000 * (time.perf_counter() - start))

    for _ in range(12):
        step(model, optimizer, [(tokens, tokens)], CONFIG, phase=phase)
    return {name: round(median(ms[2:]), 3) for name, ms in taken.items()}


def bars(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Each bar: what is compared, the ratio, and whether it is met; and how far above the floor."""
    told = []

    def ms(case: str, rank: int, mode: str, kind: str) -> float | None:
        return found.get(case, {}).get(f"rank {rank}", {}).get(mode, {}).get(kind, {}).get("median")

    def bar(what: str, top: float | None, bottom: float | None, least=None, most=None) -> None:
        if top is not None and bottom is not None:
            ratio = top / bottom
            met = (least is None or ratio >= least) and (most is None or ratio <= most)
            told.append(
                {"what": what, "ratio": round(ratio, 3), "least": least, "most": most, "met": met}
            )

    both = "compiled, captured"
    fast = {mode: lambda c, mode=mode: ms(c, 16, mode, "fast") for mode in ("captured", both)}
    bar(
        "30M: PEFT eager / fast captured",
        ms("30M", 16, "eager", "peft, hf"),
        fast["captured"]("30M"),
        least=8,
    )
    bar(
        "30M: fast / full, captured",
        fast["captured"]("30M"),
        ms("30M", 16, "captured", "full"),
        most=1,
    )
    bar(
        "30M: fast / floor, captured (target)",
        fast["captured"]("30M"),
        ms("30M", 16, "captured", "floor"),
        most=1.25,
    )
    bar(
        "135M: PEFT eager / fast compiled, captured",
        ms("135M", 16, "eager", "peft, hf"),
        fast[both]("135M"),
        least=3,
    )
    bar(
        "135M: PEFT compiled / fast compiled, captured",
        ms("135M", 16, "compiled", "peft, hf"),
        fast[both]("135M"),
        least=1.3,
    )
    bar(
        "135M: fast / full, compiled, captured",
        fast[both]("135M"),
        ms("135M", 16, both, "full"),
        most=1,
    )
    bar(
        "135M: fast / floor, compiled, captured (target)",
        fast[both]("135M"),
        ms("135M", 16, both, "floor"),
        most=1.2,
    )
    for mode, of in fast.items():
        bar(
            f"1B: PEFT eager / fast {mode}",
            ms("1B", 16, "eager", "peft, hf"),
            of("1B"),
            least=1.2,
        )
        bar(
            f"1B: fast / floor, {mode} (target)",
            of("1B"),
            ms("1B", 16, mode, "floor"),
            most=1.15,
        )
    for mode in ("eager", *fast):
        peaks = [
            found.get("1B", {}).get("rank 16", {}).get(of, {}).get(kind, {}).get("peak")
            for of, kind in ((mode, "fast"), ("eager", "peft, hf"))
        ]
        bar(f"1B: peak memory, fast {mode} / PEFT eager", *peaks, most=1)
    bar("5M: fast / full", ms("5M", 16, "eager", "fast"), ms("5M", 16, "eager", "full"), most=0.85)
    for where, kind in {"the lab's Llama": "peft", "transformers'": "peft, hf"}.items():
        bar(
            f"5M: PEFT in {where} / fast",
            ms("5M", 16, "eager", kind),
            ms("5M", 16, "eager", "fast"),
            least=1.15,
        )
    bar(
        "5M: fast / floor (target)",
        ms("5M", 16, "eager", "fast"),
        ms("5M", 16, "eager", "floor"),
        most=1.15,
    )
    for case in ("1M", "25M"):
        bar(
            f"{case}: fast / floor, r=4",
            ms(case, 4, "eager", "fast"),
            ms(case, 4, "eager", "floor"),
            most=1.2,
        )
    return told


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Milliseconds, by case."""
    gpu = device.type == "cuda"
    found: dict[str, Any] = {}
    for name, case in (GPU if gpu else CPU).items():
        if options.only and name not in options.only:
            continue
        found[name] = {}
        for rank in case.ranks:
            for mode in options.modes or ([*IN_MODE] if gpu else ["eager"]):
                if "compiled" in mode and rank != 16:
                    continue
                kinds = IN_MODE[mode]
                if name == "1B" and mode == "compiled, captured":
                    kinds = ("full", "floor", "fast")  # each holds its memory
                elif name == "1B" and mode == "compiled":
                    continue
                now = race(kinds, mode, case, rank, device, options.rounds)
                found[name].setdefault(f"rank {rank}", {})[mode] = now
                words = ", ".join(f"{kind} {of['median']:.2f}" for kind, of in now.items())
                print(f"{name}, rank {rank}, {mode}: {words} ms", flush=True)
        found[name]["parts"] = {
            kind: parts(kind, case, 16, device) for kind in ("full", "floor", "taught", "fast")
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", choices=[*GPU, *CPU])
    parser.add_argument("--modes", nargs="*", choices=[*IN_MODE])
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    with kept_heap():  # as training has it
        found = measure(options, device)
    import peft
    import transformers

    told = {
        "command": " ".join(["python benchmarks/step.py", *sys.argv[1:]]),
        "device": describe(device),
        "products": "oneDNN" if ONEDNN and device.type == "cpu" else "PyTorch's",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "peft": peft.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "rounds": options.rounds,
        "milliseconds": found,
        "bars": bars(found),
    }
    for bar in told["bars"]:
        print(f"{'met   ' if bar['met'] else 'missed'} {bar['what']}: {bar['ratio']:.3f}")
    if options.out:
        write_json(options.out, told)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
