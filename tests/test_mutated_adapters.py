"""A few damaged adapter files; tests/slow/test_mutated_adapters.py looks at hundreds."""

from mutated_adapters import outcomes


def test_a_damaged_adapter_is_refused_or_loaded_right(model):
    found = outcomes(model, 20)
    assert found["refused"] > 0
    assert found["loaded"] > 0
