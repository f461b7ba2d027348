"""The cut explorable: its scores are those of a model cut by hand, each made once, none kept."""

import copy
import gc
import weakref
from dataclasses import replace

import pytest
import torch
from explorables import assert_moves, look
from weights import assert_same_weights, weights

from lorakit.adapters import load_adapter, save_adapter
from lorakit.checkpoint import load_base
from lorakit.lora import ALL_LINEAR, lora_layers, target_layers
from lorakit.scoring import Score, score
from lorakit.spectrum import energy
from lorakit.tasks import load_task
from lorakit.text import encode_example
from lorakit.widgets import truncation as module
from lorakit.widgets.truncation import BASE, TRAINED, TruncationExplorer, describe


@pytest.fixture
def explorer(learnt) -> TruncationExplorer:
    return TruncationExplorer(learnt)


@pytest.fixture
def judged(monkeypatch) -> list[int]:
    """One entry for each time that a model is judged: how many examples."""
    seen = []

    def counted(model, examples, **options):
        seen.append(len(examples))
        return score(model, examples, **options)

    monkeypatch.setattr(module, "score", counted)
    return seen


def by_hand(result, model) -> Score:
    """What the model scores on the first 64 held-out examples."""
    examples = load_task(result.run.task).heldout[:64]
    encoded = [encode_example(result.tokenizer, example) for example in examples]
    return score(model, encoded, pad_id=result.tokenizer.pad_id)


@torch.no_grad()
def cut_by_hand(result, rank: int, rest: str):
    """The fine-tune with W + U diag(values) V^T from PyTorch's own SVD in each linear layer."""
    base = load_base(result.run.base)[0]
    model = copy.deepcopy(result.model if rest == TRAINED else base)
    before = target_layers(base, ALL_LINEAR)
    for name, layer in target_layers(model, ALL_LINEAR).items():
        change = result.model.get_submodule(name).weight - before[name].weight
        U, values, Vh = torch.linalg.svd(change.double())
        kept = (U[:, :rank] * values[:rank]) @ Vh[:rank]
        layer.weight.copy_(before[name].weight + kept.float())
    return model


def test_by_hand_the_cut_at_full_rank_is_the_fine_tune(learnt):
    """The yardstick of the tests below."""
    model = cut_by_hand(learnt, 32, TRAINED)
    for name, p in learnt.model.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), p, rtol=0, atol=1e-5)


# Scores


@pytest.mark.parametrize("rest", [TRAINED, BASE])
@pytest.mark.parametrize("rank", [0, 1, 4, 32])
def test_the_words_hold_the_score_of_a_model_cut_by_hand(explorer, learnt, rank, rest):
    explorer.rank.value, explorer.rest.value = rank, rest
    expected = by_hand(learnt, cut_by_hand(learnt, rank, rest))
    found = explorer.cuts[rest, rank]
    assert (found.right, found.count) == (expected.right, 64)
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    where = f"rank {rank}, other weights {rest}, "
    right = f"{where}right of 64: cut {expected.right}, random delta "
    assert explorer.match.text.startswith(right)
    assert explorer.loss.text.startswith(f"{where}loss: cut {found.loss:.3g}, random delta ")


def test_the_cut_is_worth_something_so_that_the_tests_here_can_fail(explorer):
    explorer.rank.value = 4
    assert explorer.cuts[TRAINED, 4].right == 32 > explorer.chances[TRAINED, 4].right
    explorer.rank.value = 1
    assert explorer.cuts[TRAINED, 1].loss > 1.5 * explorer.cuts[TRAINED, 4].loss


def test_the_lines_are_the_whole_fine_tune_and_the_base(explorer, learnt):
    whole, base = by_hand(learnt, learnt.model), by_hand(learnt, load_base(learnt.run.base)[0])
    assert (explorer.whole.right, explorer.before.right) == (whole.right, base.right)
    assert explorer.whole.loss == pytest.approx(whole.loss, rel=1e-5)
    assert explorer.before.loss == pytest.approx(base.loss, rel=1e-5)
    ends = f"whole fine-tune {whole.right}, base {base.right}"
    assert explorer.match.text.endswith(ends)
    ends = f"whole fine-tune {explorer.whole.loss:.3g}, base {explorer.before.loss:.3g}"
    assert explorer.loss.text.endswith(ends)


def test_the_whole_delta_is_the_fine_tune_and_none_with_the_rest_of_the_base_is_the_base(explorer):
    explorer.rank.value = 32
    assert explorer.cuts[TRAINED, 32].right == explorer.whole.right
    assert explorer.cuts[TRAINED, 32].loss == pytest.approx(explorer.whole.loss, rel=1e-4)
    explorer.rank.value, explorer.rest.value = 0, BASE
    assert explorer.cuts[BASE, 0] == explorer.chances[BASE, 0] == explorer.before


