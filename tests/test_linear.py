"""Products by oneDNN are PyTorch's own up to rounding, and are asked for where they are quicker."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from lorakit import linear
from lorakit.linear import MANY, Linear, has_many, matmul, prefers_onednn

needs_onednn = pytest.mark.skipif(not linear.CARRIED, reason="this PyTorch carries no oneDNN")
SHAPES = [(96, 64), (64, 200), (200, 64)]


@pytest.fixture(params=[False, True], ids=["PyTorch's", "oneDNN's"])
def many(request, monkeypatch):
    """A row is many, and products are made by this library, whatever the processor."""
    if request.param and not linear.CARRIED:
        pytest.skip("this PyTorch carries no oneDNN")
    monkeypatch.setattr(linear, "ONEDNN", request.param)
    monkeypatch.setattr(linear, "MANY", 1)


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
def test_a_layer_and_its_gradients_are_those_in_float64(many, size, frozen):
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


def test_rows_that_lie_apart_and_a_gradient_of_one_number_are_read_as_they_are(many):
    layer = Linear(64, 96, bias=False)
    whole = drawn(40, 150)
    x = whole[:, 20:84].requires_grad_()
    layer(x).sum().backward()
    assert off(layer(x), whole[:, 20:84].double() @ layer.weight.double().T) < 1e-6
    assert off(x.grad, layer.weight.double().sum(0).expand(40, -1)) < 1e-6
    assert off(layer.weight.grad, whole[:, 20:84].double().sum(0).expand(96, -1)) < 1e-6


def test_a_gradient_can_be_differentiated_again(many):
    layer = Linear(5, 4, bias=False)
    x = drawn(3, 5).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(x).pow(2).sum(), layer.weight, create_graph=True)
    gradient.pow(2).sum().backward()
    W = layer.weight.detach().double().requires_grad_()
    expected = 2 * (x.detach().double() @ W.T).T @ x.detach().double()
    expected.pow(2).sum().backward()
    assert off(layer.weight.grad, W.grad) < 1e-6


def test_torch_func_takes_its_gradient(many):
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
def test_a_layer_keeps_for_backward_what_pytorchs_keeps(many, frozen):
    def kept(kind: type[nn.Linear]) -> int:
        layer, sizes = kind(64, 96, bias=False).requires_grad_(not frozen), []
        x = drawn(40, 64).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()), int):
            layer(x)
        return sum(sizes)

    assert kept(Linear) == kept(nn.Linear) == (64 * 96 if frozen else 64 * 96 + 64 * 40)


def test_few_rows_and_those_of_another_precision_or_device_stay_pytorchs():
    x = torch.zeros(2, MANY // 2, 3)
    assert has_many(x)
    for other in (x[:, 1:], x.double(), x.bfloat16(), x.to("meta"), x[..., :0]):
        assert not has_many(other)
    assert has_many(x[:1], told=True) and not has_many(x, told=False)
    assert not has_many(x.double(), told=True)


def test_a_result_can_be_changed_in_place(many):
    layer = Linear(64, 96, bias=False)
    y = layer(drawn(3, 40, 64).requires_grad_())
    y[:, :, 0] = -1.0
    y.mul_(2).sum().backward()
    assert not layer.weight.grad[0].any() and layer.weight.grad[1].any()


@needs_onednn
@pytest.mark.parametrize("copied", [40 * 96 - 1, 40 * 96])
def test_a_gradient_that_onednn_would_copy_is_left_to_mkl_where_it_is_large(copied, monkeypatch):
    for name, value in {"ONEDNN": True, "MANY": 1, "COPIED": copied}.items():
        monkeypatch.setattr(linear, name, value)
    by_onednn = []
    monkeypatch.setattr(linear, "matmul", lambda *pair: by_onednn.append(pair[2]) or matmul(*pair))
    Linear(64, 96, bias=False)(drawn(40, 64).requires_grad_()).sum().backward()
    assert by_onednn == [True, True, copied == 40 * 96]  # y, dx, dW


def test_onednn_can_be_switched_off(monkeypatch):
    monkeypatch.setattr(linear, "ONEDNN", True)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not linear.by_onednn()
    assert linear.by_onednn() is torch.backends.mkldnn.enabled


def test_a_wrong_shape_is_refused_in_pytorchs_words(many):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Linear(64, 96, bias=False)(drawn(40, 63))


def test_per_example_gradients_and_forward_differentiation_are_pytorchs(many):
    layer, xs = Linear(5, 4, bias=False), drawn(3, 7, 5)
    W = layer.weight.detach()

    def loss(W: Tensor, x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": W}, (x,)).pow(2).sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(W, xs)
    assert off(found, 2 * torch.einsum("eno,eni->eoi", (xs @ W.T).double(), xs.double())) < 1e-6
    _, slope = torch.func.jvp(lambda W: loss(W, xs), (W,), (torch.ones_like(W),))
    assert off(slope, found.double().sum()) < 1e-5


def test_autocast_a_bias_and_another_precision_of_the_weight_stay_pytorchs(many):
    x = drawn(40, 64).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(64, 96, bias=False)(x).dtype == torch.bfloat16
    layer = Linear(64, 96)
    assert type(layer(x).grad_fn).__name__ == "AddmmBackward0"
    assert off(layer(x), F.linear(x.double(), layer.weight.double(), layer.bias.double())) < 1e-6
    with pytest.raises(RuntimeError, match="dtype"):  # PyTorch's own complaint
        Linear(64, 96, bias=False).double()(x)


@pytest.mark.parametrize("told", [False, True])
def test_without_memory_a_layer_does_what_it_is_told(told):
    with FakeTensorMode():
        layer = Linear(64, 96, bias=False)
        layer.many = told
        y = layer(torch.zeros(4, 64, requires_grad=True))
        y.sum().backward()
        assert (type(y.grad_fn).__name__ == "_LinearBackward") is told
        assert layer.weight.grad.shape == layer.weight.shape
