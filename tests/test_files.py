"""What is written is wholly there or not there at all."""

import json

import pytest

from lorakit.files import read_json, replacing, settle, write_json


def listing(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_a_file_takes_its_name_when_it_is_complete(tmp_path):
    target = tmp_path / "deep" / "note.txt"
    with replacing(target) as fresh:
        fresh.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert listing(target.parent) == ["note.txt"]


def test_an_error_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "note.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as fresh:
        fresh.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert listing(tmp_path) == ["note.txt"]


def test_a_folder_replaces_a_folder_whole(tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "stale.txt").write_text("old")
    with replacing(target) as fresh:
        fresh.mkdir()
        (fresh / "new.txt").write_text("new")
    assert listing(tmp_path) == ["run", "run/new.txt"]


def test_an_error_leaves_the_old_folder(tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "kept.txt").write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as fresh:
        fresh.mkdir()
        raise RuntimeError
    assert listing(tmp_path) == ["run", "run/kept.txt"]


def test_others_may_read_what_a_library_wrote_for_one_alone(tmp_path):
    plain = tmp_path / "plain.txt"
    plain.write_text("as usual")
    with replacing(tmp_path / "run") as fresh:
        fresh.mkdir()
        (fresh / "secret.bin").write_bytes(b"")
        (fresh / "secret.bin").chmod(0o600)
    assert (tmp_path / "run" / "secret.bin").stat().st_mode == plain.stat().st_mode


def test_an_exchange_cut_in_two_brings_the_old_folder_back(tmp_path):
    aside = tmp_path / ".run.lorakit-old"
    aside.mkdir()
    (aside / "kept.txt").write_text("old")
    settle(tmp_path / "run")
    assert listing(tmp_path) == ["run", "run/kept.txt"]


def test_reading_clears_nothing_away_and_writing_clears_its_own_leftovers(tmp_path):
    for name in ("run", ".run.lorakit-old", ".run.old"):
        (tmp_path / name).mkdir()
    settle(tmp_path / "run")
    assert listing(tmp_path) == [".run.lorakit-old", ".run.old", "run"]
    with replacing(tmp_path / "run") as fresh:
        fresh.mkdir()
    assert listing(tmp_path) == [".run.old", "run"]


def test_json_goes_there_and_back_and_refuses_what_json_cannot_hold(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": [1, 2.5, None]})
    assert read_json(path) == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert json.loads(path.read_text()) == {"a": [1, 2.5, None]}


def test_a_damaged_json_file_is_named(tmp_path):
    path = tmp_path / "value.json"
    path.write_text('{"a": ')
    with pytest.raises(ValueError, match=r"value\.json is not readable JSON"):
        read_json(path)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "c": 2, "a": 3}}]'])
def test_a_field_that_stands_twice_is_named(tmp_path, text):
    path = tmp_path / "value.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"value\.json is not readable JSON: 'a' stands .* twice"):
        read_json(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000], ids=["deep", "long"])
def test_json_beyond_the_parsers_limits_is_refused_as_no_json(tmp_path, text):
    path = tmp_path / "value.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"value\.json is not readable JSON"):
        read_json(path)