def test_the_control_group_is_a_random_delta_of_each_layers_norm_cut_alike(explorer, learnt):
    for delta, chance in zip(explorer.deltas, explorer.chance, strict=True):
        assert (chance.layer, chance.shape) == (delta.layer, delta.shape)
        assert chance.norm == pytest.approx(delta.norm, rel=1e-5)
    explorer.rank.value = 2
    model = copy.deepcopy(learnt.model)
    base = load_base(learnt.run.base)[0]
    with torch.no_grad():
        for chance in explorer.chance:
            weight = model.get_submodule(chance.layer).weight
            weight.copy_(base.get_submodule(chance.layer).weight + chance.matrix(2))
    expected = by_hand(learnt, model)
    found = explorer.chances[TRAINED, 2]
    assert found.right == expected.right
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert f"random delta {found.right}, " in explorer.match.text
    assert f"random delta {found.loss:.3g}, " in explorer.loss.text


@pytest.mark.parametrize(("asked", "judge"), [(4, 64), (64, 64), (70, 70)])
def test_at_least_64_judge_and_as_many_as_judged_the_run(learnt, judged, asked, judge):
    TruncationExplorer(replace(learnt, run=replace(learnt.run, heldout=asked)))
    assert set(judged) == {judge}


def test_a_choice_is_judged_once_with_its_control_group(explorer, judged):
    explorer.rank.value = 2
    assert len(judged) == 2
    explorer.rank.value = 4
    explorer.rest.value = BASE
    assert len(judged) == 6
    for rank, rest in ((2, TRAINED), (4, TRAINED), (4, BASE)):
        explorer.rest.value, explorer.rank.value = rest, rank
    assert len(judged) == 6
    assert set(explorer.cuts) == {(TRAINED, 8), (TRAINED, 2), (TRAINED, 4), (BASE, 4)}


def test_a_run_judged_by_as_many_is_not_judged_again(learnt, judged):
    """64 examples or more: base and fine-tune have scores of the same examples already."""
    explorer = TruncationExplorer(learnt)
    assert len(judged) == 4  # fine-tune and base, the cut and its control group
    judged.clear()
    again = TruncationExplorer(replace(learnt, before=explorer.before, after=explorer.whole))
    assert len(judged) == 2
    assert (again.before, again.whole) == (explorer.before, explorer.whole)


def test_a_slider_that_moves_moves_the_line_and_judges_nothing_until_it_rests(
    explorer, monkeypatch, judged
):
    asked = []
    monkeypatch.setattr(explorer._later, "ask", lambda: asked.append(explorer.rank.value))
    before = look(explorer)
    explorer.rank.value = 2
    explorer.rank.value = 1
    now = look(explorer)
    assert now[0] != before[0] and now[1:] == before[1:]
    assert (asked, judged) == ([2, 1], [])
    explorer._judge()
    assert set(explorer.cuts) == {(TRAINED, 8), (TRAINED, 1)}  # where it rests, and no other
    assert look(explorer)[1:] != before[1:]


def test_a_cell_gets_the_scores_at_once_and_the_slider_asks_no_more(explorer, monkeypatch, judged):
    monkeypatch.setattr(explorer._later, "ask", lambda: None)  # as while a cell runs
    explorer.rank.value, explorer.rest.value = 2, BASE
    assert (BASE, 2) not in explorer.cuts
    found, chance = explorer.scores()
    assert (found, chance) == (explorer.cuts[BASE, 2], explorer.chances[BASE, 2])
    assert f"rank 2, other weights {BASE}, " in explorer.match.text
    assert explorer.scores() == (found, chance) and len(judged) == 2


def test_the_cut_is_on_show_before_its_control_group_is_judged(explorer, monkeypatch):
    seen = []

    def watch(model, examples, **options):
        seen.append((explorer.match.text, lines(explorer.match)))
        return score(model, examples, **options)

    monkeypatch.setattr(module, "score", watch)
    explorer.rank.value = 2
    (before, _), (between, points) = seen
    assert before.startswith("rank 8, ")
    right = explorer.cuts[TRAINED, 2].right
    assert f"right of 64: cut {right}, random delta ..., whole" in between
    assert ([explorer.ranks.index(2)], [right / 64]) in points
    assert "..." not in explorer.match.text + explorer.loss.text


def test_judging_leaves_the_runs_model_and_the_base_as_they_were(explorer, learnt):
    before, base = weights(learnt.model), weights(explorer.base)
    modes = learnt.model.training, explorer.base.training
    for rest in (BASE, TRAINED):
        explorer.rest.value = rest
        explorer.rank.value = 1 if rest == BASE else 4
    assert_same_weights(learnt.model, before)
    assert_same_weights(explorer.base, base)
    assert (learnt.model.training, explorer.base.training) == modes


