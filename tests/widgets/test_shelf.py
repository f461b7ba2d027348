"""The shelf explorable: another adapter, another answer, and back; bytes of real files."""

import gc
import shutil
import weakref

import pytest
from explorables import assert_keeps_nothing, assert_moves, controls, look, values

from lorakit.adapters import load_adapter
from lorakit.checkpoint import MINI_FOLDER, load_base
from lorakit.family import FAMILY, FOLDER, form, question
from lorakit.generation import ask
from lorakit.plots.style import size
from lorakit.widgets import ShelfExplorer
from lorakit.widgets import shelf as module
from lorakit.widgets.shelf import NONE, PROMPTS

NAMES = ["record-0", "record-53", "record-75"]


@pytest.fixture
def folder(tmp_path):
    """Three of the family's adapters."""
    for name in NAMES:
        shutil.copytree(FOLDER / name, tmp_path / "adapters" / name)
    return tmp_path / "adapters"


@pytest.fixture
def explorer(folder) -> ShelfExplorer:
    return ShelfExplorer(folder=folder)


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """One entry for each time that a model is asked: the prompt."""
    seen = []

    def counted(model, tokenizer, prompt, **options):
        seen.append(prompt)
        return ask(model, tokenizer, prompt, **options)

    monkeypatch.setattr(module, "ask", counted)
    return seen


# Answers


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_that_of_a_model_with_this_adapter_alone(explorer, name):
    model, tokenizer = load_base("mini")
    load_adapter(model, FOLDER / name)
    explorer.adapter.value = name
    for number in range(PROMPTS):
        explorer.prompt.value = number
        example = question(name, number)
        said = ask(model, tokenizer, example.prompt, max_new_tokens=32)
        assert explorer.answers[name, number] == said
        verdict = "right" if said == example.response else "wrong"
        assert explorer.answer.text == f"{name}, {verdict}: {said}"


def test_the_adapters_know_their_forms_so_that_the_tests_here_can_fail(explorer):
    said = set()
    for name in NAMES:
        explorer.adapter.value = name
        assert explorer.answer.text.startswith(f"{name}, right: ")
        said.add(explorer.answers[name, 0])
    assert len(said) == 3


def test_an_answer_in_another_form_is_called_wrong(explorer, monkeypatch):
    monkeypatch.setattr(module, "ask", lambda *a, **o: question(NAMES[0], 0).response)
    explorer.adapter.value = NAMES[1]
    assert explorer.answer.text.startswith(f"{NAMES[1]}, wrong: ")


def test_without_an_adapter_the_base_answers_and_nothing_is_right_or_wrong(explorer):
    model, tokenizer = load_base("mini")
    explorer.adapter.value = NONE
    said = ask(model, tokenizer, question(NAMES[0], 0).prompt, max_new_tokens=32)
    assert explorer.answer.text == f"the base: {said}"
    assert explorer.shelf.active is None


def test_the_prompt_is_the_same_for_every_adapter_and_the_answer_is_not():
    for number in range(PROMPTS):
        examples = [question(name, number) for name in FAMILY]
        assert len({example.prompt for example in examples}) == 1
        assert len({example.response for example in examples}) == 48
    assert len({question("record-0", number).prompt for number in range(PROMPTS)}) == PROMPTS


def test_each_choice_is_asked_once(explorer, asked):
    for name in (*NAMES, NONE, *NAMES, NONE):
        explorer.adapter.value = name
    assert len(asked) == 3  # the first was asked when it was made


def test_the_status_tells_the_active_adapter(explorer):
    explorer.adapter.value = "record-53"
    told = explorer.status.value
    assert "3 adapters in memory, 0.118 MB, over one base" in told
    assert "record-53     yes" in told and "39,424" in told and "record-0" not in told
    explorer.adapter.value = NONE
    assert "none is active" in explorer.status.value and "39,424" not in explorer.status.value


def test_every_adapter_is_listed_with_its_form(explorer):
    assert explorer.adapter.options == {
        NONE: NONE,
        **{f"{name}: {form(name)}": name for name in NAMES},
    }
    assert form("record-53") == "job, food, pet, home with ->"


# The disk bill


def test_the_bill_is_of_the_files_as_they_are(folder):
    with (folder / NAMES[1] / "adapter_config.json").open("a") as file:
        file.write(" " * 10**6)  # no two are as large
    explorer = ShelfExplorer(folder=folder)

    def on_disk(where) -> int:
        return sum(path.stat().st_size for path in where.iterdir())

    base = on_disk(MINI_FOLDER)
    for tasks in (1, 2, 3):
        explorer.tasks.value = tasks
        adapters = sum(on_disk(folder / name) for name in NAMES[:tasks])
        assert explorer.bill.base == base
        assert sum(explorer.bill.adapters[:tasks]) == adapters
        ratio = tasks * base / (base + adapters)
        assert explorer.disk.text == (
            f"{tasks} task{'s' * (tasks > 1)}: one base and {size(adapters)} of adapters, "
            f"{size(base + adapters)} in all; full copies {size(tasks * base)}, "
            f"{ratio:.3g} times as much"
        )


def test_for_48_tasks_full_copies_take_25_times_as_much():
    bill = module.disk_bill()
    assert len(bill.adapters) == 48
    assert bill.copies(48) > 25 * (bill.base + sum(bill.adapters))


# There and back


@pytest.mark.parametrize(
    ("control", "value", "moving"),
    [
        ("adapter", "record-75", ("answer",)),
        ("adapter", NONE, ("answer",)),
        ("prompt", 2, ("answer",)),
        ("tasks", 1, ("disk",)),
    ],
)
def test_pictures_and_words_follow_a_control_there_and_back(explorer, control, value, moving):
    pictures = [getattr(explorer, picture) for picture in moving]
    assert_moves(explorer, getattr(explorer, control), value, pictures)


def test_no_control_is_passed_over(explorer):
    assert set(controls(explorer)) == {explorer.adapter, explorer.prompt, explorer.tasks}
    assert values(explorer.adapter) == [NONE, *NAMES]


def test_swapping_again_and_again_leaves_no_tensor_behind(explorer):
    def swap() -> None:
        explorer.answers.clear()
        for name in (NONE, *NAMES):
            explorer.adapter.value = name

    assert_keeps_nothing(swap, 3)


def test_what_it_and_its_pictures_are_is_told_in_words_that_stay(explorer):
    bundle = explorer._repr_mimebundle_()
    assert bundle["text/plain"] == "explorable: a shelf of adapters over one base"
    assert bundle["image/png"]
    assert len(look(explorer)) == 2
    assert all(picture.text != picture.alt for picture in explorer.pictures)


def test_a_closed_explorable_lets_go_of_model_and_adapters(explorer):
    model = weakref.ref(explorer.model)
    explorer.close()
    gc.collect()
    assert model() is None


def test_a_folder_without_adapters_is_refused_with_the_command_that_makes_them(tmp_path):
    with pytest.raises(ValueError, match=r"no adapter of the family: python -m lorakit\.family"):
        ShelfExplorer(folder=tmp_path)
