"""Bytes as they are written, and a step held against them."""

import pytest

from lorakit.cli.budget import parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("536870912", 536_870_912),
        ("1 B", 1),
        ("3kB", 3_000),
        ("3KiB", 3_072),
        ("500 MB", 500_000_000),
        ("500 MiB", 524_288_000),
        ("24GB", 24_000_000_000),
        ("8GiB", 8_589_934_592),
        (" 8 gib ", 8_589_934_592),
        ("1.5GiB", 1_610_612_736),
        ("0.1 GB", 100_000_000),
        ("2TB", 2_000_000_000_000),
        ("2TiB", 2_199_023_255_552),
    ],
)
def test_bytes_are_read_with_decimal_and_binary_units(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "lots", "8G", "8 GB 1", "-1GB", "1e9", "1,5GB", "1.GB", "nan", "8bit", "inf"]
)
def test_what_is_no_number_of_bytes_is_named_with_a_way_to_write_it(text):
    with pytest.raises(ValueError, match="is no number of bytes: write it like 8GiB") as refused:
        parse_bytes(text)
    assert str(refused.value).startswith(repr(text))
