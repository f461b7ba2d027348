"""The decoder computes what a Llama computes."""

import dataclasses

import pytest
import torch
import transformers

from lorakit.attention import attend
from lorakit.model import KVCache, Llama, ModelConfig, RopeScaling, rotate, rotation

CASES = {
    "grouped heads, tied": {},
    "plain heads, untied": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "llama 3 rotations": {"rope_scaling": RopeScaling(original_max_position_embeddings=16)},
}


def test_no_token_sees_the_future(model, tokens):
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % model.config.vocab_size
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(after[:, :5], before[:, :5])
    assert (after[:, 5:] - before[:, 5:]).abs().amin(dim=(0, 2)).shape == (4,)
    assert all((after[:, i] - before[:, i]).abs().max() > 1e-4 for i in range(5, 9))


@pytest.mark.parametrize("pieces", [(1,) * 9, (4, 5), (3, 1, 5)])
def test_a_sequence_read_in_pieces_gives_the_logits_of_the_whole(model, tokens, pieces):
    kv = KVCache(model.config, batch=2, capacity=9, dtype=torch.float32, device="cpu")
    logits = torch.cat([model(piece, kv) for piece in tokens.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(logits, model(tokens))


@pytest.mark.parametrize("cached", [False, True])
def test_the_head_may_be_asked_for_the_last_token_alone(model, tokens, cached):
    kv = KVCache(model.config, 2, 9, dtype=torch.float32, device="cpu") if cached else None
    seen = []
    model.lm_head.register_forward_hook(lambda _, given, made: seen.append(given[0].shape))
    torch.testing.assert_close(model(tokens, kv, last=True), model(tokens)[:, -1:])
    assert seen[0] == (2, 1, model.config.hidden_size)


def test_every_layer_attends_as_its_attribute_says(model, tokens, monkeypatch):
    told = []

    def noted(q, k, v, mask, shared):
        told.append(shared)
        return attend(q, k, v, mask, shared)

    monkeypatch.setattr("lorakit.model.attend", noted)
    model.model.layers[1].self_attn.shared = False
    model(tokens)
    assert told == [None, False]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_shared_keys_have_the_gradients_of_keys_copied_for_each_head(model, tokens, checkpointing):
    net = model.double()
    net.gradient_checkpointing = checkpointing
    found = []
    for shared in (True, False):
        for layer in net.model.layers:
            layer.self_attn.shared = shared
        net.zero_grad()
        logits = net(tokens)
        logits.square().mean().backward()
        found.append([logits.detach(), *(p.grad for p in net.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_rotary_scores_depend_on_distance_alone(model):
    cos, sin = rotation(model.config, torch.arange(20))
    q, k = torch.randn(2, model.config.head_dim)
    turned_q, turned_k = rotate(q.expand(20, -1), cos, sin), rotate(k.expand(20, -1), cos, sin)
    scores = turned_q @ turned_k.T
    torch.testing.assert_close(scores[3, 1], scores[19, 17])
    assert abs(scores[3, 1] - scores[3, 2]) > 1e-3


def test_rotations_stay_exact_when_the_weights_are_rounded(model):
    before = rotation(model.config, torch.arange(50))
    model.bfloat16()
    after = rotation(model.config, torch.arange(50))
    assert torch.equal(before[0], after[0])
    assert after[0].dtype == torch.float32


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_logits_equal_hugging_face_llama(model, changes):
    config = dataclasses.replace(model.config, **changes)
    torch.manual_seed(0)
    ours = Llama(config)
    settings = dataclasses.asdict(config)
    scaling = settings.pop("rope_scaling")
    parameters = {"rope_theta": settings.pop("rope_theta"), "rope_type": "default"}
    if scaling:
        parameters |= {"rope_type": "llama3"} | scaling
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**settings, rope_parameters=parameters, attention_bias=False)
    ).eval()
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randint(config.vocab_size, (2, 40))
    with torch.no_grad():
        expected, got = theirs(tokens).logits, ours(tokens)
    assert (got - expected).abs().max() / expected.abs().max() < 1e-5


def test_a_sequence_over_the_limit_is_refused_with_both_numbers(model):
    with pytest.raises(ValueError, match=r"65 tokens .*max_position_embeddings=64"):
        model(torch.zeros(1, 65, dtype=torch.long))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 30}, "hidden_size=30 must be an even multiple"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, got 0"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(model, changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{**vars(model.config), **changes})
