"""A batch of many adapters: every row is what it would be alone, forward and backward."""

import math

import pytest
import torch
from adapter_files import refused
from shelves import shelf_of

from lorakit.generation import generate, generate_rows
from lorakit.lora import LoRAConfig, trainable
from lorakit.merging import disabled
from lorakit.mixing import MixedLinear
from lorakit.step import TrainConfig
from lorakit.text import Batches, Encoded
from lorakit.train import Training

ROWS = ["wide", None, "narrow", "wide", "uneven", None]
TOKENS = torch.randint(61, (len(ROWS), 9), generator=torch.Generator().manual_seed(5))


def one_by_one(shelf, rows, tokens) -> torch.Tensor:
    answers = []
    for name, row in zip(rows, tokens, strict=True):
        with shelf.using(name):
            answers.append(shelf.model(row[None]))
    return torch.cat(answers)


@pytest.fixture
def shelf(model, tmp_path):
    return shelf_of(model, tmp_path)[0]


@pytest.fixture
def exact(model, tmp_path):
    """The same in float64."""
    shelf, _ = shelf_of(model, tmp_path)
    shelf.model.double()
    for name in shelf.names:
        for layer in shelf.layers(name).values():
            layer.double()
    shelf.follow()
    return shelf


@pytest.mark.parametrize(
    "rows",
    [ROWS, ROWS[::-1], ["narrow"] * 6, ["narrow", None] * 3, ["uneven", "wide"] * 3],
    ids=["mixed", "turned round", "one", "one and none", "two"],
)
def test_every_row_is_what_it_is_alone(exact, rows):
    with exact.rows(rows):
        together = exact.model(TOKENS)
    torch.testing.assert_close(together, one_by_one(exact, rows, TOKENS), rtol=0, atol=1e-12)
    assert len({row.sum().item() for row in exact.model(TOKENS) - together}) > 1


def test_in_float32_the_rows_are_close_to_those_alone(shelf):
    with shelf.rows(ROWS), torch.no_grad():
        together = shelf.model(TOKENS)
    torch.testing.assert_close(together, one_by_one(shelf, ROWS, TOKENS), rtol=1e-4, atol=1e-4)


def test_a_half_precision_base_mixes_in_its_own_precision(model, tmp_path):
    shelf, _ = shelf_of(model.bfloat16(), tmp_path)
    with shelf.rows(ROWS):
        together = shelf.model(TOKENS)
    alone = one_by_one(shelf, ROWS, TOKENS)
    assert together.dtype == torch.bfloat16
    assert (together - alone).abs().max() < 0.05 * alone.abs().max()


def test_rows_of_none_alone_are_the_base_itself(shelf):
    base = shelf.model(TOKENS)
    shelf.switch("wide")
    with shelf.rows([None] * len(TOKENS)):
        assert not any(isinstance(m, MixedLinear) for m in shelf.model.modules())
        assert torch.equal(shelf.model(TOKENS), base)
    assert shelf.active == "wide"


