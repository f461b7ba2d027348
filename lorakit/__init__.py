"""lorakit: full fine-tuning and LoRA, small enough to read in an evening.

    import lorakit as lk

What `lk` shows stands in public.py, and is loaded when `lk` is first asked for a name: a program
that only tells its options need not wait for PyTorch. Pictures and explorables are in
`lorakit.plots` and `lorakit.widgets`, which are not among it.
"""

import gc
import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorakit.public import *  # noqa: F403

# Functions that are called like their modules: `lk.train` is the function.
SHADOWING = frozenset(
    ["begin", "changes", "deltas", "merge_cost", "quantize", "step_times", "train", "untie"]
)


class _Page(ModuleType):
    """This package, as a module that looks names up when they are asked for."""

    def __getattr__(self, name: str) -> Any:
        if name not in SHADOWING and not name.startswith("_") and find_spec(f"lorakit.{name}"):
            return import_module(f"lorakit.{name}")
        if name == "__all__" or not name.startswith("_"):
            public = _public()
            if name == "__all__":
                return public.__all__
            if name in public.__all__:
                vars(self)[name] = found = getattr(public, name)
                return found
        raise AttributeError(f"lorakit has no {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        # A submodule hangs itself into its package, where a function of its name would be hidden.
        if not (name in SHADOWING and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *self.__all__})


def _public() -> ModuleType:
    """The public page, with PyTorch and all else that it needs."""
    # A full collection meanwhile would look through all of PyTorch, for half of the lab's own time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        return import_module("lorakit.public")
    finally:
        if collecting:
            gc.enable()


sys.modules[__name__].__class__ = _Page
