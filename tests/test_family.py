"""The family of adapters: 48 forms, all different, each known by its own adapter alone."""

from dataclasses import replace

import pytest
import torch
from adapter_files import contents

from lorakit import family
from lorakit.checkpoint import load_base
from lorakit.experiment import finetune
from lorakit.family import (
    FAMILY,
    FOLDER,
    NEXT,
    OWN,
    RUN,
    exact_match,
    question,
    read_rows,
    train_family,
)
from lorakit.files import read_json
from lorakit.lora import lora_layers
from lorakit.mini_tasks import record_form
from lorakit.run import Run
from lorakit.shelf import Shelf
from lorakit.world import NAMES, VALUES, split_words

RESULTS = FOLDER.parent / "results" / "adapters.json"


def test_the_family_has_48_forms_and_no_two_alike():
    forms = [record_form(int(name.partition("-")[2])) for name in FAMILY]
    assert len(FAMILY) == 48 == len({repr(form) for form in forms})
    assert len({form.order for form in forms}) == 24
    assert len({form.separator for form in forms}) == 3


def test_questions_are_about_names_and_values_that_training_never_shows():
    known = {word for words in (NAMES, *VALUES.values()) for word in words}
    held_out = {w for words in (NAMES, *VALUES.values()) for w in split_words(words, "heldout")}
    for number in range(4):
        asked = question("record-7", number)
        told = known & {*asked.prompt.split(), *asked.response.split()}
        assert len(told) >= 15 and told <= held_out


# The committed files


def test_every_member_has_a_folder_and_a_row_and_there_are_no_others():
    assert {path.name for path in FOLDER.iterdir()} == set(FAMILY)
    assert [row["task"] for row in read_rows(RESULTS)] == list(FAMILY)


def test_every_row_says_that_the_adapter_knows_its_own_form_and_not_the_next():
    for row, after in zip(read_rows(RESULTS), [*FAMILY[1:], FAMILY[0]], strict=True):
        assert row["next"] == after
        assert row["own"] >= OWN == 0.9
        assert row["on_next"] <= NEXT == 0.2
        assert {"device", "torch", "python", "date"} <= row["made"].keys()
    assert read_json(RESULTS)["command"] == "python -m lorakit.family data/adapters"


def test_five_that_are_swapped_answer_their_own_task_and_not_the_next_ones():
    model, tokenizer = load_base("mini")
    shelf = Shelf(model)
    places = (0, 11, 23, 35, 47)
    for place in places:
        shelf.add(FAMILY[place], FOLDER / FAMILY[place])
    for place in (*places, 0):
        shelf.switch(FAMILY[place])
        assert exact_match(model, tokenizer, FAMILY[place], 40) >= 0.9
        assert exact_match(model, tokenizer, FAMILY[(place + 1) % len(FAMILY)], 40) <= 0.2
    shelf.disable()
    assert exact_match(model, tokenizer, FAMILY[0], 40) == 0


def test_all_48_adapters_take_less_room_than_the_base():
    base = sum(len(content) for content in contents(FOLDER.parent / "base").values())
    adapters = sum(len(content) for content in contents(FOLDER).values())
    assert adapters < 2_500_000 < base
    assert 48 * base > 50 * adapters


# The command, on a small base


@pytest.fixture
def brief(small_base, monkeypatch) -> Run:
    """Two steps, and any score is good enough."""
    monkeypatch.setattr(family, "OWN", 0.0)
    monkeypatch.setattr(family, "NEXT", 1.0)
    return replace(RUN, base=small_base, steps=2, batch_size=2, heldout=3)


TASKS = ("record-0", "record-25", "record-50")


def test_a_family_is_trained_and_each_adapter_is_the_runs_own(brief, tmp_path):
    said = []
    results = tmp_path / "rows.json"
    rows = train_family(tmp_path / "out", results, tasks=TASKS, run=brief, report=said.append)
    assert [row["task"] for row in rows] == list(TASKS)
    assert [row["next"] for row in rows] == ["record-25", "record-50", "record-0"]
    assert rows == read_rows(results)
    assert len(said) == 3 and "left" in said[0]
    alone = finetune(replace(brief, task="record-25"))
    shelf = Shelf(load_base(brief.base)[0])
    shelf.add("one", tmp_path / "out" / "record-25")
    own = dict(shelf.layers("one"))
    for path, layer in lora_layers(alone.model):
        assert torch.equal(own[path].A, layer.A) and torch.equal(own[path].B, layer.B)


def test_stopped_and_called_again_it_does_what_is_missing(brief, tmp_path):
    results, out, said = tmp_path / "rows.json", tmp_path / "out", []

    def stop(sentence):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_family(out, results, tasks=TASKS, run=brief, report=stop)
    first = contents(out / "record-0")
    assert [row["task"] for row in read_rows(results)] == ["record-0"]
    train_family(out, results, tasks=TASKS, run=brief, report=said.append)
    assert [line.partition(":")[0] for line in said] == ["record-25", "record-50"]
    assert contents(out / "record-0") == first
    said.clear()
    train_family(out, results, tasks=TASKS, run=brief, report=said.append)
    assert said == []


def test_another_run_trains_all_anew(brief, tmp_path):
    results, out, said = tmp_path / "rows.json", tmp_path / "out", []
    train_family(out, results, tasks=TASKS[:2], run=brief)
    first = contents(out)
    longer = replace(brief, steps=3)
    train_family(out, results, tasks=TASKS[:2], run=longer, report=said.append)
    assert len(said) == 2
    assert contents(out) != first


def test_an_adapter_that_fails_is_not_kept(brief, tmp_path, monkeypatch):
    monkeypatch.setattr(family, "OWN", 0.9)
    with pytest.raises(ArithmeticError, match=r"record-0 has an exact match of 0 on its own"):
        train_family(tmp_path / "out", tmp_path / "rows.json", tasks=TASKS, run=brief)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "rows.json").exists()


def test_ctrl_c_says_what_is_kept_and_exits_as_interrupted(monkeypatch, tmp_path, capsys):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(family, "train_family", interrupted)
    monkeypatch.setattr("sys.argv", ["family", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as exit_:
        family.main()
    assert exit_.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
