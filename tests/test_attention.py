"""Heads that share keys: the same numbers by every way that they are given them."""

import pytest
import torch
from torch.nn import functional as F

from lorakit import attention
from lorakit.attention import attend, reads_shared

HALVES = (torch.bfloat16, torch.float16)


def drawn(heads: int, shared_by: int, length: int = 7) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(heads)
    shapes = [(2, heads, length, 8)] + [(2, heads // shared_by, length, 8)] * 2
    made = [torch.randn(shape, dtype=torch.float64, generator=draw) for shape in shapes]
    return [tensor.requires_grad_() for tensor in made]


def by_hand(q, k, v, sees):
    """The softmax, written out over a copy of the keys for each head; the heads side by side."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~sees, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("masked", [False, True], ids=["causal", "masked"])
@pytest.mark.parametrize("shared", [None, True, False])
@pytest.mark.parametrize("shared_by", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 7])
def test_attention_and_its_gradients_are_those_of_copied_keys(length, shared_by, shared, masked):
    given = drawn(4, shared_by, length)
    sees = torch.ones(length, length, dtype=torch.bool).tril()
    if masked:
        sees[-1, 1:] = False
    found = attend(*given, sees if masked else None, shared)
    expected = by_hand(*given, sees)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(
        found.shape, dtype=found.dtype, generator=torch.Generator().manual_seed(5)
    )
    pairs = zip(
        torch.autograd.grad((found * weights).sum(), given),
        torch.autograd.grad((expected * weights).sum(), given),
        strict=True,
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def test_a_single_query_sees_every_key():
    q, k, v = drawn(4, 2)
    found = attend(q[:, :, -1:], k, v, None, None)
    expected = by_hand(q[:, :, -1:], k, v, torch.ones(1, 7, dtype=torch.bool))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("device", "capability", "dtypes"),
    [
        ("cpu", None, (torch.float64, torch.float32, *HALVES)),
        ("cuda:0", (7, 5), ()),
        ("cuda:0", (8, 0), HALVES),
        ("cuda:0", (12, 0), HALVES),
        ("mps", None, ()),
    ],
)
def test_who_reads_shared_keys(monkeypatch, device, capability, dtypes):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    asked = (torch.float64, torch.float32, *HALVES)
    assert tuple(t for t in asked if reads_shared(torch.device(device), t)) == dtypes


@pytest.mark.parametrize("told", [True, False])
def test_what_is_told_goes_before_what_this_device_says_and_a_mask_before_both(monkeypatch, told):
    seen = []

    def noted(q, k, v, **options):
        seen.append((k.shape[1], options["enable_gqa"]))
        return q

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    monkeypatch.setattr(attention, "reads_shared", lambda device, dtype: not told)
    mask = torch.ones(7, 7, dtype=torch.bool).tril()
    attend(*drawn(4, 2), None, told)
    attend(*drawn(4, 2), None, None)
    attend(*drawn(4, 2), mask, told)
    keys = {True: (2, True), False: (4, False)}
    assert seen == [keys[told], keys[not told], keys[False]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpus_kernel_makes_no_copy_and_no_table_of_scores(dtype):
    q, k, v = (t.detach().to(dtype).requires_grad_() for t in drawn(4, 2))
    node = attend(q, k, v, None, None).grad_fn
    names = []
    while node.next_functions:
        names.append(type(node).__name__)
        node = node.next_functions[0][0]
    assert any(name.startswith("ScaledDotProductFlashAttention") for name in names), names


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("length", [85, 96])
@pytest.mark.parametrize("head_dim", [8, 64])
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_on_cuda_gradients_are_those_by_hand_also_of_one_whose_rows_lie_apart(
    dtype, head_dim, length
):
    draw = torch.Generator("cuda").manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw, device="cuda").to(dtype)

    given = [random(4, heads, length, head_dim).requires_grad_() for heads in (6, 2, 2)]
    together = random(4, length, 6 * head_dim)
    apart = torch.cat([together, random(4, length, 8)], -1)[..., : 6 * head_dim]
    sees = torch.ones(length, length, dtype=torch.bool, device="cuda").tril()
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    expected = torch.autograd.grad(by_hand(*exact, sees), exact, together.double())
    for upstream in (apart, together):
        found = torch.autograd.grad(attend(*given, None, None), given, upstream)
        for one, other in zip(found, expected, strict=True):
            assert (one - other).norm() < 0.02 * other.norm()
