"""Adapters added: the exact sum, its nearest of a rank, and a shortcut that is another sum."""

import copy
import math

import peft
import pytest
import torch
from adapter_files import hugging_face
from shelves import shelf_of

from lorakit.adapters import save_adapter
from lorakit.combining import Combined, compressed, concatenated, shortcut
from lorakit.lora import LoRAConfig, lora_layers, trainable
from lorakit.spectrum import truncate

ALIKE = {name: LoRAConfig(rank=4, alpha=alpha) for name, alpha in [("a", 4.0), ("b", 12.0)]}
WEIGHTS = [0.5, -2.0]
WAYS = {
    "cat": concatenated,
    "svd": lambda adapters, weights: compressed(adapters, 3, weights),
    "linear": shortcut,
}


@pytest.fixture
def shelf(model, tmp_path):
    return shelf_of(model, tmp_path)[0]


@pytest.fixture
def alike(model, tmp_path):
    return shelf_of(model, tmp_path, ALIKE)[0]


def adapters(shelf) -> list:
    return [shelf.layers(name) for name in shelf.names]


def true_sum(shelf, weights) -> dict[str, torch.Tensor]:
    """By hand, in float64."""
    found: dict[str, torch.Tensor] = {}
    for weight, layers in zip(weights, adapters(shelf), strict=True):
        for path, layer in layers.items():
            delta = weight * layer.config.scale * (layer.B.double() @ layer.A.double())
            found[path] = found.get(path, 0) + delta.detach()
    return found


def distances(made: Combined, expected: dict[str, torch.Tensor]) -> dict[str, float]:
    assert made.layers.keys() == expected.keys()
    return {
        path: ((layer.delta().double() - expected[path]).norm() / expected[path].norm()).item()
        for path, layer in made.layers.items()
    }


# Against PEFT


@pytest.mark.parametrize("weights", [WEIGHTS, [1.0, 1.0]], ids=["weighted", "plain"])
@pytest.mark.parametrize("way", WAYS)
def test_each_way_gives_what_peft_gives(model, alike, tmp_path, way, weights):
    peer = peft.PeftModel.from_pretrained(hugging_face(model), tmp_path / "a", adapter_name="a")
    peer.load_adapter(tmp_path / "b", adapter_name="b")
    options = {"svd_rank": 3} if way == "svd" else {}
    peer.add_weighted_adapter(["a", "b"], weights, "sum", combination_type=way, **options)
    made = WAYS[way](adapters(alike), weights)
    assert len(made.layers) == 14
    for path, layer in made.layers.items():
        expected = peer.get_submodule(f"base_model.model.{path}").get_delta_weight("sum")
        assert layer.config.rank == {"cat": 8, "svd": 3, "linear": 4}[way]
        torch.testing.assert_close(layer.delta(), expected, rtol=1e-4, atol=1e-5)


# The exact sum


def test_the_concatenation_is_the_sum_of_the_deltas_and_of_the_ranks(shelf):
    weights = [1.5, -0.25, 2.0]
    made = concatenated(adapters(shelf), weights)
    assert max(distances(made, true_sum(shelf, weights)).values()) < 1e-6
    assert {layer.config.rank for layer in made.layers.values()} == {2 + 5 + 3}
    assert {layer.config.scale for layer in made.layers.values()} == {1.0}


def test_without_weights_all_are_one(shelf):
    made = concatenated(adapters(shelf))
    assert max(distances(made, true_sum(shelf, [1, 1, 1])).values()) < 1e-6


def test_the_concatenation_of_one_is_that_one(shelf):
    made = concatenated([shelf.layers("uneven")])
    for path, layer in shelf.layers("uneven").items():
        torch.testing.assert_close(made.layers[path].delta(), layer.delta())


def test_its_error_is_measured_and_next_to_nothing(shelf):
    made = concatenated(adapters(shelf), [1.5, -0.25, 2.0])
    assert 0 < made.error < 1e-6
    assert all(error < 1e-6 for error in made.errors.values())


def test_adapters_that_cancel_leave_nothing(shelf):
    wide = shelf.layers("wide")
    made = concatenated([wide, wide], [1.0, -1.0])
    assert all(layer.delta().norm() < 1e-5 for layer in made.layers.values())
    assert made.layers.keys() == wide.keys()


