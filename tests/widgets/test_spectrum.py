"""The spectrum's controls: a layer, a cut, and alpha after training, each reckoned apart."""

import copy
from dataclasses import replace

import pytest
import torch
from explorables import look
from weights import assert_same_weights, weights

from lorakit.experiment import finetune
from lorakit.lora import lora_layers
from lorakit.scoring import score
from lorakit.spectrum import Spectrum, singular_values
from lorakit.tasks import load_task
from lorakit.text import encode_example
from lorakit.widgets import spectrum as module
from lorakit.widgets.spectrum import ALL, SpectrumExplorer, describe, on_show

Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"


@pytest.fixture
def explorer(full, lora) -> SpectrumExplorer:
    return SpectrumExplorer(full, lora)


def curves(explorer) -> list[tuple[float, ...]]:
    return [tuple(line.get_ydata()) for line in explorer.values.axes.lines]


def times(values, factor: float):
    return pytest.approx([factor * value for value in values])


@pytest.mark.parametrize("layer", [Q, DOWN])
def test_a_layer_on_show_is_that_layers_values_and_no_others(explorer, full, lora, layer):
    explorer.layer.value = layer
    found = {r.run.method: next(s for s in r.spectra if s.layer == layer) for r in (full, lora)}
    assert curves(explorer)[:-1] == [
        found["full"].values,
        found["full"].random,
        found["lora"].values,
        found["lora"].random,
    ]


def test_all_layers_are_on_show_at_first(explorer, full, lora):
    assert explorer.layer.value == ALL
    shown = curves(explorer)
    assert {s.values for result in (full, lora) for s in result.spectra} < set(shown)


def test_every_layer_can_be_chosen(explorer, full):
    assert [*explorer.layer.options.values()] == [ALL, *(s.layer for s in full.spectra)]
    assert "0.self_attn.q_proj" in explorer.layer.options


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_the_line_stands_at_the_cut_and_the_words_hold_its_energies(explorer, cut):
    explorer.layer.value, explorer.cut.value = Q, cut
    assert list(explorer.values.axes.lines[-1].get_xdata()) == [cut, cut]
    (full,), (lora,) = explorer.spectra["full"], explorer.spectra["lora"]
    words = explorer.values.text
    assert f"{full.energy(cut):.0%} of full's energy" in words
    assert f"{lora.energy(cut):.0%} of lora's energy" in words


def test_the_whole_rank_holds_all_of_the_energy(lora):
    explorer = SpectrumExplorer(lora)
    explorer.cut.value = 4
    assert "hold 100% of lora's energy (random: 100%)" in explorer.values.text


def test_the_words_are_in_the_singular_for_a_cut_at_1(lora):
    assert describe({"lora": lora.spectra}, 1).startswith("the first singular value holds ")


@pytest.mark.parametrize("rank", [1, 4])
def test_no_cut_is_offered_beyond_what_there_is(run, rank):
    explorer = SpectrumExplorer(finetune(replace(run, rank=rank, steps=1)))
    assert max(value for _, value in explorer.cut.options) == rank


# Alpha after training


@pytest.mark.parametrize("alpha", [64, 1])
def test_alpha_multiplies_loras_curve_and_leaves_fulls(explorer, alpha):
    explorer.layer.value = Q
    before = curves(explorer)
    explorer.alpha.value = alpha
    after = curves(explorer)
    assert after[:2] == before[:2]
    assert list(after[2]) == times(before[2], alpha / 8)
    explorer.alpha.value = 8
    assert curves(explorer) == before


