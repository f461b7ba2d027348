"""Products of packed layers: in float64 those of autograd, whatever the layers' shapes."""

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorakit import products
from lorakit.products import WIDE, PackedProducts, packed_backward, packed_product

LAYERS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 24)), min_size=1, max_size=4)


def packed_up(width: int, layers, dtype=torch.float64, scale: float = 1.7):
    """W, A and B of layers of these ranks and outputs, drawn, and P of them all."""
    draw = torch.Generator().manual_seed(width)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=draw).to(dtype)

    Ws = [drawn(out, width) for _, out in layers]
    As = [drawn(rank, width) for rank, _ in layers]
    Bs = [drawn(out, rank) for rank, out in layers]
    ranks, outs = sum(len(A) for A in As), sum(len(W) for W in Ws)
    more = -(-ranks // 8) * 8
    P = torch.zeros(outs + more, width + more, dtype=dtype)
    P[:outs, :width], P[outs : outs + ranks, :width] = torch.cat(Ws), torch.cat(As)
    P[:outs, width : width + ranks] = scale * torch.block_diag(*Bs)
    factors = [factor.requires_grad_() for pair in zip(As, Bs, strict=True) for factor in pair]
    return P, Ws, factors, [n for pair in layers for n in pair], scale


def taught(x, Ws, factors, scale):
    return [
        x @ W.T + scale * (x @ A.T) @ B.T
        for W, A, B in zip(Ws, factors[::2], factors[1::2], strict=True)
    ]


@settings(deadline=None, max_examples=80)
@given(n=st.integers(0, 6), width=st.integers(1, 20), layers=LAYERS, data=st.data())
def test_products_are_those_of_autograd(n, width, layers, data):
    P, Ws, factors, shapes, scale = packed_up(width, layers)
    draw = torch.Generator().manual_seed(n)
    x = torch.randn(n, width, dtype=torch.float64, generator=draw)
    x.requires_grad_(data.draw(st.booleans(), "x trains"))
    used = data.draw(st.lists(st.booleans(), min_size=len(layers), max_size=len(layers)), "used")
    used[0] = True
    found = PackedProducts.apply(x, P, shapes, scale, *factors)
    expected = taught(x, Ws, factors, scale)
    weights = [torch.randn(y.shape, dtype=y.dtype, generator=draw) for y in expected]

    def gradients(ys) -> list[torch.Tensor]:
        loss = sum((y * w).sum() for y, w, use in zip(ys, weights, used, strict=True) if use)
        asked = [*factors, x] if x.requires_grad else factors
        return torch.autograd.grad(loss, asked, materialize_grads=True)

    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(gradients(found), gradients(expected), strict=True):
        torch.testing.assert_close(one, other)


SHAPES = {
    "one layer": (6, [(8, 10)]),
    "a rank that fills no eight": (6, [(3, 10)]),
    "three alike": (8, [(8, 4), (8, 3), (8, 3)]),
    "unequal ranks": (16, [(2, 4), (8, 3), (5, 3)]),
    "wide": (4, [(8, 9), (8, 9)]),
    "wide, of unequal ranks": (4, [(2, 9), (5, 9)]),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_pytorch_finds_no_fault_with_the_operations(shape):
    width, layers = shape
    P, _, _, shapes, scale = packed_up(width, layers)
    out = sum(shapes[1::2])
    x, g = torch.randn(5, width, dtype=P.dtype), torch.randn(5, out, dtype=P.dtype)
    assert (out >= WIDE * width) == (len(layers) == 2)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(packed_product, (x, P, out), test_utils=tests)
    h = packed_product(x, P, out)[1][:, -(P.shape[1] - width) :]
    grads = list(g.split(shapes[1::2], 1))
    torch.library.opcheck(packed_backward, (grads, x, h, P, shapes, scale), test_utils=tests)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_factors_gradients_are_in_float32_where_the_layers_are_in_half(shape):
    width, layers = shape
    P, Ws, factors, shapes, scale = packed_up(width, layers, torch.bfloat16)
    x = torch.randn(64, width, generator=torch.Generator().manual_seed(1)).bfloat16()
    wide = [factor.detach().float().requires_grad_() for factor in factors]
    sum(
        y.float().square().sum() for y in PackedProducts.apply(x, P, shapes, scale, *wide)
    ).backward()
    expected = [factor.detach().double().requires_grad_() for factor in factors]
    Ws = [W.double() for W in Ws]
    sum(y.square().sum() for y in taught(x.double(), Ws, expected, scale)).backward()
    for one, other in zip(wide, expected, strict=True):
        assert one.grad.dtype == torch.float32 and one.grad.is_contiguous()
        assert (one.grad - other.grad).norm() < 0.03 * other.grad.norm()


def test_gradients_of_siblings_share_no_numbers():
    P, _, factors, shapes, scale = packed_up(8, [(2, 4), (8, 3), (5, 3)])
    x = torch.randn(5, 8, dtype=P.dtype)
    sum(y.sum() for y in PackedProducts.apply(x, P, shapes, scale, *factors)).backward()
    before = [factor.grad.clone() for factor in factors]
    for factor, grad in zip(factors, before, strict=True):
        factor.grad.add_(1)
        torch.testing.assert_close(factor.grad, grad + 1)
        factor.grad.sub_(1)
    for factor, grad in zip(factors, before, strict=True):
        torch.testing.assert_close(factor.grad, grad)


class Timeline:
    """Streams that note who waits for whom, and what is launched on which."""

    def __init__(self, monkeypatch):
        self.seen: list[tuple] = []
        self.current = self.Stream(self, "here")
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.current)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: self.Stream(self, "side"))
        monkeypatch.setattr(torch.cuda, "stream", self.on)

    class Stream:
        device = torch.device("cuda:1")

        def __init__(self, timeline, name: str):
            self.timeline, self.name = timeline, name

        def wait_stream(self, other) -> None:
            self.timeline.seen.append((self.name, "waits for", other.name))

    @contextmanager
    def on(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def launch(self, what: str) -> None:
        self.seen.append((self.current.name, what))


ONE = [("side", "waits for", "here"), ("side", "dB"), ("here", "dx")]


def test_what_is_launched_beside_waits_for_what_was_before_and_is_waited_for_at_the_end(
    monkeypatch,
):
    timeline = Timeline(monkeypatch)
    with products._aside(torch.device("cuda:1")) as beside:
        with beside():
            timeline.launch("dB")
        timeline.launch("dx")
        with beside():
            timeline.launch("dA")
        timeline.launch("more")
    two = [("side", "waits for", "here"), ("side", "dA"), ("here", "more")]
    assert timeline.seen == [*ONE, *two, ("here", "waits for", "side")]


@pytest.mark.parametrize("where", ["beside", "here"])
def test_what_is_beside_is_waited_for_after_an_error(monkeypatch, where):
    timeline = Timeline(monkeypatch)
    with pytest.raises(KeyError), products._aside(torch.device("cuda:1")) as beside:
        with beside():
            timeline.launch("dB")
            if where == "beside":
                raise KeyError
        raise KeyError
    assert timeline.seen[-1] == ("here", "waits for", "side")
    assert timeline.current.name == "here"


def test_streams_beside_two_streams_are_two(monkeypatch):
    timeline = Timeline(monkeypatch)
    here, other = timeline.current, timeline.Stream(timeline, "other")
    assert products._side(here) is products._side(here) is not products._side(other)