# Pictures


def lines(picture) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in picture.axes.lines]


def test_the_scores_tried_so_far_are_on_show_for_these_other_weights_only(explorer):
    explorer.rank.value = 2
    explorer.rest.value = BASE
    explorer.rank.value = 1
    places = [explorer.ranks.index(k) for k in (1, 2)]
    for picture, number in ((explorer.match, "exact_match"), (explorer.loss, "loss")):
        chances = [getattr(explorer.chances[BASE, k], number) for k in (1, 2)]
        cuts = [getattr(explorer.cuts[BASE, k], number) for k in (1, 2)]
        shown = lines(picture)
        assert (places, chances) in shown and (places, cuts) in shown
        whole, base = getattr(explorer.whole, number), getattr(explorer.before, number)
        assert [ys for _, ys in shown[:2]] == [[whole, whole], [base, base]]


def test_a_first_visit_leaves_a_point_and_a_second_none(explorer):
    at_first = look(explorer)
    explorer.rank.value = 1
    explorer.rank.value = 8
    visited = look(explorer)
    assert visited[0] == at_first[0] and visited[1] != at_first[1] and visited[2] != at_first[2]
    assert_moves(explorer, explorer.rank, 1, explorer.pictures)


@pytest.mark.parametrize("rank", [0, 1, 32])
def test_the_words_hold_the_energy_that_is_kept(explorer, learnt, rank):
    explorer.rank.value = rank
    shares = sorted(spectrum.energy(rank) for spectrum in learnt.spectra)
    assert len(shares) == 7
    assert f"rank {rank} of 32: keeps {shares[3]:.1%} of the delta's" in explorer.values.text
    chances = sorted(energy(spectrum.random, rank) for spectrum in learnt.spectra)
    assert f"energy, of a random delta's {chances[3]:.1%} (" in explorer.values.text
    assert explorer.values.text == describe(explorer.spectra, rank)
    assert "medians over 7 layers" in explorer.values.text


def test_the_ranks_are_none_powers_of_two_and_all(explorer):
    assert explorer.ranks == (0, 1, 2, 4, 8, 16, 32)
    assert explorer.rank.value == 8


# The adapter


def test_the_adapter_is_the_cut_with_the_base_around_it(explorer, learnt, tmp_path):
    explorer.rank.value, explorer.rest.value = 4, BASE
    adapter = explorer.adapter()
    assert {layer.config.rank for _, layer in lora_layers(adapter)} == {4}
    found = by_hand(learnt, adapter)
    assert found.right == explorer.cuts[BASE, 4].right
    assert found.loss == pytest.approx(explorer.cuts[BASE, 4].loss, rel=1e-4)
    other = load_base(learnt.run.base)[0]
    load_adapter(other, save_adapter(explorer.adapter(2), tmp_path / "adapter"))
    expected = by_hand(learnt, cut_by_hand(learnt, 2, BASE))
    assert by_hand(learnt, other).loss == pytest.approx(expected.loss, rel=1e-4)


def test_rank_0_has_no_adapter(explorer):
    explorer.rank.value = 0
    with pytest.raises(ValueError, match="rank must be a whole number of at least 1, got 0"):
        explorer.adapter()


# Its life


def test_a_lora_run_is_refused_with_what_to_give(lora):
    with pytest.raises(ValueError, match="full fine-tune, got a run of 'lora': give a result of"):
        TruncationExplorer(lora)
    gc.collect()  # a widget that was never made whole is closed nonetheless, and without a word


def test_closed_it_lets_go_of_the_models(explorer):
    held = [weakref.ref(explorer.base), weakref.ref(explorer._plain)]
    held += [weakref.ref(delta) for delta in [*explorer.deltas, *explorer.chance]]
    explorer.close()
    gc.collect()
    assert explorer.result is None
    assert [thing() for thing in held] == [None] * len(held)
    with pytest.raises(ValueError, match="closed and its models are gone"):
        explorer.adapter(2)
    explorer.close()  # a page that goes closes all that is left, closed or not


def test_a_cut_that_cannot_be_judged_is_told_until_one_can(explorer, monkeypatch):
    monkeypatch.delenv("LORAKIT_TEST", raising=False)

    def broken(model, examples, *, progress, **options):
        progress(3)
        assert explorer.status.value == "judging, 3 of 64"
        raise OSError("the task is gone")

    monkeypatch.setattr(module, "score", broken)
    explorer.rank.value = 2
    assert "the task is gone" in explorer.error.value
    assert explorer.status.value == ""
    explorer.rank.value = 8  # this one was judged before
    assert explorer.error.value == ""
