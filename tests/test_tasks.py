"""Tasks by name: orders, the mini base's, or a file, whose bad line is named before training."""

import pytest

from lorakit.mini_tasks import COUNTS, MINI_TASKS, examples
from lorakit.tasks import load_task, read_examples, write_examples
from lorakit.text import Example

GOOD = '{"prompt": "a", "response": "b"}\n'


@pytest.mark.parametrize("name", [*MINI_TASKS, "record-5"])
def test_a_mini_task_comes_in_three_splits(name):
    task = load_task(name)
    for split in COUNTS:
        assert getattr(task, split) == examples(name, split)


def test_a_file_of_ones_own_keeps_every_fifth_line_to_be_judged_by(tmp_path):
    examples = [Example(f"question {n}", f"answer {n}") for n in range(11)]
    write_examples(tmp_path / "mine.jsonl", examples)
    task = load_task(str(tmp_path / "mine.jsonl"))
    assert task.name == "mine"
    assert task.heldout == (examples[4], examples[9])
    assert [*task.train] == [e for e in examples if e not in task.heldout]


def test_text_of_any_script_goes_there_and_back_and_empty_lines_are_passed_over(tmp_path):
    path = tmp_path / "mine.jsonl"
    examples = [Example("größer \u2028 als?", "多い\n"), Example("a", "b")]
    write_examples(path, examples)
    path.write_bytes(b"\n" + path.read_bytes() + b"  \n")
    assert read_examples(path) == examples


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{prompt: 1}", "not JSON"),
        ('["a", "b"]', "not an object like"),
        ('{"prompt": "a", "answer": "b"}', "there is no 'response', only 'prompt', 'answer'"),
        ("{}", "there is no 'prompt', only nothing"),
        ('{"prompt": "a", "response": 3}', "'response' must be a text .* got 3"),
        ('{"prompt": " ", "response": "b"}', "'prompt' must be a text that is not empty"),
        (b'{"prompt": "\xff", "response": "b"}', "not JSON"),
    ],
)
def test_a_bad_line_is_named_by_number_and_reason(tmp_path, line, reason):
    path = tmp_path / "mine.jsonl"
    line = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(GOOD.encode() * 6 + line + b"\n" + GOOD.encode())
    with pytest.raises(ValueError, match=rf"mine\.jsonl, line 7: {reason}"):
        load_task(str(path))


def test_too_few_examples_and_unknown_names_are_refused(tmp_path):
    path = tmp_path / "few.jsonl"
    path.write_text(GOOD * 4)
    with pytest.raises(ValueError, match="has 4 examples: at least 5"):
        load_task(str(path))
    with pytest.raises(ValueError, match=r"'ordres' is not known: it is one of orders, .* json,"):
        load_task("ordres")
    with pytest.raises(ValueError, match=r"there is no file mine\.jsonl: a task is one of orders,"):
        load_task("mine.jsonl")


def test_a_mini_task_has_as_many_training_examples_as_asked_for_and_never_fewer_than_its_own():
    few, many = load_task("label"), load_task("label", COUNTS["train"] + 50)
    assert len(many.train) == COUNTS["train"] + 50
    assert many.train[: COUNTS["train"]] == few.train
    assert (many.validation, many.heldout) == (few.validation, few.heldout)
    assert load_task("label", 10) == few
