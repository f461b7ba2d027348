"""Decoding: a forward whose position is a tensor says what the ordinary one does, each token."""

import pytest
import torch

from lorakit import decoding
from lorakit.decoding import AFTER, PAYS, Decoding, can_record, clear, evaluating, step
from lorakit.generation import generate, generate_rows, stream
from lorakit.lora import LoRAConfig, inject, lora_layers
from lorakit.model import KVCache
from lorakit.qlora import quantize_

PROMPT = [5, 17, 3, 42]


class Graph:
    """Stands in for `Captured` where there is no GPU: what would be recorded is called."""

    def __init__(self, function, inputs, *, state):
        assert tuple(state) == ()
        self.function, self.shapes = function, [value.shape for value in inputs]
        self.calls = 0
        for _ in range(3):  # as recording does
            function(*inputs)

    def __call__(self, *values):
        assert [value.shape for value in values] == self.shapes
        self.calls += 1
        return self.function(*values)


@pytest.fixture
def graphs(monkeypatch) -> list[Graph]:
    """All graphs that are recorded."""
    made: list[Graph] = []

    def record(*args, **options):
        made.append(Graph(*args, **options))
        return made[-1]

    monkeypatch.setattr(decoding, "Captured", record)
    monkeypatch.setattr(decoding, "can_record", lambda model: True)
    return made


@pytest.mark.parametrize("heads", [2, 4])
def test_a_token_at_a_position_that_is_a_tensor_gets_the_same_logits(model, tokens, heads):
    config = (
        model.config
        if heads == 2
        else type(model.config)(**vars(model.config) | {"num_key_value_heads": 4})
    )
    net = type(model)(config)
    kv = KVCache(config, 2, 16, dtype=torch.float32, device="cpu")
    for tensor in (*kv.keys, *kv.values):
        tensor.fill_(float("nan"))  # whatever lay in that memory
    with torch.no_grad():
        expected = net(tokens)
        net(tokens[:, :4], kv)
        clear(kv)
        for place in range(4, 9):
            for _ in range(2):  # again: the same
                found = step(net, kv, tokens[:, place : place + 1], torch.tensor([place]))
                torch.testing.assert_close(found, expected[:, place])
    assert kv.length == 4


@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "top_p": 0.9, "seed": 7}])
@pytest.mark.parametrize("kind", ["plain", "adapted", "4 bits, adapted"])
def test_a_replayed_answer_is_the_ordinary_one(model, perturb, graphs, kind, options):
    if "4 bits" in kind:
        quantize_(model)
    if "adapted" in kind:
        inject(model, LoRAConfig(rank=3))
        perturb(model)
    expected = generate(model, PROMPT, max_new_tokens=50, captured=False, **options)
    assert graphs == [] and len(set(expected)) > 1
    assert generate(model, PROMPT, max_new_tokens=50, **options) == expected
    (graph,) = graphs
    assert graph.calls == 50 - AFTER


def test_replayed_rows_are_the_ordinary_ones(model, graphs):
    prompts = [PROMPT, [9, 9, 1, 50], [60, 2, 2, 8]]
    expected = generate_rows(model, prompts, max_new_tokens=20, captured=False)
    assert generate_rows(model, prompts, max_new_tokens=20) == expected
    assert len({tuple(row) for row in expected}) == 3 and graphs[0].calls == 20 - AFTER


def test_an_answer_may_fill_the_model_to_its_limit(model, graphs):
    expected = generate(model, PROMPT, max_new_tokens=1000, cached=False)
    assert generate(model, PROMPT, max_new_tokens=1000) == expected
    assert len(expected) == 60 and graphs


def test_a_short_answer_is_not_recorded(model, graphs):
    tokens = generate(model, PROMPT, max_new_tokens=50, captured=False)
    for stop in (tokens[:1], tokens[1:2]):  # one that ends early
        generate(model, PROMPT, max_new_tokens=50, stop=stop)
    generate(model, PROMPT, max_new_tokens=PAYS + AFTER - 2)  # and one that must
    assert graphs == []
    generate(model, PROMPT, max_new_tokens=PAYS + AFTER - 1)
    assert len(graphs) == 1


def test_each_call_records_anew(model, perturb, graphs):
    before = generate(model, PROMPT, max_new_tokens=30)
    inject(model, LoRAConfig(rank=3))
    perturb(model, 1.0)
    assert generate(model, PROMPT, max_new_tokens=30) != before
    assert len(graphs) == 2


def test_what_a_graph_knows_by_its_address_stays_while_the_answer_lasts(model, graphs):
    inject(model, LoRAConfig(rank=3))
    read = Decoding(model, 1, 40)
    for token in [PROMPT, *([i] for i in range(4))]:
        read(torch.tensor([token]))
    assert len(graphs) == 1
    (_, layer), *_ = lora_layers(model)
    held = {id(thing) for thing in read._held}
    assert id(layer) in held
    pointers = {thing.data_ptr() for thing in read._held if isinstance(thing, torch.Tensor)}
    assert layer.A.data_ptr() in pointers and model.lm_head.weight.data_ptr() in pointers


def test_nothing_is_recorded_on_a_cpu(model):
    assert not can_record(model)
    assert len(generate(model, PROMPT, max_new_tokens=30)) == 30


def test_dropout_is_off_in_what_is_recorded(model, perturb, graphs):
    inject(model, LoRAConfig(rank=3, dropout=0.5))
    perturb(model)
    model.train()
    recorded = []

    def seen(module, _, __):
        recorded.append(module.training)

    lora_layers(model)[0][1].register_forward_hook(seen)
    tokens = stream(model, PROMPT, max_new_tokens=30)
    for _ in range(AFTER + 1):
        next(tokens)
    (graph,) = graphs
    assert graph.calls == 1 and model.training
    # The prompt, two tokens, and three times while recording; replayed it is as recorded.
    assert recorded[: AFTER + 3] == [False] * (AFTER + 3)


def test_each_module_has_its_own_mode_again(model):
    model.eval()
    model.lm_head.train()
    with pytest.raises(RuntimeError, match="stop"), evaluating(model.modules()):
        assert not model.lm_head.training
        raise RuntimeError("stop")
    assert model.lm_head.training and not model.training and not model.model.training
