"""Exercises on memory and batches: the largest that fits, and a large one in parts."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lorakit.checks.difference import times
from lorakit.checks.exercise import Exercise, Facet, Mistake

Needs = Callable[[int], int]
MANY = 100_000  # questions; nobody needs as many


def _asked_at_most(needs: Needs) -> Needs:
    """The same, but a search that never ends is ended by an error."""
    left = iter(range(MANY))

    def asked(rows: int) -> int:
        if next(left, None) is None:
            raise RuntimeError(f"asked {MANY:,} times: when does your search end?")
        return needs(rows)

    return asked


def _batches(largest: Callable[[Needs, int], int]) -> Iterator[Facet]:
    def line(rows: int) -> int:
        return 300 + 10 * rows

    def peak(rows: int) -> int:
        """Flat as long as the optimizer's phase is the highest."""
        return max(548, 320 + 45 * rows)

    yield "where bytes grow in a line", largest(_asked_at_most(line), 1005)
    yield "where they are flat at first", largest(_asked_at_most(peak), 1000)
    yield "where a batch fits to the byte", largest(_asked_at_most(line), 400)
    yield "where not even one row fits", largest(_asked_at_most(line), 305)


SEARCH = """\
    rows = 0
    while needs(rows + 1) <= budget:
        rows += 1
    return rows"""

check_largest = Exercise(
    key="largest",
    page="05",
    prompt="""\
### Exercise: the largest batch

`needs(rows)` tells the bytes of a step with that many rows. Find the largest batch within `budget`
bytes; 0, if not even one row fits. All that you may rely on is that more rows never need less.

Yours works with the lab's estimate, too: `needs = lambda rows: lk.estimate(lk.Setup(model=shape,
batch_size=rows)).peak.total`""",
    imports="",
    starter="""\
def largest(needs, budget: int) -> int:
    return ...""",
    solution="""\
def largest(needs, budget: int) -> int:
    rows = 0
    while needs(rows + 1) <= budget:
        rows += 1
    return rows""",
    answers=("largest",),
    observe=_batches,
    first="Does one row fit? Ask `needs(1)`",
    hints=(
        "try one row more, as long as it fits. Which number do you have in hand when it does not?",
        "is a step's peak always fixed bytes plus so many for each row? Page 05: in which phase "
        "is the peak of a small batch?",
    ),
    example="largest(lambda rows: 300 + 10 * rows, 1005)",
    right="The peak is the highest of several phases, so only a search is safe",
    mistakes=(
        Mistake(
            "first that does not fit",
            "One too many. Does the number that you return fit?",
            {"return rows": "return rows + 1"},
        ),
        Mistake(
            "every row taken as dear as the first",
            "Far too few. Of what one row needs, what do two rows share?",
            {SEARCH: "    return budget // needs(1)"},
        ),
        Mistake(
            "a line through one row and two",
            "Right where bytes grow in a line. What if the peak of one row and of two is in the "
            "optimizer's phase?",
            {
                SEARCH: (
                    "    one = needs(1)\n    return max(0, 1 + (budget - one) // (needs(2) - one))"
                )
            },
        ),
        Mistake(
            "powers of two alone",
            "It fits, and a larger one does as well. Which sizes did you not try?",
            {
                "rows + 1) <= budget:\n        rows += 1": (
                    "2 * rows or 1) <= budget:\n        rows = 2 * rows or 1"
                )
            },
        ),
        Mistake(
            "a batch that fits to the byte left out",
            "Right, but where the bytes are just the budget. Is that within it?",
            {"<= budget": "< budget"},
        ),
        Mistake(
            "at least one row",
            "Right, but where one row needs more than there is. What would happen in its first "
            "step?",
            {"return rows": "return max(1, rows)"},
        ),
    ),
)


def _gradient(
    accumulate: Callable[[nn.Module, list[tuple[Tensor, Tensor]]], None],
) -> Iterator[Facet]:
    model = nn.Linear(5, 3)
    x, labels = torch.randn(8, 5), torch.randint(3, (8,))
    F.cross_entropy(model(x), labels).backward()
    assert model.weight.grad is not None
    wanted, model.weight.grad, model.bias.grad = model.weight.grad, None, None
    sizes = [5, 2, 1]
    accumulate(model, list(zip(x.split(sizes), labels.split(sizes), strict=True)))
    found = torch.zeros_like(wanted) if model.weight.grad is None else model.weight.grad
    along = times(found, wanted)
    yield "the gradient, beside that of one batch", along
    yield "what is left of it beside that", ((found - along * wanted).norm() / wanted.norm()).item()


check_accumulate = Exercise(
    key="accumulate",
    page="05",
    prompt="""\
### Exercise: a large batch in parts

A batch does not fit, so it comes as micro-batches, and they are not equally large. Leave in the
parameters the gradient that the whole batch at once would leave: that of the *mean* loss
(`F.cross_entropy`) over all rows.""",
    imports="from torch import nn\nfrom torch.nn import functional as F",
    starter="""\
def accumulate(model: nn.Module, micro_batches: list) -> None:
    for x, labels in micro_batches:
        ...""",
    solution="""\
def accumulate(model: nn.Module, micro_batches: list) -> None:
    rows = sum(len(x) for x, _ in micro_batches)
    for x, labels in micro_batches:
        loss = F.cross_entropy(model(x), labels, reduction="sum") / rows
        loss.backward()""",
    answers=("accumulate",),
    observe=_gradient,
    first="Go over the micro-batches, and call `backward()` on each one's loss: gradients add up",
    hints=(
        "what does each row count in the mean over all, and what in the mean over its micro-batch?",
        'by what must a sum of losses (`reduction="sum"`) be divided, to be the mean over all '
        "rows?",
    ),
    example="",
    right="Every row counts the same, in whichever part it came",
    mistakes=(
        Mistake(
            "mean of the means",
            "Near, and not the same. A row that is alone in its micro-batch: what does it count?",
            {
                ', reduction="sum") / rows': ") / len(micro_batches)",
            },
        ),
        Mistake(
            "means added up",
            "It grows with the number of parts. What do three means add up to?",
            {', reduction="sum") / rows': ")"},
        ),
        Mistake(
            "sum instead of mean",
            "The direction is right, the size is not. What is the mean of a sum?",
            {" / rows": ""},
        ),
        Mistake(
            "gradient cleared between the parts",
            "Only one part is left of it. Where do you clear the gradient?",
            {"        loss.backward()": "        model.zero_grad()\n        loss.backward()"},
        ),
        Mistake(
            "first part alone",
            "Only one part is left of it. When does your loop end?",
            {"        loss.backward()": "        loss.backward()\n        break"},
        ),
    ),
)
