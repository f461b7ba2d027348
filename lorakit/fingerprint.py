"""Which file a base was read from: a short hash that stays with the model.

    model.fingerprint    set where a base is loaded: of its file, before any cast or quantisation
                         gone once the weights are no longer that file's: full fine-tuning, a merge

A sample shows that two bases differ, never that they do not. Knows no files and no adapters.
"""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

SAMPLE, RUN = 32, 8  # values of each tensor, and how many of them are neighbours, on one page
STEP = 0x9E3779B1  # between runs; odd and large: no length of a row puts all into one column


class UnknownBase(UserWarning):
    """An adapter or a model that does not tell its base: whether they fit is anyone's guess."""


class OtherPrecision(UnknownBase):
    """An adapter trained over 4 bits, on a base that is not in them: what it answers, too."""


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """16 hex digits: of each tensor the name, the shape, the dtype, and `SAMPLE` of its values.

    Of a mapped file only the sampled pages are read. The order of the tensors does not matter.
    """
    digest, i = hashlib.sha256(), torch.arange(SAMPLE)
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        if values := tensor.numel():
            places = i if values <= SAMPLE else i // RUN * STEP + i % RUN
            sample = tensor.detach().flatten()[places % values]
            digest.update(sample.cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def fingerprint_of(model: nn.Module) -> str | None:
    """Of the file that the model's weights are; None if they come from none."""
    return getattr(model, "fingerprint", None)


def remember_file(model: nn.Module, value: str | None) -> None:
    """Say which file the weights are from now on, or with None that they are no file's."""
    object.__setattr__(model, "fingerprint", value)  # a plain attribute: no parameter, no module