def loss_of(answers: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Of some rows, each its own target."""
    chances = answers.log_softmax(-1)
    return -sum(chances[i, :, 7 + row].mean() for i, row in enumerate(rows))


def gradients(shelf) -> dict:
    found = {
        (name, path, part): getattr(layer, part).grad
        for name in shelf.names
        for path, layer in shelf.layers(name).items()
        for part in "AB"
    }
    for name in shelf.names:
        for layer in shelf.layers(name).values():
            layer.A.grad = layer.B.grad = None
    return found


def test_gradients_reach_each_rows_adapter_and_no_other(exact):
    rows = ["narrow", None, "uneven", "narrow"]
    with exact.rows(rows):
        loss_of(exact.model(TOKENS[:4]), [0, 1, 2, 3]).backward()
    together = gradients(exact)
    for name in ("narrow", "uneven"):
        exact.switch(name)
        own = [row for row, whose in enumerate(rows) if whose == name]
        loss_of(exact.model(TOKENS[own]), own).backward()
    alone = gradients(exact)
    for key, gradient in alone.items():
        if key[0] == "wide":
            assert gradient is None and together[key] is None
        else:
            torch.testing.assert_close(together[key], gradient, rtol=0, atol=1e-12)
            assert gradient.any()
    assert all(p.grad is None for p in exact.model.parameters())


def test_what_trains_within_the_block_are_the_rows_adapters(shelf):
    with shelf.rows(["narrow", None, "uneven"]):
        found = {id(p) for p in trainable(shelf.model)}
    layers = [*shelf.layers("narrow").values(), *shelf.layers("uneven").values()]
    assert found == {id(p) for layer in layers for p in (layer.A, layer.B)}


def test_one_training_loop_trains_several_adapters_at_once(shelf, model):
    before = {
        (name, path): layer.B.clone()
        for name in shelf.names
        for path, layer in shelf.layers(name).items()
    }
    examples = tuple(Encoded(tuple(row.tolist()), 2) for row in TOKENS[:2])
    batches = Batches(examples=examples, batch_size=2, pad_id=0)
    with shelf.rows(["narrow", "uneven"]):
        history = Training(shelf.model, batches, TrainConfig(steps=5, lr=1e-2)).run()
    assert history.losses[-1] < history.losses[0]
    for name in shelf.names:
        layers = shelf.layers(name).items()
        moved = [not torch.equal(layer.B, before[name, path]) for path, layer in layers]
        assert all(moved) if name != "wide" else not any(moved)


def test_answers_follow_values_that_change_within_the_block(shelf):
    with shelf.rows(ROWS), torch.no_grad():
        first = shelf.model(TOKENS)
        for layer in shelf.layers("wide").values():
            layer.B.mul_(2)
        second = shelf.model(TOKENS)
    torch.testing.assert_close(second, one_by_one(shelf, ROWS, TOKENS), rtol=1e-4, atol=1e-4)
    changed = [not torch.equal(a, b) for a, b in zip(first, second, strict=True)]
    assert changed == [name == "wide" for name in ROWS]


def test_without_gradients_the_adapters_are_stacked_once(shelf, monkeypatch):
    stack, times = MixedLinear._stack, []
    monkeypatch.setattr(
        MixedLinear, "_stack", lambda self, dtype: times.append(1) or stack(self, dtype)
    )
    with shelf.rows(ROWS), torch.no_grad():
        for _ in range(3):
            shelf.model(TOKENS)
    assert len(times) == len(shelf.layers("wide"))


def test_every_row_has_its_own_dropout(model, tmp_path):
    configs = {
        "dropped": LoRAConfig(rank=2, dropout=0.5, targets=("q_proj",)),
        "kept": LoRAConfig(rank=2, targets=("q_proj",)),
    }
    shelf, _ = shelf_of(model, tmp_path, configs)
    rows, tokens = ["dropped", "kept", None], TOKENS[:1].expand(3, -1)
    with shelf.rows(rows):
        still = shelf.model(tokens)
        assert torch.equal(still, shelf.model(tokens))
        shelf.model.train()
        means = torch.stack([shelf.model(tokens) for _ in range(50)])
    shelf.model.eval()
    assert torch.equal(means[0, 1:], still[1:])
    assert not torch.equal(means[0, 0], means[1, 0])


def test_dropout_keeps_the_mean(model, tmp_path):
    config = LoRAConfig(rank=1, dropout=0.25, targets=("q_proj",))
    shelf, _ = shelf_of(model, tmp_path, {"dropped": config})
    adapter = next(iter(shelf.layers("dropped").values()))
    mixed = MixedLinear(adapter.base, [adapter], [0, None]).train()
    x = torch.ones(2, 4000, 32)
    torch.manual_seed(0)
    expected = adapter.eval()(x[:1]).mean(1)
    torch.testing.assert_close(mixed(x)[:1].mean(1), expected, rtol=0.05, atol=0.02)
    assert torch.equal(mixed(x)[1], adapter.base(x[1]))


# The block


def test_after_the_block_the_model_is_as_before_even_after_an_error(shelf):
    shelf.switch("narrow")
    modules, answers = dict(shelf.model.named_modules()), shelf.model(TOKENS)
    with pytest.raises(RuntimeError), shelf.rows(ROWS):
        raise RuntimeError
    assert dict(shelf.model.named_modules()) == modules
    assert torch.equal(shelf.model(TOKENS), answers)
    assert shelf.active == "narrow"


@pytest.mark.parametrize(
    "act",
    [
        lambda shelf, folder: shelf.switch("narrow"),
        lambda shelf, folder: shelf.disable(),
        lambda shelf, folder: shelf.delete("wide"),
        lambda shelf, folder: shelf.add("new", folder / "narrow"),
        lambda shelf, folder: shelf.put("new", shelf.layers("narrow")),
        lambda shelf, folder: shelf.rows(["narrow"]).__enter__(),
        lambda shelf, folder: shelf.follow(),
    ],
    ids=["switch", "disable", "delete", "add", "put", "rows", "follow"],
)
def test_within_the_block_nothing_is_exchanged(shelf, tmp_path, act):
    with shelf.rows(ROWS):
        with refused(shelf.model, r"cannot \w+ within rows\(\.\.\.\): leave the block first"):
            act(shelf, tmp_path)
        assert shelf.active is None
        assert [row.active for row in shelf.status().rows] == [False] * 3
    act(shelf, tmp_path)


def test_another_number_of_rows_is_refused(shelf):
    with shelf.rows(ROWS), pytest.raises(ValueError, match=r"batch has 2 rows, .* for 6: name one"):
        shelf.model(TOKENS[:2])


def test_no_rows_and_unknown_names_are_refused(shelf):
    with refused(shelf.model, "names is empty"), shelf.rows([]):
        pass
    with refused(shelf.model, "'wild' is on the shelf; nearest: wide"), shelf.rows(["wild", None]):
        pass


@pytest.mark.parametrize("entry", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["A", "B"])
def test_an_adapter_that_is_not_finite_is_refused_by_name(shelf, part, entry):
    shelf.switch("narrow")
    answers = shelf.model(TOKENS)
    path, layer = list(shelf.layers("wide").items())[-1]
    with torch.no_grad():
        layer.get_parameter(part)[1, 1] = entry
    with refused(shelf.model, f"{path} of 'wide' is not finite"), shelf.rows(ROWS):
        pass
    assert shelf.active == "narrow"
    assert torch.equal(shelf.model(TOKENS), answers)
    with shelf.rows([name for name in ROWS if name != "wide"]):
        assert shelf.model(TOKENS[:4]).isfinite().all()


def test_an_adapter_that_is_switched_off_is_refused_with_the_way_out(shelf):
    base = shelf.model(TOKENS)
    shelf.switch("narrow")
    with disabled(shelf.model):
        with refused(shelf.model, r"of 'narrow' is switched off.* leave disabled\(model\) first"):
            shelf.rows(ROWS).__enter__()
        assert shelf.active == "narrow"
        assert torch.equal(shelf.model(TOKENS), base)
    with shelf.rows(ROWS):
        assert not torch.equal(shelf.model(TOKENS), base)


# Generation


@pytest.mark.parametrize("stop", [[], [3, 17, 40]], ids=["to the end", "stopping"])
def test_a_mixed_batch_generates_what_each_row_does_alone(exact, stop):
    options = {"max_new_tokens": 12, "stop": stop}
    with exact.rows(ROWS):
        together = generate_rows(exact.model, TOKENS.tolist(), **options)
    for name, row, found in zip(ROWS, TOKENS.tolist(), together, strict=True):
        with exact.using(name):
            assert generate(exact.model, row, **options) == found
    assert len({tuple(row) for row in together}) == len(ROWS)
