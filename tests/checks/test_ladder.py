"""A hint, another, which mistake gives that, the solution: in this order, and no further."""

import pytest
import torch

from lorakit.checks import EXERCISES, Ladder
from lorakit.checks.ladder import what_gives

LAYER = EXERCISES["lora-linear"]


@pytest.fixture
def ladder() -> Ladder:
    return Ladder(EXERCISES)


def test_hints_come_one_by_one_and_then_the_question_what_is_there(ladder, capsys):
    for rung in (1, 2):
        ladder.hint("lora-linear")
        expected = f"lora-linear, hint {rung} of 2: {LAYER.hints[rung - 1]}\n"
        assert capsys.readouterr().out == expected
    for _ in range(2):
        ladder.hint("lora-linear")
        told = capsys.readouterr().out
        assert LAYER.example in told
        assert 'checks.hint("lora-linear", got=MyLoRA)' in told
        assert not any(hint in told for hint in LAYER.hints)


def test_an_exercise_without_an_example_asks_for_the_answer_itself(ladder, capsys):
    for _ in range(3):
        ladder.hint("merge")
    told = capsys.readouterr().out
    assert 'checks.hint("merge", got=(merge, unmerge))' in told
    assert "what this gives" not in told


def test_the_solution_wants_two_hints_or_somebody_who_is_sure(ladder, capsys):
    ladder.solution("merge")
    assert "2 hints left" in capsys.readouterr().out
    ladder.hint("merge")
    ladder.hint("energy")
    capsys.readouterr()
    ladder.solution("merge")
    told = capsys.readouterr().out
    assert "1 hint left" in told
    assert EXERCISES["merge"].solution not in told
    ladder.hint("merge")
    capsys.readouterr()
    ladder.solution("merge")
    assert capsys.readouterr().out == EXERCISES["merge"].solution + "\n"


def test_who_is_sure_gets_it_at_once(ladder, capsys):
    ladder.solution("merge", sure=True)
    assert capsys.readouterr().out == EXERCISES["merge"].solution + "\n"


def test_telling_what_one_gets_is_no_hint(ladder, capsys):
    for _ in range(3):
        ladder.hint("highest-rank", got=21)
    capsys.readouterr()
    ladder.solution("highest-rank")
    assert "2 hints left" in capsys.readouterr().out


def test_two_ladders_know_nothing_of_each_other(ladder, capsys):
    ladder.hint("merge")
    Ladder(EXERCISES).hint("merge")
    assert capsys.readouterr().out.count("hint 1 of 2") == 2


EXAMPLES = [
    pytest.param(exercise, mistake, id=f"{key}: {mistake.name}")
    for key, exercise in EXERCISES.items()
    if exercise.example and exercise.example not in exercise.answers
    for mistake in exercise.mistakes
]


@pytest.mark.parametrize(("exercise", "mistake"), EXAMPLES)
def test_what_a_mistake_gives_for_the_example_names_it_or_is_what_the_solution_gives(
    exercise, mistake
):
    def value(source):
        try:
            return eval(exercise.example, exercise.run(source))
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    came, wanted = value(exercise.wrong(mistake)), value(exercise.solution)
    told = what_gives(exercise, came)
    assert mistake.name in told or (came == wanted and told.startswith("that is right"))


@pytest.mark.parametrize(
    ("key", "got", "name"),
    [
        ("adapter-parameters", 35_840, "rank counted once, only A"),
        ("adapter-parameters", 43_008, "rank counted once, only B"),
        ("lora-linear", 48, "base not frozen"),
        ("highest-rank", 21, "rank rounded up"),
        ("highest-rank", 2_047, "percent taken for a share"),
        ("alpha-for", 16, "alpha kept"),
        ("alpha-for", 4, "divided where it should be multiplied"),
        ("alpha-for", 32.0, "root everywhere"),
        ("energy", 0.5, "sum instead of squares"),
        ("largest", 71, "first that does not fit"),
        ("training-mebibytes", 3.187, "second Adam moment forgotten"),
    ],
)
def test_a_number_tells_which_mistake_gives_it(ladder, capsys, key, got, name):
    ladder.hint(key, got=got)
    told = capsys.readouterr().out
    assert told.startswith(f"{key}: ") and f"{name}. " in told


def test_an_answer_itself_tells_its_mistake(ladder, capsys):
    for exercise in EXERCISES.values():
        mistake = exercise.mistakes[-1]
        answer = exercise.answer(exercise.wrong(mistake))
        ladder.hint(exercise.key, got=answer if len(answer) > 1 else answer[0])
        expected = f"{exercise.key}: {mistake.name}. {mistake.question}\n"
        assert capsys.readouterr().out == expected


def test_a_number_that_no_mistake_gives_is_told_by_its_ratio_alone():
    told = what_gives(EXERCISES["adapter-parameters"], 2 * 78_848)
    assert told == "no mistake that is known here gives that: too large by about 2 times"


def test_the_right_number_is_right():
    assert what_gives(EXERCISES["adapter-parameters"], 78_848).startswith("that is right")


def test_examples_move_no_random_number_of_the_page():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    what_gives(LAYER, 48)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("ask", ["hint", "solution"])
def test_an_unknown_key_is_told_with_the_nearest(ladder, ask):
    with pytest.raises(ValueError, match="'lora-liner'; nearest: lora-linear"):
        getattr(ladder, ask)("lora-liner")
    with pytest.raises(ValueError, match="'zzzzz'; there are: lora-linear, adapt"):
        getattr(ladder, ask)("zzzzz")
