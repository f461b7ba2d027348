"""Every exercise held to account by its own sources, run as real code."""

import re
from pathlib import Path

import pytest
import torch

from lorakit import checks
from lorakit.checks import EXERCISES, Exercise, Wrong
from lorakit.checks.exercise import RAISED

PAGES = Path(__file__).parents[2] / "notebooks"

each = pytest.mark.parametrize("exercise", [pytest.param(e, id=k) for k, e in EXERCISES.items()])
each_mistake = pytest.mark.parametrize(
    ("exercise", "mistake"),
    [
        pytest.param(exercise, mistake, id=f"{key}: {mistake.name}")
        for key, exercise in EXERCISES.items()
        for mistake in exercise.mistakes
    ],
)


def run_cell(exercise: Exercise, source: str) -> None:
    """As a page runs it: the imports, the package, and the cell."""
    exec(f"from lorakit import checks\n{exercise.imports}\n{exercise.cell(source)}", {})


@each
def test_the_solution_is_right_and_is_taken_for_no_mistake(exercise, capsys):
    run_cell(exercise, exercise.solution)
    assert capsys.readouterr().out == f"{exercise.key}: right. {exercise.right}\n"
    verdict = exercise.judge(*exercise.answer(exercise.solution))
    assert (verdict.kind, verdict.name) == ("right", None)


@each
def test_looking_at_the_solution_raises_nothing_and_leaves_no_facet_open(exercise):
    """Else an answer that raises alike would be right."""
    facets = exercise.facets(exercise.answer(exercise.solution))
    names = [name for name, _ in facets]
    assert len(set(names)) == len(names) >= 2
    assert RAISED not in names
    assert not [value for _, value in facets if value is None or value is ...]


@each
def test_an_exercise_that_nobody_answered_says_the_first_step_and_raises_nothing(exercise, capsys):
    run_cell(exercise, exercise.starter)
    expected = f"{exercise.key}: not answered yet. {exercise.first}\n"
    assert capsys.readouterr().out == expected
    for nothing in (None, ...):
        exercise(*[nothing] * len(exercise.answers))
        assert capsys.readouterr().out == expected


@each_mistake
def test_each_named_mistake_is_recognised_by_its_name(exercise, mistake):
    verdict = exercise.judge(*exercise.answer(exercise.wrong(mistake)))
    assert (verdict.kind, verdict.name) == ("mistake", mistake.name)


@each_mistake
def test_a_mistake_is_answered_by_a_question_and_raises_only_if_strict(exercise, mistake, capsys):
    answer = exercise.answer(exercise.wrong(mistake))
    exercise(*answer)
    assert capsys.readouterr().out == f"{exercise.key}: {mistake.question}\n"
    with pytest.raises(Wrong, match=re.escape(mistake.question)) as error:
        exercise(*answer, strict=True)
    assert error.value.name == mistake.name


@each_mistake
def test_a_question_gives_neither_the_edit_nor_the_name_away(exercise, mistake):
    assert mistake.question.endswith("?")
    assert mistake.name not in mistake.question
    # What the mistake took out of the solution, if it is more than a word.
    for right in mistake.edits:
        assert len(right.split()) < 2 or right.strip() not in mistake.question


@each
def test_help_holds_no_line_of_the_solution(exercise):
    lines = {line.strip() for line in exercise.solution.splitlines()}
    lines -= {line.strip() for line in exercise.starter.splitlines()}
    for words in (exercise.first, *exercise.hints, exercise.prompt):
        assert not [line for line in lines if len(line) > 12 and line in words]
    assert len(exercise.hints) == 2


@each
def test_names_are_each_given_once(exercise):
    names = [mistake.name for mistake in exercise.mistakes]
    assert len(set(names)) == len(names) >= 4


@each
def test_the_call_on_the_page_is_the_exercise(exercise):
    name, arguments = re.fullmatch(r"checks\.(\w+)\((.+)\)", exercise.call).groups()
    assert getattr(checks, name) is exercise
    assert name in checks.__all__
    assert arguments == ", ".join(exercise.answers)


@each
@pytest.mark.parametrize("part", ["starter", "solution"])
def test_its_cell_fits_on_a_page(exercise, part):
    lines = exercise.cell(getattr(exercise, part)).splitlines()
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 100


@each
def test_it_stands_on_a_page_that_there_is_or_will_be(exercise):
    assert re.fullmatch(r"0\d|10", exercise.page)
    assert exercise.prompt.startswith("### Exercise: ")
    assert max(len(line) for line in exercise.prompt.splitlines()) <= 100


@each
def test_checking_moves_no_random_number_of_the_page_and_leaves_no_file(
    exercise, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.no_grad():
        exercise(*exercise.answer(exercise.wrong(exercise.mistakes[0])))
        exercise(*exercise.answer(exercise.solution))
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.rand(3), expected)
    assert not list(tmp_path.iterdir())


def test_a_gradient_is_looked_at_also_where_the_page_wants_none():
    exercise = EXERCISES["lora-linear"]
    cut = next(m for m in exercise.mistakes if m.name == "gradient cut off")
    with torch.no_grad():
        assert exercise.judge(*exercise.answer(exercise.wrong(cut))).name == cut.name
        assert exercise.judge(*exercise.answer(exercise.solution)).kind == "right"


@each
def test_the_same_answer_gets_the_same_verdict_in_any_order(exercise):
    answers = [exercise.answer(exercise.wrong(m)) for m in exercise.mistakes[:2]]
    answers.append(exercise.answer(exercise.solution))
    there = [exercise.judge(*answer) for answer in answers]
    back = [exercise.judge(*answer) for answer in reversed(answers)]
    assert there == back[::-1]


def test_there_are_fifteen_and_the_key_names_each():
    assert len(EXERCISES) == 15
    assert all(key == exercise.key for key, exercise in EXERCISES.items())
