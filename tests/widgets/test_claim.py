"""A claim on show: its committed curves, its verdict, and the model it was judged on."""

import pytest
from explorables import assert_moves, look

from lorakit.claims.evidence import claims
from lorakit.widgets import ClaimExplorer


@pytest.mark.parametrize("name", [claim["name"] for claim in claims()])
def test_every_claim_is_drawn_with_its_verdict_and_its_numbers(name):
    explorer = ClaimExplorer(name)
    assert explorer.picture.value
    assert explorer.judged["verdict"] in explorer.picture.text
    assert explorer.judged["measured"] in explorer.picture.text


def test_without_its_verdict_it_says_what_was_measured_and_no_more():
    explorer = ClaimExplorer("H10", verdict=False)
    assert explorer.picture.text == f"mini: {explorer.judged['measured']} (6 seeds)"


def test_the_other_model_is_another_picture_there_and_back():
    explorer = ClaimExplorer("H5")
    assert_moves(explorer, explorer.model, "smollm2", explorer.pictures)


def test_a_model_asked_for_is_the_one_on_show():
    assert look(ClaimExplorer("H5", "smollm2")) != look(ClaimExplorer("H5"))


def test_a_claim_judged_on_one_model_alone_has_no_choice():
    assert ClaimExplorer("H11").model not in ClaimExplorer("H11").children
    assert ClaimExplorer("H5").model.options == ("mini", "smollm2")


def test_what_was_drawn_by_no_chance_names_no_seeds():
    assert "seeds)" not in ClaimExplorer("H3").picture.text
    assert ClaimExplorer("H11").picture.text.endswith("(5 seeds)")


def test_an_unknown_claim_or_model_is_refused_with_those_that_are_there():
    with pytest.raises(ValueError, match="no claim is named 'H99': choose one of H1, "):
        ClaimExplorer("H99")
    with pytest.raises(ValueError, match="'H11' was not judged on 'smollm2': choose mini"):
        ClaimExplorer("H11", "smollm2")
