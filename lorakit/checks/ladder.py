"""Help, a rung at a time: a hint, another one, what gives the number that you get, the solution."""

import difflib
from collections import Counter
from collections.abc import Mapping
from typing import Any

from lorakit.checks.difference import difference, same
from lorakit.checks.exercise import Exercise, same_draws

NOTHING = object()


class Ladder:
    """How many hints were asked for, by exercise; a new kernel begins at none."""

    def __init__(self, exercises: Mapping[str, Exercise]):
        self.exercises = exercises
        self.asked: Counter[str] = Counter()

    def hint(self, key: str, got: Any = NOTHING) -> None:
        """The next hint of an exercise; or, with `got`, which mistake gives that.

        `got` is your answer itself, or what the exercise's example gives: after two hints you are
        told it. Raises ValueError if no exercise has this key.
        """
        exercise = self._find(key)
        if got is not NOTHING:
            print(f"{key}: {what_gives(exercise, got)}")
            return
        self.asked[key] += 1
        rung = self.asked[key]
        if rung <= len(exercise.hints):
            print(f"{key}, hint {rung} of {len(exercise.hints)}: {exercise.hints[rung - 1]}")
        else:
            print(f"{key}: {_third_rung(exercise)}")

    def solution(self, key: str, *, sure: bool = False) -> None:
        """Print a solution, to those who have had both hints, or are sure.

        Raises ValueError if no exercise has this key.
        """
        exercise = self._find(key)
        left = len(exercise.hints) - self.asked[key]
        if left > 0 and not sure:
            print(
                f'{key}: {left} hint{"s" * (left > 1)} left, checks.hint("{key}"). '
                f'Sure? checks.solution("{key}", sure=True)'
            )
        else:
            print(exercise.solution)

    def _find(self, key: str) -> Exercise:
        if key not in self.exercises:
            near = difflib.get_close_matches(str(key), self.exercises, n=3, cutoff=0.3)
            known = (
                f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(self.exercises)}"
            )
            raise ValueError(f"no exercise is called {key!r}; {known}")
        return self.exercises[key]


def _third_rung(exercise: Exercise) -> str:
    ask = f'checks.hint("{exercise.key}", got='
    answer = ", ".join(exercise.answers)
    whole = f"{ask}{answer if len(exercise.answers) == 1 else f'({answer})'})"
    lines = [f"those were all hints. Which mistake is it? {whole}"]
    if exercise.example and exercise.example != answer:
        lines += ["Or tell what this gives:", f"    {exercise.example}", f"by {ask}...)"]
    return "\n".join([*lines, f'The end of the ladder: checks.solution("{exercise.key}")'])


def what_gives(exercise: Exercise, got: Any) -> str:
    """Which mistakes give `got`, the answer itself or what the example gives; and what to ask."""
    if _is_answer(exercise, got):
        verdict = exercise.judge(*got if isinstance(got, tuple) else (got,))
        return f"{verdict.name}. {verdict.text}" if verdict.name else verdict.text
    wanted = _example(exercise, exercise.solution)
    if same(got, wanted):
        return "that is right. Is your answer, in all cases that are checked?"
    found = [m for m in exercise.mistakes if same(got, _example(exercise, exercise.wrong(m)))]
    if not found:
        return f"no mistake that is known here gives that: {difference(wanted, got)}"
    return " Or: ".join(f"{mistake.name}. {mistake.question}" for mistake in found)


def _is_answer(exercise: Exercise, got: Any) -> bool:
    parts = got if isinstance(got, tuple) and len(exercise.answers) > 1 else (got,)
    return all(map(callable, parts)) or exercise.example in ("", *exercise.answers)


def _example(exercise: Exercise, source: str) -> Any:
    """What the example gives; of an error its kind and its text, as a learner would copy it."""
    try:
        with same_draws():
            return eval(exercise.example, exercise.run(source))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
