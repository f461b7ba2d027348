"""Rates chosen as the lab chooses them, on rows that tell the ways apart."""

from statistics import mean, median

import pytest

from lorakit.checks import check_choose
from lorakit.checks.sweeps import INSIDE, _rows
from lorakit.claims import evidence


def as_the_lab(rows):
    return evidence.rate(evidence.best(rows)), not evidence.at_an_end(rows)


def test_the_labs_own_choice_is_right():
    check_choose(as_the_lab, strict=True)


@pytest.mark.parametrize("kind", ["full", "rank 1", "rank 8", "rank 64"])
@pytest.mark.parametrize("task", ["json", "manners-dialect"])
def test_the_solution_chooses_as_the_lab_does_on_a_real_sweep(task, kind):
    (choose,) = check_choose.answer(check_choose.solution)
    rows = [row for row in evidence.grid("rank") if row["run"]["task"] == task]
    of_kind = evidence.grouped(rows, evidence.kind)[kind]
    assert choose(of_kind) == as_the_lab(of_kind)


def test_rows_have_the_fields_of_a_real_sweep():
    real, made = evidence.grid("rank")[0], _rows(INSIDE)[0]
    assert made.keys() <= real.keys() and made["run"].keys() <= real["run"].keys()
    assert len(made["validation"]) == len(real["validation"]) == len(real["heldout"])


def by(value, spread=mean):
    def choose(rows):
        losses: dict = {}
        for row in rows:
            if not row["diverged"]:
                losses.setdefault(row["run"]["lr"], []).append(value(row))
        best = min(losses, key=lambda rate: spread(losses[rate]))
        return best, best not in (min(losses), max(losses))

    return choose


@pytest.mark.parametrize(
    ("choose", "name"),
    [
        (by(lambda row: row["heldout"][1]), "best on held-out examples"),
        (by(lambda row: row["validation"][1], min), "best single run"),
        (by(lambda row: row["validation"][1]), "diverged run left out"),
        (by(lambda row: row["validation"][1], median), "diverged run left out"),
        (lambda rows: (as_the_lab(rows)[0], True), "an end not looked at"),
        (lambda rows: as_the_lab(rows)[0], None),
    ],
)
def test_what_others_do_wrong(choose, name):
    assert check_choose.judge(choose).name == name
