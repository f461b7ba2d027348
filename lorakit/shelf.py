"""A shelf of adapters over one base: any number in memory, at most one in the model.

    shelf = Shelf(model)
    shelf.add("json", folder)                    from PEFT's files; the model answers as before
    shelf.switch("json"); shelf.disable()        an adapter stands in the model; the base alone
    with shelf.rows(["json", "reply", None]):    one batch, every row under its own

An adapter is its layers: each holds A and B, and the base layer that all share. Being active means
that they stand in the model, so that whatever works on a model's adapters (save, merge, score)
works on the active one. Where none stands there is the base's own layer, and nothing is computed.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn

from lorakit.adapters import load_adapter
from lorakit.lora import LoRALinear, freeze, lora_layers
from lorakit.merging import remove, twin
from lorakit.mixing import Adapter, mixed
from lorakit.places import Place, bring, place_of
from lorakit.status import Status, standing


class Shelf:
    """Adapters by name over the base of `model`; they may differ in rank, alpha and targets.

    The base is frozen, as all share it. Adapters that `model` carries already stay, active but
    nameless until `take(name)`. A model is moved first, then its shelf: `model.to(device)`,
    `shelf.follow()`. Raises ValueError if the model's adapters are merged.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._bare = _bare(model)  # where files are loaded: every tensor is shared
        freeze(self._bare)
        self._adapters: dict[str, dict[str, LoRALinear]] = {}
        self._places: dict[str, Place] = {}
        self._last: str | None = None  # the last adapter that was put into the model
        self._mixing = False  # within `rows`

    @property
    def names(self) -> list[str]:
        return [*self._adapters]

    @property
    def active(self) -> str | None:
        """The adapter in the model, None for the base alone.

        Raises ValueError for adapters that came by another way and are not on the shelf.
        """
        # inject and load_adapter let no other beside it: to find it whole is to have looked enough.
        if self._last in self._adapters:
            last = self._adapters[self._last]
            if all(self._places[path].layer is layer for path, layer in last.items()):
                return self._last
        there = dict(lora_layers(self.model))
        for name, layers in self._adapters.items():
            if there and layers == there:
                return name
        if there:
            raise ValueError(
                f"the model carries {len(there)} adapters that are not on the shelf (first: "
                f"{next(iter(there))}): take(name) puts them there, remove(model) takes them off"
            )
        return None

    def layers(self, name: str) -> Adapter:
        """The adapter's layers by path. Raises ValueError, naming the nearest, if there is none."""
        if name not in self._adapters:
            near = difflib.get_close_matches(name, self._adapters, n=3, cutoff=0.5)
            hint = (
                f"{'nearest' if near else 'there are'}: {', '.join(near or self.names) or 'none'}"
            )
            raise ValueError(f"no adapter {name!r} is on the shelf; {hint}")
        return self._adapters[name]

    def add(self, name: str, folder: Path | str, *, allow_other_base: bool = False) -> None:
        """Load an adapter's files; what the model answers stays as it is.

        Raises ValueError as `load_adapter` does, or for a name in use; nothing is changed then.
        """
        self._check_free(name)
        self._at_rest("add")
        load_adapter(self._bare, folder, allow_other_base=allow_other_base)
        layers = dict(lora_layers(self._bare))
        remove(self._bare)
        self._keep(name, layers)

    def put(self, name: str, layers: Adapter) -> None:
        """Put an adapter on the shelf that was made in memory, as by `combining`.

        Raises ValueError for a name in use, or for a layer over another base than this shelf's.
        """
        self._check_free(name)
        self._at_rest("put")
        own = [path for path, _ in self._bare.named_modules()]
        for path, layer in layers.items():
            if path not in own or layer.base is not place_of(self.model, path).base:
                raise ValueError(
                    f"{path} of {name!r} is over another base than the shelf's: combine adapters "
                    "of this shelf, shelf.layers(name)"
                )
        self._keep(name, {path: layers[path] for path in own if path in layers})

    def take(self, name: str) -> None:
        """Put on the shelf the adapters that stand in the model; they stay active.

        Raises ValueError if there are none, or they are merged or on the shelf already.
        """
        self._check_free(name)
        layers = dict(lora_layers(self.model))
        if not layers:
            raise ValueError("nothing to take: no adapters, inject(model, config) adds them")
        _check_unmerged(layers, "take")
        for other, those in self._adapters.items():
            if any(those.get(path) is layer for path, layer in layers.items()):
                raise ValueError(f"nothing to take: these adapters are {other!r} on the shelf")
        self._keep(name, layers)

    def switch(self, name: str) -> None:
        """Make an adapter the active one. No parameter is changed, copied or made to train."""
        layers = self.layers(name)
        self._at_rest("switch")
        self._stand(layers)
        self._last = name

    def disable(self) -> None:
        """Make the model its base again, with no adapter in it."""
        self._at_rest("disable")
        self._stand({})

    def delete(self, name: str) -> None:
        """Take an adapter off the shelf, and out of the model if it is the active one."""
        self.layers(name)
        if self._at_rest("delete") == name:
            self.disable()
        del self._adapters[name]

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Within the block an adapter is active, or none; then what was before, if it is there."""
        before = self._at_rest("switch")
        self.disable() if name is None else self.switch(name)
        try:
            yield
        finally:
            self.switch(before) if before in self._adapters else self.disable()

    @contextmanager
    def rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """Within the block the model takes batches of `len(names)` rows, each under its adapter.

        None is the base. In training a gradient reaches the adapter of its row alone. Raises
        ValueError for no names or an unknown one, for an adapter that is not finite or switched off
        by `disabled`, and where switching would.
        """
        if not names:
            raise ValueError("names is empty: name an adapter for every row of the batch, or None")
        chosen = {name: self.layers(name) for name in names if name is not None}
        before = self._at_rest("mix")
        bases = {path: place.base for path, place in self._places.items()}
        self._stand(mixed(bases, chosen, names))
        self._mixing = True
        try:
            yield
        finally:
            self._mixing = False
            self._stand({} if before is None else self.layers(before))

    def follow(self) -> None:
        """Bring every adapter to its base layer's device, after `model.to(device)`."""
        self._unmerged("follow")
        for layers in self._adapters.values():
            bring(layers.values())
        self._places = {path: place_of(self.model, path) for path in self._places}
        self._bare = _bare(self.model)

    def status(self) -> Status:
        active = self.active
        rows = (standing(name, layers, name == active) for name, layers in self._adapters.items())
        return Status(tuple(rows))

    def _keep(self, name: str, layers: dict[str, LoRALinear]) -> None:
        for path, layer in layers.items():
            if path not in self._places:
                self._places[path] = place_of(self.model, path)
            layer.base = self._places[path].base
        bring(layers.values())
        self._adapters[name] = layers

    def _stand(self, layers: Mapping[str, nn.Module]) -> None:
        """Put these layers into the model, and the base's own wherever there is none of them."""
        for path, place in self._places.items():
            place.put(layers.get(path, place.base))

    def _unmerged(self, verb: str) -> str | None:
        """The active adapter, if it is one at most and its deltas are not in the base."""
        if self._mixing:
            raise ValueError(f"cannot {verb} within rows(...): leave the block first")
        if (active := self.active) is not None:
            _check_unmerged(self._adapters[active], verb)
        return active

    def _at_rest(self, verb: str) -> str | None:
        """The active adapter, if what stands in the model may be exchanged for something else."""
        active = self._unmerged(verb)
        for path, place in self._places.items():
            if not place.is_kept:
                raise ValueError(
                    f"cannot {verb}: the weight of {path} is no longer the one that the shelf's "
                    "adapters share; if model.to(device) moved it, shelf.follow() moves them too; "
                    "after merge_and_unload(model) it is another base, and needs a new shelf"
                )
        return active

    def _check_free(self, name: str) -> None:
        if not name:
            raise ValueError("an adapter's name is empty: give it one")
        if name in self._adapters:
            raise ValueError(f"{name!r} is on the shelf already: delete({name!r}) makes room")


def _bare(model: nn.Module) -> nn.Module:
    """The model's base: the same tensors in modules of its own, without adapters."""
    base = twin(model)
    if lora_layers(base):
        remove(base)
    return base


def _check_unmerged(layers: Adapter, verb: str) -> None:
    if merged := [path for path, layer in layers.items() if layer.merged]:
        raise ValueError(
            f"cannot {verb}: {len(merged)} layers are merged (first: {merged[0]}), and their "
            "deltas are in the base that all share; unmerge(model) takes them out again"
        )
