"""An exercise as one value: what is asked, how to begin, a solution, and the mistakes it knows.

    answer -> observe -> facets        (what is looked at, what was found), in order

A mistake is an edit of the solution. An answer makes it if it shows all facets in which the edited
solution differs, and no other one before them. So no mistake has a detector of its own, and an
answer with two mistakes hears of the first. Knows nothing of notebooks or widgets.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from lorakit.checks.difference import difference, same

Facet = tuple[str, Any]
RAISED = "raises"


class Wrong(AssertionError):
    """An answer that is not right, under strict=True; `name` is the mistake's, if it has one."""

    def __init__(self, text: str, name: str | None):
        super().__init__(text)
        self.name = name


@dataclass(frozen=True)
class Mistake:
    """A wrong answer by its name: what to ask whoever gives it, and the edit that makes it."""

    name: str
    question: str
    edits: dict[str, str]


@dataclass(frozen=True)
class Verdict:
    """What an answer is: "right", "open" (not answered yet), "mistake" (`name`), or "unknown"."""

    kind: str
    text: str
    name: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Exercise:
    """Call it with the answers: it prints one line, and raises nothing unless `strict`.

    `answers` are the names that the sources define; `imports` is what a page must have run before;
    `example`, if there is one, is an expression whose value the learner can tell.
    """

    key: str
    page: str  # the first two letters of its file's name
    prompt: str  # Markdown
    imports: str
    starter: str
    solution: str
    answers: tuple[str, ...]
    observe: Callable[..., Iterator[Facet]]
    first: str  # step, for who has not answered yet
    hints: tuple[str, str]
    right: str  # what to say then
    mistakes: tuple[Mistake, ...]
    example: str = ""

    def __call__(self, *answer: Any, strict: bool = False) -> None:
        """Raises Wrong if `strict` and the answer is not right, or not there."""
        verdict = self.judge(*answer)
        if strict and verdict.kind != "right":
            raise Wrong(verdict.text, verdict.name)
        print(f"{self.key}: {verdict.text}")

    @property
    def call(self) -> str:
        """How a page checks the answer."""
        return f"checks.check_{self.key.replace('-', '_')}({', '.join(self.answers)})"

    def cell(self, source: str) -> str:
        """The page's cell with `source`, the starter or the solution, in it."""
        gap = "\n\n\n" if source.startswith(("def ", "class ")) else "\n"
        return f"{source}{gap}{self.call}"

    def wrong(self, mistake: Mistake) -> str:
        """The solution with the mistake in it."""
        source = self.solution
        for old, new in mistake.edits.items():
            if source.count(old) != 1:
                raise ValueError(
                    f"{self.key}, {mistake.name}: {old!r} is {source.count(old)} times in the "
                    "solution, must be there once"
                )
            source = source.replace(old, new)
        return source

    def run(self, source: str) -> dict[str, Any]:
        """The names that a source defines, in a namespace of its own."""
        names: dict[str, Any] = {}
        exec(f"{self.imports}\n{source}", names)
        return names

    def answer(self, source: str) -> tuple[Any, ...]:
        names = self.run(source)
        return tuple(names[name] for name in self.answers)

    def facets(self, answer: tuple[Any, ...]) -> list[Facet]:
        """What is to be seen of an answer; the last is what it raises, if it raises."""
        found: list[Facet] = []
        with same_draws():
            try:
                for facet in self.observe(*answer):
                    found.append(facet)
            except Exception as error:  # the learner's code may raise anything
                found.append((RAISED, error))
        return found

    def judge(self, *answer: Any) -> Verdict:
        """Runs the answer, the solution and each mistake, on the same small inputs."""
        if len(answer) != len(self.answers):
            return Verdict("unknown", f"give me {' and '.join(self.answers)}, nothing else")
        if any(part is None or part is ... for part in answer):
            return self._open
        came, wanted = self.facets(answer), self.facets(self.answer(self.solution))
        if _all_agree(came, wanted):
            return Verdict("right", f"right. {self.right}")
        if _unfinished(came) or self._idle(came):
            return self._open
        mistake = self._mistake(came, wanted)
        if mistake:
            return Verdict("mistake", mistake.question, mistake.name)
        return Verdict("unknown", _difference(came, wanted))

    @property
    def _open(self) -> Verdict:
        return Verdict("open", f"not answered yet. {self.first}")

    def _idle(self, came: list[Facet]) -> bool:
        """Whether it does what the starter does, without an error: nothing."""
        return came[-1][0] != RAISED and _all_agree(came, self.facets(self.answer(self.starter)))

    def _mistake(self, came: list[Facet], wanted: list[Facet]) -> Mistake | None:
        """The mistake that leaves the solution where the answer does, with all its symptoms there.

        Of several the one that is most like the answer.
        """
        place = _agree(came, wanted)
        nearest, most = None, 0
        for mistake in self.mistakes:
            known = self.facets(self.answer(self.wrong(mistake)))
            if _agree(known, wanted) == place and _all_symptoms(known, wanted, came):
                alike = sum(_same_facet(*pair) for pair in zip(known, came, strict=False))
                if alike > most:
                    nearest, most = mistake, alike
        return nearest


@contextmanager
def same_draws() -> Iterator[None]:
    """Within the block random numbers of the CPU begin anew; after it they go on as before."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(0)
        yield


def _same_facet(one: Facet, other: Facet) -> bool:
    if one[0] != other[0]:
        return False
    if one[0] == RAISED:  # messages differ from version to version
        return type(one[1]) is type(other[1])
    return same(one[1], other[1])


def _agree(one: list[Facet], other: list[Facet]) -> int:
    """How many facets agree before the first that does not."""
    pairs = zip(one, other, strict=False)
    return next(
        (i for i, pair in enumerate(pairs) if not _same_facet(*pair)), min(len(one), len(other))
    )


def _all_symptoms(known: list[Facet], wanted: list[Facet], came: list[Facet]) -> bool:
    """Whether wherever a mistake is not as wanted, the answer is as the mistake."""
    right = [i for i, pair in enumerate(zip(known, wanted, strict=False)) if _same_facet(*pair)]
    return all(
        i < len(came) and _same_facet(known[i], came[i])
        for i in range(len(known))
        if i not in right
    )


def _all_agree(one: list[Facet], other: list[Facet]) -> bool:
    return _agree(one, other) == len(one) == len(other)


def _unfinished(facets: list[Facet]) -> bool:
    """Whether nothing, or a `...`, stands where a value is needed."""
    what, last = facets[-1]
    if what == RAISED and "ellipsis" in str(last):
        return True
    return any(value is None or value is ... for _, value in facets)


def _difference(came: list[Facet], wanted: list[Facet]) -> str:
    place = _agree(came, wanted)
    what, value = came[place]
    if what == RAISED:
        return f"looking at it raised {type(value).__name__}: {value}"
    return f"{what}: {difference(wanted[place][1], value)}"
