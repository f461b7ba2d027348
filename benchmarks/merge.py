"""Adapters put on, merged, taken off, saved and loaded, beside PEFT on the same weights.

    python benchmarks/merge.py [--out data/results/merge.json]

SmolLM2-135M in float32 on the CPU, rank 8 on every linear layer but the head; here the lab's Llama,
there transformers' Llama under PEFT, whose users have that one. Both hold the same adapters, from
the same files, and answer alike, which is checked.

attach             fresh adapters on a model that is there
load               from files into a plain model that is there: PeftModel.from_pretrained
load_beside        from files, where another adapter is already: Shelf.add, PEFT's load_adapter
switch             from one adapter in memory to another: Shelf.switch, PEFT's set_adapter
save, merge, unmerge, merge_and_unload
merge_checked      PEFT's with safe_merge: on a copy, refused if not finite. Ours always does both
                   and keeps the copy, so that unmerging is exact; PEFT's plain merge does neither

Each is to be at least as fast as PEFT; switch, load and load_beside at least ten times. Contenders
take turns, action by action, so that what else the machine does meets each of them alike; numbers
are a median, the least and the most, in milliseconds. One round more, the first, warms up.

The peak of merge_and_unload is taken in a process of its own, over the bytes of the base: of live
tensors, by the lab's memory tracker; and one plus the growth of the process (VmHWM less VmRSS
before), with weights in memory of their own, and with weights mapped from their file, where pages
that are read count although the system may drop them. It may take 1.2 times the base, and 2 s.
"""

import argparse
import datetime
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before PEFT is imported: it asks the hub about the base

import torch
from torch import nn

from lorakit.adapters import load_adapter, save_adapter
from lorakit.checkpoint import SMOLLM2, load_base, resolve
from lorakit.device import describe
from lorakit.files import write_json
from lorakit.fingerprint import fingerprint_of, remember_file
from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.memory.tracker import Tracker
from lorakit.merging import merge, merge_and_unload, remove, unmerge
from lorakit.shelf import Shelf

CONFIG = LoRAConfig(rank=8, alpha=16.0)
NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# A round, in this order; `None` undoes, untimed. Every action finds the model as the last left it.
ROUND = (
    *("attach", None, "load", "save", "merge", "unmerge", "merge_checked", "unmerge"),
    "merge_and_unload",
)
FASTER = {"switch": 10.0, "load": 10.0, "load_beside": 10.0}  # and 1 for all others
SECONDS, PEAK = 2.0, 1.2


