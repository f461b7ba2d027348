"""Hundreds of damaged adapter files: none crashes, none is loaded by halves."""

from mutated_adapters import DAMAGES, outcomes


def test_a_damaged_adapter_is_refused_or_loaded_right(model):
    found = outcomes(model, 600)
    assert found["refused"] + found["loaded"] >= 600
    assert found["refused"] > 200
    assert found["loaded"] > 30
    kinds = {what.partition(":")[0] for what in found} - {"refused", "loaded"}
    assert kinds == {damage.__name__.removeprefix("damage_") for damage in DAMAGES}