def test_the_rescaled_curve_is_that_of_the_multiplied_delta(explorer, lora):
    explorer.layer.value, explorer.alpha.value = Q, 64
    delta = dict(lora_layers(lora.model))[Q].delta()
    expected = singular_values(64 / 8 * delta)[:4]
    found = torch.tensor(explorer.spectra["lora"][0].values, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def multiplied(result, factor: float):
    """The same model with every B larger: another way to say what another alpha is."""
    model = copy.deepcopy(result.model)
    for _, layer in lora_layers(model):
        layer.B.data *= factor
    return model


@pytest.mark.parametrize("alpha", [64, 128, 1])
def test_the_loss_at_another_alpha_is_that_of_a_model_with_larger_b(explorer, lora, alpha):
    explorer.alpha.value = alpha
    examples = load_task("json").heldout[: lora.run.heldout]
    encoded = [encode_example(lora.tokenizer, example) for example in examples]
    expected = score(multiplied(lora, alpha / 8), encoded, pad_id=lora.tokenizer.pad_id)
    assert explorer.scores[alpha].loss == pytest.approx(expected.loss, rel=1e-5)
    assert explorer.scores[alpha].loss != explorer.scores[8].loss
    assert (
        f"loss {expected.loss:.3g}, {expected.right} of {lora.run.heldout} held"
        in explorer.loss.value
    )


def test_a_moved_alpha_is_labelled_rescaled_not_retrained_and_the_runs_own_as_trained(explorer):
    at_first = explorer.loss.value
    assert "alpha 8 (as trained), alpha / rank = 2:" in at_first
    explorer.alpha.value = 64
    assert "alpha 64 (rescaled, not retrained), alpha / rank = 16:" in explorer.loss.value
    explorer.alpha.value = 8
    assert explorer.loss.value == at_first


def test_alpha_changes_the_curves_and_the_loss_and_no_energy(explorer):
    before, loss = look(explorer), explorer.loss.value
    explorer.alpha.value = 64
    (png, words), *maps = look(explorer)
    assert png != before[0][0] and explorer.loss.value != loss
    assert words == before[0][1] and maps == before[1:]
    explorer.alpha.value = 8
    assert (look(explorer), explorer.loss.value) == (before, loss)


def test_moving_alpha_leaves_the_model_bit_for_bit_as_it_was(explorer, lora):
    before = weights(lora.model)
    configs = [layer.config for _, layer in lora_layers(lora.model)]
    for alpha in (64, 1, 128):
        explorer.alpha.value = alpha
    assert_same_weights(lora.model, before)
    assert [layer.config for _, layer in lora_layers(lora.model)] == configs


# One result alone, or results that differ


def test_full_alone_has_no_alpha(full):
    explorer = SpectrumExplorer(full)
    assert not hasattr(explorer, "alpha")
    assert explorer.loss.value == ""
    assert list(explorer.spectra) == ["full"]


@pytest.mark.parametrize("count", [0, 2])
def test_two_results_of_a_method_or_none_are_refused(lora, count):
    with pytest.raises(ValueError, match="give a result of full, one of lora, or both, got"):
        SpectrumExplorer(*[lora] * count)


def test_a_layer_that_lora_does_not_adapt_is_shown_for_full_alone(run, full):
    explorer = SpectrumExplorer(full, finetune(replace(run, targets=("q_proj",))))
    explorer.layer.value = DOWN
    assert list(explorer.spectra) == ["full"]
    assert "of full's energy" in explorer.values.text and "lora" not in explorer.values.text


def test_what_is_on_show_is_scaled_from_the_alpha_of_the_run(lora):
    shown = on_show({"lora": lora}, ALL, 8.0)["lora"]
    assert shown == lora.spectra
    assert [type(spectrum) for spectrum in shown] == [Spectrum] * len(lora.spectra)


def test_closed_it_holds_no_result(explorer):
    explorer.close()
    assert explorer.results == {}


def test_an_adapter_that_cannot_be_judged_is_told_until_one_can(explorer, monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST", raising=False)

    def broken(*arguments, **options):
        raise OSError("the task is gone")

    monkeypatch.setattr(module, "rescored", broken)
    explorer.alpha.value = 64
    assert "the task is gone" in explorer.error.value
    explorer.alpha.value = explorer.results["lora"].run.alpha  # this one was judged before
    assert explorer.error.value == ""


def test_while_another_alpha_is_judged_the_model_of_the_run_is_as_it_was(
    explorer, lora, monkeypatch
):
    tokens = torch.arange(3, 12)[None]
    with torch.no_grad():
        before = lora.model(tokens)
    seen = []

    def watch(model, examples, **options):
        configs = {layer.config.alpha for _, layer in lora_layers(lora.model)}
        with torch.no_grad():
            seen.append((configs, lora.model.training, lora.model(tokens)))
        assert {layer.config.alpha for _, layer in lora_layers(model)} == {64}
        return score(model, examples, **options)

    training = lora.model.training
    monkeypatch.setattr(module, "score", watch)
    explorer.alpha.value = 64
    ((configs, mode, after),) = seen
    assert configs == {lora.run.alpha} and mode == training
    assert torch.equal(before, after)
