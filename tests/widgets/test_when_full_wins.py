"""When full fine-tuning is ahead: every cell by the raw rows, controls come back, own points."""

import random
from itertools import product
from statistics import fmean

import pytest
from explorables import assert_keeps_nothing, assert_moves, controls, look, values
from sweep_rows import best_of, raw, small

from lorakit.grids import DEPTHS, SIZES
from lorakit.plots import COLORS, figure
from lorakit.plots.surface import shade, written
from lorakit.run import Run
from lorakit.stacked import Stack
from lorakit.sweep import sweep
from lorakit.widgets import WhenFullWinsExplorer
from lorakit.widgets import when_full_wins as module
from lorakit.widgets.sweep_table import LOSS, MATCH

MOVES = {
    "task": ("deep", ("surface", "curves")),
    "size": (12800, ("surface", "curves")),
    "rank": (64, ("surface", "curves")),
    "measure": (MATCH, ("surface", "curves")),
}


@pytest.fixture
def explorer() -> WhenFullWinsExplorer:
    return WhenFullWinsExplorer()


@pytest.fixture
def quick(monkeypatch, small_base_to_read) -> WhenFullWinsExplorer:
    """Whose sweep has runs of two steps over a small base."""
    monkeypatch.setattr(module, "grid", small(small_base_to_read))
    return WhenFullWinsExplorer()


def raw_pair(task: str, size: int, rank: int) -> tuple[list[dict], list[dict]]:
    """Raw rows of either method at its best rate."""
    full = best_of(raw("data", task=task, sample=size, method="full"))
    return full, best_of(raw("data", task=task, sample=size, method="lora", rank=rank))


def mean(rows: list[dict], measure: str) -> float:
    return fmean(row["heldout"][measure == LOSS] for row in rows)


def stars(explorer) -> list[tuple[float, float, str]]:
    """Where they are, and the color of their edge."""
    return [
        (x, y, line.get_markeredgecolor())
        for line in explorer.curves.axes.lines
        if line.get_marker() == "*"
        for x, y in line.get_xydata()
    ]


# Its numbers


@pytest.mark.parametrize("rank", [1, 8, 64])
@pytest.mark.parametrize("measure", [LOSS, MATCH])
def test_every_cell_of_the_surface_is_that_of_the_raw_rows(explorer, rank, measure):
    explorer.rank.value, explorer.measure.value = rank, measure
    numbers = {text.get_position(): text for text in explorer.surface.axes.texts}
    colors = {box.get_xy(): box.get_facecolor() for box in explorer.surface.axes.patches}
    for (top, task), (left, size) in product(enumerate(DEPTHS), enumerate(SIZES)):
        full, lora = (mean(rows, measure) for rows in raw_pair(task, size, rank))
        value = lora / full if measure == LOSS else full - lora
        assert numbers[left, top].get_text() == written(value, ratio=measure == LOSS)
        expected = shade(value, module.LIMITS[measure], ratio=measure == LOSS)
        red, green, blue, _ = colors[left - 0.5, top - 0.5]
        assert f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}" == expected


@pytest.mark.parametrize("measure", [LOSS, MATCH])
def test_the_curves_are_the_means_of_both_methods_best_rates(explorer, measure):
    explorer.task.value, explorer.measure.value = "manners-dialect", measure
    for i, name in enumerate(("full", "lora")):
        (line,) = [
            line
            for line in explorer.curves.axes.lines
            if line.get_marker() == "o" and line.get_color() == COLORS[name]
        ]
        assert list(line.get_xdata()) == list(SIZES)
        expected = [mean(raw_pair("manners-dialect", size, 8)[i], measure) for size in SIZES]
        assert list(line.get_ydata()) == pytest.approx(expected)


def test_words_tell_the_chosen_cell_by_the_raw_rows(explorer):
    explorer.task.value, explorer.size.value, explorer.rank.value = "deep", 3200, 64
    full, lora = raw_pair("deep", 3200, 64)
    a, b = mean(full, LOSS), mean(lora, LOSS)
    wins = sum(f["heldout"][1] < r["heldout"][1] for f, r in zip(full, lora, strict=True))
    assert explorer.surface.text == (
        f"deep, 3,200 examples: the loss of rank 64 is {b / a:.3g} times that of full "
        f"(full and rank 64: {a:.3g} and {b:.3g}): full is ahead, in {wins} of 5 seeds"
    )
    for rows in (full, lora):
        losses = [row["heldout"][1] for row in rows]
        words = f"loss {fmean(losses):.3g}, mean of 5 seeds, {min(losses):.3g} to {max(losses):.3g}"
        assert words in explorer.curves.text
        tried = 7 if rows is full else 8
        assert f"lr {rows[0]['run']['lr']:g}, the best of {tried}" in explorer.curves.text
    assert "200 steps (NVIDIA H100" in explorer.curves.text


# Its controls


@pytest.mark.parametrize("control", MOVES)
def test_pictures_and_words_follow_a_control_there_and_back(explorer, control):
    value, moving = MOVES[control]
    pictures = [getattr(explorer, name) for name in moving]
    assert_moves(explorer, getattr(explorer, control), value, pictures)


def test_no_control_is_passed_over(explorer):
    known = {getattr(explorer, name) for name in MOVES} | {explorer.steps}
    assert known == set(controls(explorer))