class Ours:
    """The lab's Llama, LoRA, files and shelf."""

    def __init__(self, base: str, adapters: list[Path], room: Path):
        self.adapter, self.room = adapters[0], room / "ours"
        self.model, self.shelved, self.file = (load_base(base)[0] for _ in range(3))
        self.restore()
        self.shelf = Shelf(self.shelved)
        for folder in adapters:
            self.shelf.add(folder.name, folder)
        self.acts: dict[str, Callable[[], Any]] = {
            "attach": lambda: inject(self.model, CONFIG),
            "load": lambda: load_adapter(self.model, self.adapter),
            "save": lambda: save_adapter(self.model, self.room),
            "merge": lambda: merge(self.model),
            "merge_checked": lambda: merge(self.model),
            "unmerge": lambda: unmerge(self.model),
            "merge_and_unload": lambda: merge_and_unload(self.model),
        }

    def undo(self) -> None:
        remove(self.model)

    def restore(self) -> None:
        """Make the weights the file's again, in memory of their own, or the adapter is refused."""
        for p, fresh in zip(self.model.parameters(), self.file.parameters(), strict=True):
            p.data.copy_(fresh)
        remember_file(self.model, fingerprint_of(self.file))

    def switch(self, name: str) -> None:
        self.shelf.switch(name)

    def load_beside(self) -> None:
        self.shelf.add("another", self.adapter)

    def forget(self) -> None:
        self.shelf.delete("another")

    def answer(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.shelved(tokens)


class Theirs:
    """transformers' Llama under PEFT."""

    def __init__(self, base: str, adapters: list[Path], room: Path):
        import peft
        from transformers import AutoModelForCausalLM

        self.adapter, self.room = adapters[0], room / "theirs"
        self.config = peft.LoraConfig(
            r=CONFIG.rank,
            lora_alpha=CONFIG.alpha,
            target_modules=list(NAMES),
            task_type="CAUSAL_LM",
        )

        def plain() -> nn.Module:
            return AutoModelForCausalLM.from_pretrained(resolve(base), dtype=torch.float32).eval()

        self.model = plain()
        first, second = adapters
        self.shelved = peft.PeftModel.from_pretrained(plain(), first, adapter_name=first.name)
        self.shelved.load_adapter(second, adapter_name=second.name)
        self.acts: dict[str, Callable[[], Any]] = {
            "attach": lambda: self._under(peft.get_peft_model(self.model, self.config)),
            "load": lambda: self._under(peft.PeftModel.from_pretrained(self.model, self.adapter)),
            "save": lambda: self.model.save_pretrained(self.room),
            "merge": lambda: self.model.merge_adapter(),
            "merge_checked": lambda: self.model.merge_adapter(safe_merge=True),
            "unmerge": lambda: self.model.unmerge_adapter(),
            "merge_and_unload": lambda: self._under(self.model.merge_and_unload()),
        }

    def _under(self, model: nn.Module) -> None:
        self.model = model
        if not hasattr(model, "peft_type") and hasattr(model, "peft_config"):
            del model.peft_config  # a trace that would make the next attachment warn

    def undo(self) -> None:
        self._under(self.model.unload())

    def restore(self) -> None:
        """PEFT merges in place, and does not mind."""

    def switch(self, name: str) -> None:
        self.shelved.set_adapter(name)

    def load_beside(self) -> None:
        self.shelved.load_adapter(self.adapter, adapter_name="another")

    def forget(self) -> None:
        self.shelved.delete_adapter("another")

    def answer(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.shelved(tokens).logits


def write_adapters(base: str, room: Path) -> list[Path]:
    """Two adapters that change the answers, though little."""
    found = []
    for seed in (0, 1):
        model, _ = load_base(base)
        draw = torch.Generator().manual_seed(seed)
        inject(model, CONFIG, generator=draw)
        for _, layer in lora_layers(model):
            layer.B.data.normal_(std=1e-3, generator=draw)
        found.append(save_adapter(model, room / f"adapter-{seed}"))
    return found


def race(contenders: dict[str, Any], names: list[str], rounds: int) -> dict[str, Any]:
    """Milliseconds of each action by contender."""
    taken: dict[str, dict[str, list[float]]] = {}

    def timed(action: str, of: Callable[[Any], Callable[[], Any]], number: int) -> None:
        for name, contender in contenders.items():
            act = of(contender)
            start = time.perf_counter()
            act()
            seconds = time.perf_counter() - start
            if number:
                taken.setdefault(action, {}).setdefault(name, []).append(1000 * seconds)

    for number in range(rounds + 1):
        for action in ROUND:
            if action is None:
                for contender in contenders.values():
                    contender.undo()
            else:
                timed(action, lambda contender, action=action: contender.acts[action], number)
        for contender in contenders.values():
            contender.restore()
        timed("load_beside", lambda contender: contender.load_beside, number)
        for contender in contenders.values():
            contender.forget()
        for name in names:  # to one and back to the other
            timed("switch", lambda contender, name=name: lambda: contender.switch(name), number)
        gc.collect()
    return {action: {name: spread(ms) for name, ms in of.items()} for action, of in taken.items()}


def spread(values: list[float]) -> dict[str, float]:
    found = {"median": median(values), "min": min(values), "max": max(values)}
    return {name: round(value, 3) for name, value in found.items()}


@torch.no_grad()
def check_alike(contenders: dict[str, Any], names: list[str]) -> None:
    """Under each adapter both answer alike, and otherwise than under the other one."""
    tokens = torch.arange(16)[None] + 1000
    before = None
    for name in names:
        for contender in contenders.values():
            contender.switch(name)
        ours, theirs = (contender.answer(tokens) for contender in contenders.values())
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
        assert before is None or (ours - before).abs().max() > 1e-3 * theirs.abs().max()
        before = ours


# The peak, in a process of its own


def status(field: str) -> int:
    """Bytes, as Linux tells them of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def peak(base: str, adapter: Path) -> dict[str, float]:
    """What merge_and_unload holds at most, over the bytes of the base, in three ways."""
    found: dict[str, float] = {}
    for way in ("mapped", "own memory", "live tensors"):
        model, _ = load_base(base)
        if way != "mapped":
            for p in model.parameters():
                p.data = p.data.clone()
        whole = sum(p.nbytes for p in model.parameters())
        load_adapter(model, adapter)
        gc.collect()
        if way == "live tensors":
            found[way] = live(model) / whole
        else:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
            before = status("VmRSS")
            merge_and_unload(model)
            found[way] = 1 + (status("VmHWM") - before) / whole
        del model
    return {way: round(value, 3) for way, value in found.items()}


def live(model: nn.Module) -> int:
    """Bytes of tensors that are alive at once, at most, while the model is merged."""
    tracker = Tracker(model, torch.optim.SGD(model.parameters()), "cpu")
    for p in model.parameters():
        tracker.see(p)
    with tracker:
        merge_and_unload(model)
    tracker.close()
    held = most = 0
    for event in tracker.record.events:
        held += tracker.record.sizes[event - 1] if event > 0 else -tracker.record.sizes[-event - 1]
        most = max(most, held)
    return most


def misses(milliseconds: dict[str, Any], peaks: dict[str, float]) -> list[str]:
    """What is not as it is to be, in words."""
    found = []
    for action, of in milliseconds.items():
        ratio = of["peft"]["median"] / of["lorakit"]["median"]
        if ratio < (least := FASTER.get(action, 1.0)):
            found.append(f"{action}: {ratio:.2f} times as fast as PEFT, not {least:g}")
    if (seconds := milliseconds["merge_and_unload"]["lorakit"]["median"] / 1000) > SECONDS:
        found.append(f"merge_and_unload takes {seconds:.2f} s, not {SECONDS:g}")
    for way in ("own memory", "live tensors"):
        if peaks[way] > PEAK:
            found.append(f"merge_and_unload holds {peaks[way]:.2f} times the base ({way})")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--base", default=SMOLLM2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peak", type=Path, help="an adapter: measure the peak alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.peak:
        print(json.dumps(peak(options.base, options.peak)))
        return
    import peft
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        adapters = write_adapters(options.base, room)
        command = [sys.executable, __file__, "--base", options.base, "--peak", str(adapters[0])]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks = json.loads(ran.stdout.splitlines()[-1])
        contenders = {
            name: kind(options.base, adapters, room)
            for name, kind in (("lorakit", Ours), ("peft", Theirs))
        }
        names = [folder.name for folder in adapters]
        check_alike(contenders, names)
        found = race(contenders, names, options.rounds)
    told: dict[str, Any] = {
        "command": " ".join(["python benchmarks/merge.py", *sys.argv[1:]]),
        "device": describe(torch.device("cpu")),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "peft": peft.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "base": options.base,
        "rank": CONFIG.rank,
        "rounds": options.rounds,
        "milliseconds": found,
        "times_as_fast": {
            action: round(of["peft"]["median"] / of["lorakit"]["median"], 2)
            for action, of in found.items()
        },
        "peak_over_base": peaks,
        "misses": misses(found, peaks),
    }
    for action, of in found.items():
        ours, theirs = of["lorakit"], of["peft"]
        print(
            f"{action:17} {ours['median']:8.2f} ms ({ours['min']:.2f} to {ours['max']:.2f}), PEFT "
            f"{theirs['median']:8.2f} ms ({theirs['min']:.2f} to {theirs['max']:.2f})"
        )
    if options.out is not None:
        write_json(options.out, told)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
