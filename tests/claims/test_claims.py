"""Every claim is judged from the raw rows, and what is published is what they say."""

import json
from pathlib import Path

import pytest

from lorakit.claims import CLAIMS, FAILS, HOLDS, UNKNOWN, evidence, judge, readme_rows
from lorakit.claims.finding import decided, point

RESULTS = Path(__file__).parents[2] / "data" / "results"
PUBLISHED = json.loads((RESULTS / "claims.json").read_text())["claims"]
WANTED = {f"H{number}" for number in (1, 2, 3, *range(5, 16), 17)}


def findings(claims: list) -> list:
    return [claim[base] for claim in claims for base in ("mini", "smollm2") if claim[base]]


def test_what_is_published_is_what_the_raw_rows_say():
    told = json.loads(json.dumps(judge()))
    published = json.loads(json.dumps(PUBLISHED))
    for finding in findings(published):
        finding.pop("picture")
    assert published == told


def test_every_claim_that_a_lesson_makes_is_there_with_its_source():
    assert {claim.name.split(",")[0] for claim in CLAIMS} >= WANTED
    assert all(claim.claim and claim.source for claim in CLAIMS)
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


def test_with_fewer_than_five_seeds_nothing_is_decided():
    found = findings(PUBLISHED)
    assert {UNKNOWN} == {f["verdict"] for f in found if f["seeds"] is not None and f["seeds"] < 5}
    assert {HOLDS, FAILS} == {f["verdict"] for f in found if f["seeds"] is None}
    assert decided(True, 4) == UNKNOWN
    assert [decided(True, 5), decided(False, 5), decided(True, None)] == [HOLDS, FAILS, HOLDS]


def test_some_claims_hold_and_some_do_not():
    verdicts = {claim["name"]: claim["mini"]["verdict"] for claim in PUBLISHED}
    assert {HOLDS, FAILS} <= set(verdicts.values())


def test_every_finding_has_its_picture_and_its_rows():
    for finding in findings(PUBLISHED):
        assert (RESULTS / finding["picture"]).read_bytes().startswith(b"\x89PNG")
        for rows in finding["rows"].split(", "):
            assert rows == "counted" or (RESULTS / rows).is_file()


def test_no_picture_is_left_over():
    named = {finding["picture"] for finding in findings(PUBLISHED)}
    assert {f"claims/{path.name}" for path in (RESULTS / "claims").iterdir()} == named


def test_the_readme_has_every_claim_and_what_came_of_it():
    text = (RESULTS / "README.md").read_text()
    for line in readme_rows(PUBLISHED):
        assert line in text


def row(lr: float, loss: float | None, **other) -> dict:
    run = {"lr": lr, "seed": 0, "method": "lora", "rank": 2}
    return {"run": run, "validation": [0.5, loss], "diverged": False} | other


def test_the_best_rate_is_that_of_the_lowest_mean_loss():
    rows = [row(1, 0.4), row(1, 0.2), row(2, 0.1), row(2, 0.6), row(3, 0.1, diverged=True)]
    assert evidence.rate(evidence.best(rows)) == 1
    assert evidence.rate(evidence.best([row(2, None), row(4, 9.0)])) == 4


def test_a_best_rate_may_be_at_an_end_of_those_tried():
    middle = [row(1, 0.4), row(2, 0.1), row(3, 0.3)]
    assert not evidence.at_an_end(middle)
    assert evidence.at_an_end([*middle, row(4, 0.05)])
    assert evidence.at_an_end([row(0.5, 0.01), *middle])


def test_the_least_forgotten_is_among_looks_at_which_the_task_was_learnt():
    rows = [{"curve": [[1, 0.5, 1.0], [2, 0.9, 1.4], [3, 1.0, 1.3]]}, {"curve": [[1, 0.95, None]]}]
    assert evidence.least_forgotten(rows, 0.9) == 1.3
    assert evidence.least_forgotten(rows, 1.1) is None


def test_a_point_has_its_mean_and_its_ends():
    assert point("x", [1.0, 2.0, 6.0]) == ("x", 3.0, 1.0, 6.0)


def test_a_kind_is_full_or_a_rank():
    runs = [{"method": "full", "rank": 8}, {"method": "lora", "rank": 8}]
    assert [evidence.kind(run) for run in runs] == ["full", "rank 8"]


@pytest.mark.parametrize("name", ["H7", "H17"])
def test_a_verdict_turns_when_the_rows_do(name, monkeypatch):
    """Each row's losses and matches are exchanged for those of a row far away."""
    (claim,) = [claim for claim in CLAIMS if claim.name == name]
    assert claim.mini().verdict == HOLDS
    for sweep in ("rank", "scaling"):
        rows = evidence.grid(sweep)
        scores = [(r["heldout"], r["validation"], r["diverged"]) for r in rows]
        for place, r in enumerate(rows):
            other = scores[-1 - place]
            monkeypatch.setitem(r, "heldout", other[0])
            monkeypatch.setitem(r, "validation", other[1])
            monkeypatch.setitem(r, "diverged", other[2])
    assert claim.mini().verdict == FAILS