# Cut to a rank


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_cut_is_the_nearest_matrix_of_its_rank(shelf, rank):
    weights = [1.0, 0.5, 2.0]
    made = compressed(adapters(shelf), rank, weights)
    for path, wanted in true_sum(shelf, weights).items():
        nearest = truncate(wanted, rank)
        torch.testing.assert_close(made.layers[path].delta().double(), nearest, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_error_of_the_cut_is_the_distance_from_the_true_sum(shelf, rank):
    weights = [1.0, 0.5, 2.0]
    made = compressed(adapters(shelf), rank, weights)
    wanted = true_sum(shelf, weights)
    assert made.errors == pytest.approx(distances(made, wanted), abs=1e-6)
    missed = [made.layers[path].delta().double() - wanted[path] for path in wanted]
    total = math.hypot(*(matrix.norm() for matrix in wanted.values()))
    assert made.error == pytest.approx(math.hypot(*(m.norm() for m in missed)) / total, abs=1e-6)
    assert made.error > 0.01


def test_more_rank_leaves_less_error_and_all_of_it_next_to_none(shelf):
    errors = [compressed(adapters(shelf), rank).error for rank in (1, 2, 4, 8, 10)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-2] > 1e-3 > 1e-6 > errors[-1]


# The shortcut


def test_the_shortcut_is_the_sum_and_every_product_of_strangers(alike):
    made = shortcut(adapters(alike))
    first, second = adapters(alike)
    for path, layer in made.layers.items():
        a, b = first[path], second[path]  # scales 1 and 3
        cross = math.sqrt(3) * (a.B @ b.A + b.B @ a.A)
        torch.testing.assert_close(layer.delta(), a.delta() + b.delta() + cross)


def test_the_shortcut_tells_how_far_from_the_sum_it_is(alike):
    made = shortcut(adapters(alike), WEIGHTS)
    assert made.errors == pytest.approx(distances(made, true_sum(alike, WEIGHTS)), rel=1e-4)
    assert made.error > 0.3
    assert concatenated(adapters(alike), WEIGHTS).error < 1e-6


@pytest.mark.parametrize("count", [2, 3, 5])
def test_of_unrelated_adapters_it_is_off_by_the_root_of_their_number_less_one(
    model, tmp_path, count
):
    configs = {str(i): LoRAConfig(rank=8) for i in range(count)}
    shelf, _ = shelf_of(model, tmp_path, configs)
    assert shortcut(adapters(shelf)).error == pytest.approx(math.sqrt(count - 1), rel=0.1)


def test_of_an_adapter_and_itself_the_shortcut_is_the_double_of_the_sum(alike):
    one = alike.layers("a")
    made = shortcut([one, one])
    assert made.error == pytest.approx(1.0, rel=1e-4)


# What is made


def test_a_result_goes_on_the_shelf_and_into_a_file(shelf, tokens, tmp_path):
    made = concatenated(adapters(shelf), [1.0, 0.5, 2.0])
    shelf.put("sum", made.layers)
    shelf.switch("sum")
    answers = shelf.model(tokens)
    assert len(trainable(shelf.model)) == 28
    folder = save_adapter(shelf.model, tmp_path / "sum")
    shelf.add("read", folder)
    shelf.switch("read")
    torch.testing.assert_close(shelf.model(tokens), answers)


def test_layers_of_some_adapters_alone_go_into_a_file_too(shelf, tokens, tmp_path):
    made = concatenated([shelf.layers("narrow"), shelf.layers("uneven")])
    assert len(made.layers) == 8
    shelf.put("sum", made.layers)
    shelf.switch("sum")
    answers = shelf.model(tokens)
    shelf.add("read", save_adapter(shelf.model, tmp_path / "sum"))
    shelf.switch("read")
    torch.testing.assert_close(shelf.model(tokens), answers)


def test_where_an_adapter_has_no_layer_its_place_is_zero_in_A_and_in_B(shelf):
    made = concatenated([shelf.layers("wide"), shelf.layers("narrow")])
    for path, layer in made.layers.items():
        filled_up = 7 if path in shelf.layers("narrow") else 5
        assert layer.A.shape[0] == layer.B.shape[1] == 7
        assert layer.A[:filled_up].any(1).all() and layer.B[:, :filled_up].any(0).all()
        assert not layer.A[filled_up:].any() and not layer.B[:, filled_up:].any()


def test_a_result_names_the_layers_that_it_has_and_no_other(shelf):
    narrow, wide, uneven = adapters(shelf)
    for them, targets in (
        ([narrow, wide], next(iter(wide.values())).config.targets),
        ([narrow], ("q_proj", "v_proj")),
        ([narrow, uneven], tuple(concatenated([narrow, uneven]).layers)),
    ):
        layers = concatenated(them).layers
        assert {layer.config.targets for layer in layers.values()} == {targets}


def test_what_is_added_stays_as_it_was(shelf):
    before = {
        (name, path): (layer.A.clone(), layer.B.clone(), layer.config)
        for name in shelf.names
        for path, layer in shelf.layers(name).items()
    }
    for make in (concatenated, lambda them: compressed(them, 2)):
        make(adapters(shelf))
    for (name, path), (A, B, config) in before.items():
        layer = shelf.layers(name)[path]
        assert torch.equal(layer.A, A) and torch.equal(layer.B, B) and layer.config == config


def test_nothing_is_drawn_from_the_global_generator(shelf):
    torch.manual_seed(3)
    concatenated(adapters(shelf))
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda them: concatenated([]), "0 adapters and 0 weights: give at least one"),
        (lambda them: concatenated(them, [1.0]), "3 adapters and 1 weights: .* as many"),
        (lambda them: concatenated(them, [1.0, math.nan, 1.0]), "finite number, got nan"),
        (lambda them: compressed(them, 0), "rank must be at least 1, got 0"),
        (lambda them: shortcut(them), r"adds A's of one rank, these are of \[2, 3, 5\]"),
    ],
)
def test_nonsense_is_refused(shelf, act, message):
    with pytest.raises(ValueError, match=message):
        act(adapters(shelf))


def test_adapters_over_two_bases_are_refused(model, shelf, tmp_path):
    _, alone = shelf_of(copy.deepcopy(model), tmp_path / "other")
    with pytest.raises(ValueError, match="q_proj are over different bases: put all of them on one"):
        concatenated([shelf.layers("wide"), dict(lora_layers(alone["wide"]))])