def test_the_steps_decide_the_next_run_and_move_no_picture(explorer):
    before = look(explorer)
    assert [run.steps for run in explorer.runs] == [60, 60]
    explorer.steps.value = 400
    assert [run.steps for run in explorer.runs] == [200, 200], "the sweep's own at most"
    explorer.size.value = 12800
    assert [run.steps for run in explorer.runs] == [400, 400]
    explorer.size.value, explorer.steps.value = 512, 60
    assert look(explorer) == before


def test_a_picture_reached_by_many_moves_is_that_drawn_afresh(explorer):
    draw = random.Random("moves")
    for _ in range(12):
        control = draw.choice(controls(explorer))
        control.value = draw.choice(values(control))
    reached = look(explorer)
    for picture in explorer.pictures:
        picture._figure, picture.axes = figure(*map(int, picture._figure.bbox.size))
        picture._kept = {}
    explorer.refresh()
    assert look(explorer) == reached


def test_what_it_is_is_told_in_words_that_stay(explorer):
    assert explorer._repr_mimebundle_()["text/plain"] == explorer.alt
    for picture in explorer.pictures:
        assert picture.value and picture.text != picture.alt


# One's own point


def test_the_runs_are_the_cell_of_both_methods_at_their_best_rates(explorer):
    explorer.task.value, explorer.rank.value, explorer.size.value = "deep", 64, 128
    rates = [rows[0]["run"]["lr"] for rows in raw_pair("deep", 128, 64)]
    same = {"base": "mini", "task": "deep", "steps": 60, "batch_size": 16, "sample": 128}
    same |= {"heldout": 500, "answers": 0, "seed": 0}
    assert explorer.runs == [
        Run(**same, method="full", lr=rates[0]),
        Run(**same, rank=64, alpha=128.0, lr=rates[1]),
    ]


def test_a_point_measured_here_is_what_a_sweep_gives_for_the_two_runs(quick, tmp_path):
    quick.size.value = 32
    quick.start.click()
    (pair,) = quick.own.values()
    for mine, row in zip(pair, sweep(quick.runs, tmp_path / "rows.jsonl"), strict=True):
        assert mine[0]["run"] == row["run"]
        assert mine[0]["heldout"][0] == row["heldout"][0]
        assert mine[0]["heldout"][1] == pytest.approx(row["heldout"][1], rel=1e-4)


def test_ones_own_point_is_two_stars_and_words_beside_the_sweeps(quick):
    before = look(quick)
    quick.start.click()
    ((full,), (lora,)) = quick.own["json", 512, "rank 8", 2]
    a, b = full["heldout"][1], lora["heldout"][1]
    assert stars(quick) == [(512, a, COLORS["full"]), (512, b, COLORS["lora"])]
    text = quick.curves.text
    assert f"Yours (CPU, 1 thread, seed 0, all 2 steps): the loss of rank 8 is {b / a:.3g}" in text
    assert text.index("NVIDIA H100") < text.index("Yours"), "beside the committed one"
    assert quick.line.value.startswith("2 steps of both in")
    assert look(quick)[0] == before[0] and look(quick)[1] != before[1]


def test_fewer_steps_than_the_sweeps_are_said(monkeypatch, small_base_to_read):
    real = small(small_base_to_read)
    rows = [row | {"run": row["run"] | {"steps": 12}} for row in real("data")]
    monkeypatch.setattr(module, "grid", lambda name: rows)
    explorer = WhenFullWinsExplorer()
    explorer.steps.value = 10
    explorer.start.click()
    assert "seed 0, only 10 of the sweep's 12 steps" in explorer.curves.text


@pytest.mark.parametrize(("control", "value"), [("task", "deep"), ("rank", 1)])
def test_stars_stay_with_their_depth_and_rank(quick, control, value):
    quick.start.click()
    seen, slider = look(quick), getattr(quick, control)
    old, slider.value = slider.value, value
    assert stars(quick) == [] and "Yours" not in quick.curves.text
    slider.value = old
    assert look(quick) == seen


def test_stars_of_another_size_are_on_show_and_not_in_words(quick):
    quick.start.click()
    quick.size.value = 32
    assert [x for x, *_ in stars(quick)] == [512, 512]
    assert "Yours" not in quick.curves.text


def test_both_methods_learn_from_the_same_examples_in_the_same_order(quick, monkeypatch):
    real, met = Stack._batch, {}

    def batch(stack, position):
        tokens, labels = real(stack, position)
        met.setdefault(position, []).append(tokens)
        return tokens, labels

    monkeypatch.setattr(Stack, "_batch", batch)
    quick.start.click()
    assert sorted(met) == [0, 1]
    assert all(len(pair) == 2 and pair[0].equal(pair[1]) for pair in met.values())


@pytest.mark.parametrize("at", ["step", "score"])
def test_stop_keeps_what_was_drawn_and_judges_nothing(quick, monkeypatch, at):
    quick.start.click()
    before, own, real = look(quick), dict(quick.own), getattr(Stack, at)

    def stopped(stack, *args, **found):
        quick.stop.click()
        return real(stack, *args, **found)

    monkeypatch.setattr(Stack, at, stopped)
    quick.start.click()
    assert quick.line.value.startswith("stopped")
    assert quick.own == own and look(quick) == before


def test_running_and_closing_leaves_no_tensor_behind(monkeypatch, small_base_to_read):
    monkeypatch.setattr(module, "grid", small(small_base_to_read))

    def run_and_close() -> None:
        explorer = WhenFullWinsExplorer()
        explorer.start.click()
        explorer.close()

    assert_keeps_nothing(run_and_close, 2)
