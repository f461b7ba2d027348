"""RMSNorm: the formula, and the kernel that takes its place on CUDA."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lorakit import fused_norm as kernels
from lorakit.fused_norm import fused_norm, fused_norm_backward
from lorakit.norm import RMSNorm

HALVES = (torch.bfloat16, torch.float16)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def drawn(dtype: torch.dtype = torch.float64, device: str = "cpu") -> tuple[RMSNorm, Tensor]:
    """A norm of eight features, its weight drawn too, and rows for it."""
    draw = torch.Generator().manual_seed(0)
    made = RMSNorm(8, eps=1e-3)
    made.weight.data = torch.randn(8, generator=draw, dtype=torch.float64)
    x = torch.randn(3, 5, 8, generator=draw, dtype=torch.float64)
    return made.to(device, dtype), x.to(device, dtype).requires_grad_()


def apart(x: Tensor) -> Tensor:
    """The same numbers, in rows that do not lie together."""
    return torch.cat([x, x], -1)[..., : x.shape[-1]]


def results(made: RMSNorm, x: Tensor, lie=lambda tensor: tensor) -> list[Tensor]:
    """y, and the gradients of x and of the weight, in float64, as they came."""
    y = made(lie(x))
    weights = lie(torch.linspace(-1, 1, y.numel(), device=y.device, dtype=y.dtype).view_as(y))
    found = y, *torch.autograd.grad(y, (x, made.weight), weights)
    return [tensor.detach().double().cpu() for tensor in found]


def formula(made: RMSNorm, x: Tensor) -> Tensor:
    root = (x.square().sum(-1) / x.shape[-1] + made.eps).sqrt()
    return x / root[..., None] * made.weight


def test_each_row_is_divided_by_its_root_mean_square_and_scaled():
    made, x = drawn()
    torch.testing.assert_close(made(x), formula(made, x))
    assert torch.autograd.gradcheck(made, (x,))


@pytest.mark.parametrize("dtype", HALVES)
def test_in_half_precision_squares_are_summed_in_float32(dtype):
    made, x = drawn()
    expected = formula(made, 1000 * x)  # the squares are more than float16 holds
    found = made.to(dtype)((1000 * x).to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("trained", [True, False])
def test_an_estimate_is_told_that_one_kernel_keeps_its_input_and_a_number_a_row(dtype, trained):
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with FakeTensorMode():
        made = RMSNorm(8, eps=1e-3)
        made.fused = True
        made.weight = nn.Parameter(torch.ones(8, dtype=dtype), requires_grad=trained)
        x = torch.zeros(3, 5, 8, dtype=dtype, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = made(x)
        y.sum().backward()
    assert (y.shape, y.dtype) == (x.shape, dtype)
    assert [(t.shape, t.dtype) for t in kept] == [
        ((3, 5, 8), dtype),
        ((8,), dtype),
        ((3, 5, 1), torch.float32),
    ]
    assert (x.grad.shape, x.grad.dtype) == (x.shape, dtype)
    assert (made.weight.grad is not None) == trained


def test_a_compiler_is_given_the_formula(monkeypatch):
    made, x = drawn()
    made.fused = True
    with pytest.raises(NotImplementedError, match="rms_norm"):
        made(x)  # the kernel is CUDA's alone
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(made(x), formula(made, x))


def test_a_weight_of_another_precision_leaves_the_formula():
    made, x = drawn(torch.float32)
    made.fused = True
    assert made(x.bfloat16()).dtype == torch.float32


@cuda
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.003)],
)
@pytest.mark.parametrize("lie", [lambda tensor: tensor, apart], ids=["together", "apart"])
def test_on_cuda_one_kernel_says_what_the_formula_says(dtype, tolerance, lie, monkeypatch):
    called = []
    for name in ("fused_norm", "fused_norm_backward"):
        real = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *a, real=real: called.append(real) or real(*a))
    made, x = drawn(dtype, "cuda")
    one = results(made, x, lie)
    assert called == [fused_norm, fused_norm_backward]
    made.fused = False
    for found, expected in zip(one, results(made, x), strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert len(called) == 2


@cuda
@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_an_estimate_knows_the_kernels_shapes(dtype):
    made, x = drawn(dtype, "cuda")
    weight, x = made.weight.detach(), x.detach()
    torch.library.opcheck(fused_norm, (x, weight, 1e-3))
    _, scale = fused_norm(x, weight, 1e-3)
    for trained in (True, False):
        torch.library.opcheck(fused_norm_backward, (x, x, weight, scale, trained))
