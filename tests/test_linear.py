"""Products by oneDNN are PyTorch's own up to rounding, and are asked for where they are quicker."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from lorakit import linear
from lorakit.linear import LARGE, Linear, is_large, matmul, prefers_onednn

needs_onednn = pytest.mark.skipif(not linear.CARRIED, reason="this PyTorch carries no oneDNN")
SHAPES = [(96, 64), (64, 200), (200, 64)]


@pytest.fixture(params=[False, True], ids=["PyTorch's", "oneDNN's"])
def large(request, monkeypatch):
    """Every input is large, and its products made by this library, whatever the processor."""
    if request.param and not linear.CARRIED:
        pytest.skip("this PyTorch carries no oneDNN")
    monkeypatch.setattr(linear, "ONEDNN", request.param)
    monkeypatch.setattr(linear, "LARGE", 1)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def off(found: Tensor, expected: Tensor) -> float:
    return ((found.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize(
    ("processor", "prefers"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\n", True),
        ("AMD64 Family 26 Model 68 Stepping 0, AuthenticAMD", True),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 97\n", False),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\n", False),
        ("Intel64 Family 26 Model 85 Stepping 7, GenuineIntel", False),
        ("arm", False),
        ("", False),
    ],
)
def test_a_processor_whose_vectors_mkl_does_not_use_is_known_by_its_family(processor, prefers):
    assert prefers_onednn(processor) is prefers


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("size", SHAPES)
def test_a_layer_and_its_gradients_are_those_in_float64(large, size, frozen):
    layer = Linear(*size, bias=False).requires_grad_(not frozen)
    x = drawn(3, 40, size[0]).requires_grad_()
    y, g = layer(x), drawn(3, 40, size[1])
    assert type(y.grad_fn).__name__ == "_LinearBackward"
    y.backward(g)
    wide_x, W = x.detach().double().requires_grad_(), layer.weight.detach().double()
    W.requires_grad_(not frozen)
    expected = F.linear(wide_x, W)
    expected.backward(g.double())
    assert off(y, expected) < 1e-6 and off(x.grad, wide_x.grad) < 1e-6
    assert layer.weight.grad is None if frozen else off(layer.weight.grad, W.grad) < 1e-6


def test_rows_that_lie_apart_and_a_gradient_of_one_number_are_read_as_they_are(large):
    layer = Linear(64, 96, bias=False)
    whole = drawn(40, 150)
    x = whole[:, 20:84].requires_grad_()
    layer(x).sum().backward()
    assert off(layer(x), whole[:, 20:84].double() @ layer.weight.double().T) < 1e-6
    assert off(x.grad, layer.weight.double().sum(0).expand(40, -1)) < 1e-6
    assert off(layer.weight.grad, whole[:, 20:84].double().sum(0).expand(96, -1)) < 1e-6


def test_a_gradient_can_be_differentiated_again(large):
    layer = Linear(5, 4, bias=False)
    x = drawn(3, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).pow(2).sum(), layer.weight, create_graph=True)
    gradient.pow(2).sum().backward()
    W = layer.weight.detach().double().requires_grad_()
    expected = 2 * (x.detach().double() @ W.T).T @ x.detach().double()
    expected.pow(2).sum().backward()
    assert off(layer.weight.grad, W.grad) < 1e-6


def test_torch_func_takes_its_gradient(large):
    layer, x = Linear(5, 4, bias=False), drawn(3, 5)

    def loss(W: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": W}, (x,)).pow(2).sum()

    W = layer.weight.detach()
    assert off(torch.func.grad(loss)(W), 2 * (x.double() @ W.double().T).T @ x.double()) < 1e-6


@needs_onednn
@pytest.mark.parametrize(("rows", "inner", "columns"), [(90, 30, 4), (4, 90, 30), (90, 30, 70)])
def test_products_of_any_form_and_lie_are_those_in_float64(rows, inner, columns):
    left, right = drawn(rows, inner), drawn(inner, columns)
    expected = left.double() @ right.double()
    for onednn in (False, True):
        for a in (left, left.T.contiguous().T):
            for b in (right, right.T.contiguous().T):
                assert off(matmul(a, b, onednn), expected) < 1e-6


@pytest.mark.parametrize("frozen", [False, True])
def test_a_layer_keeps_for_backward_what_pytorchs_keeps(large, frozen):
    def kept(kind: type[nn.Linear]) -> int:
        layer, sizes = kind(64, 96, bias=False).requires_grad_(not frozen), []
        x = drawn(40, 64).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()), int):
            layer(x)
        return sum(sizes)

    assert kept(Linear) == kept(nn.Linear) == (64 * 96 if frozen else 64 * 96 + 64 * 40)


def test_what_is_small_or_of_another_precision_or_device_stays_pytorchs():
    x = torch.zeros(LARGE // 64, 64)
    assert is_large(x)
    for other in (x[1:], x.double(), x.bfloat16(), x.to("meta")):
        assert not is_large(other)
    assert is_large(x[1:], told=True) and not is_large(x, told=False)
    assert not is_large(x.double(), told=True)


def test_autocast_a_bias_and_another_precision_of_the_weight_stay_pytorchs(large):
    x = drawn(40, 64).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(64, 96, bias=False)(x).dtype == torch.bfloat16
    layer = Linear(64, 96)
    assert type(layer(x).grad_fn).__name__ == "AddmmBackward0"
    assert off(layer(x), F.linear(x.double(), layer.weight.double(), layer.bias.double())) < 1e-6
    with pytest.raises(RuntimeError, match="dtype"):  # PyTorch's own complaint
        Linear(64, 96, bias=False).double()(x)


@pytest.mark.parametrize("large_", [False, True])
def test_without_memory_a_layer_does_what_it_is_told(large_):
    with FakeTensorMode():
        layer = Linear(64, 96, bias=False)
        layer.large = large_
        y = layer(torch.zeros(4, 64, requires_grad=True))
        y.sum().backward()
        assert (type(y.grad_fn).__name__ == "_LinearBackward") is large_
        assert layer.weight.grad.shape == layer.weight.shape
