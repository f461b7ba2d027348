"""Scrubbing through a sweep: numbers are the raw rows', controls come back, cells run again."""

import random
import threading
from statistics import fmean

import pytest
from explorables import assert_keeps_nothing, assert_moves, controls, look, values
from matplotlib.colors import to_rgb
from sweep_rows import best_of, raw, small

from lorakit.claims.evidence import grid
from lorakit.grids import GRIDS, run_of
from lorakit.plots import COLORS, figure
from lorakit.stacked import Stack
from lorakit.sweep import sweep
from lorakit.widgets import SweepExplorer
from lorakit.widgets import scrubber as module
from lorakit.widgets.sweep_table import BEST, FORGOTTEN, LOSS

MOVES = [
    ("rank", "task", "manners-dialect"),
    ("rank", "kind", "rank 64"),
    ("rank", "kind", "full"),
    ("rank", "lr", 0.04),
    ("rank", "lr", 0.00025),
    ("data", "task", "deep"),
    ("data", "sample", 12800),
    ("data", "kind", "rank 1"),
    ("data", "lr", 0.0025),
    ("targets", "task", "manners-dialect"),
    ("targets", "targets", "MLP"),
    ("targets", "lr", 0.0025),
    ("scaling", "kind", "rank 1"),
    ("scaling", "lr", 0.04),
    ("batch", "batch_size", 128),
    ("batch", "kind", "full"),
    ("batch", "lr", 0.02),
]


@pytest.fixture
def explorer() -> SweepExplorer:
    return SweepExplorer("rank")


@pytest.fixture
def quick(monkeypatch, small_base_to_read) -> SweepExplorer:
    """A sweep whose runs take a moment; json, rank 8."""
    monkeypatch.setattr(module, "grid", small(small_base_to_read))
    return SweepExplorer("rank")


def line(explorer, color: str, marker: str = "o") -> dict[float, float]:
    """The points of the line with that color and marker."""
    found = [
        line
        for line in explorer.picture.axes.lines
        if line.get_marker() == marker and line.get_color() == color
    ]
    return dict(zip(*map(list, found[0].get_data()), strict=True))


# Its numbers


def test_the_points_along_ranks_are_the_means_of_the_raw_rows(explorer):
    explorer.measure.value = LOSS
    points = line(explorer, COLORS["lora"])
    assert list(points) == list(range(1, 8))
    for place, rank in enumerate([1, 2, 4, 8, 16, 32, 64], start=1):
        rows = best_of(raw("rank", task="json", method="lora", rank=rank))
        assert points[place] == pytest.approx(fmean(row["heldout"][1] for row in rows))
    rows = best_of(raw("rank", task="json", method="full"))
    assert line(explorer, COLORS["full"]) == {
        0: pytest.approx(fmean(row["heldout"][1] for row in rows))
    }
    (across,) = {*line(explorer, COLORS["full"], "").values()}
    assert across == pytest.approx(fmean(row["heldout"][1] for row in rows))


def test_the_points_along_rates_are_the_means_of_the_raw_rows(explorer):
    explorer.x.value, explorer.measure.value = "lr", FORGOTTEN
    points = line(explorer, COLORS["full"])
    assert len(points) == 6
    for lr, value in points.items():
        rows = raw("rank", task="json", method="full", lr=lr)
        assert value == pytest.approx(fmean(row["own"] for row in rows))


def test_the_points_along_sizes_have_each_its_own_best_rate():
    explorer = SweepExplorer("data")
    explorer.controls["task"].value = "manners-dialect"
    points = line(explorer, COLORS["full"])
    assert list(points) == [32, 128, 512, 3200, 12800]
    for size, value in points.items():
        rows = best_of(raw("data", task="manners-dialect", sample=size, method="full"))
        assert value == pytest.approx(fmean(row["heldout"][0] for row in rows))


@pytest.mark.parametrize("kind", ["full", "rank 2"])
def test_words_tell_the_chosen_cell_by_the_raw_rows(explorer, kind):
    explorer.controls["kind"].value = kind
    explorer.measure.value = LOSS
    wanted = {"method": "full"} if kind == "full" else {"method": "lora", "rank": 2}
    rows = best_of(raw("rank", task="json", **wanted))
    losses = [row["heldout"][1] for row in rows]
    text = explorer.picture.text
    assert f"loss {fmean(losses):.3g}, mean of {len(rows)} seeds" in text
    assert f"{min(losses):.3g} to {max(losses):.3g}" in text
    assert f"lr {rows[0]['run']['lr']:g}" in text and kind in text and "60 steps" in text
    assert rows and "H100" in text


def test_a_cell_that_was_not_run_is_said_and_refused(explorer):
    explorer.controls["lr"].value = 0.00025
    assert "json, rank 8: no run at lr 0.00025; its rates are 0.000625" in explorer.picture.text
    with pytest.raises(ValueError, match=r"no run at lr 0\.00025"):
        explorer.go(wait=True)
    assert "ended by an error" in explorer.line.value


def test_runs_that_diverged_are_said_and_left_off(monkeypatch):
    def rows(name):
        return [
            row | {"diverged": True, "heldout": [0.0, None], "own": None}
            if row["run"]["lr"] == 0.04 and row["run"]["seed"] < 2
            else row
            for row in grid(name)
        ]

    monkeypatch.setattr(module, "grid", rows)
    explorer = SweepExplorer("scaling")
    explorer.x.value = "lr"
    explorer.controls["lr"].value = 0.04
    for measure in explorer.measure.options:
        explorer.measure.value = measure
        assert "2 of 5 runs diverged" in explorer.picture.text
    shown = [line for line in explorer.picture.axes.lines if line.get_linewidth() == 3.5]
    assert [value == value for value in shown[0].get_ydata()] == [True] * 6 + [False]


def test_lines_are_fulls_dashed_and_darker_the_higher_the_rank(explorer):
    explorer.x.value = "lr"
    legend = explorer.picture.axes.get_legend()
    handles = dict(zip([t.get_text() for t in legend.get_texts()], legend.get_lines(), strict=True))
    assert handles["full"].get_color() == COLORS["full"] and handles["full"].is_dashed()
    greys = [sum(to_rgb(handles[f"rank {2**i}"].get_color())) for i in range(7)]
    assert greys == sorted(greys, reverse=True) and len(set(greys)) == 7


# Its controls


@pytest.mark.parametrize(("name", "axis", "value"), MOVES)
def test_picture_and_words_follow_a_control_there_and_back(name, axis, value):
    explorer = SweepExplorer(name)
    explorer.measure.value = LOSS
    assert_moves(explorer, explorer.controls[axis], value, [explorer.picture])


@pytest.mark.parametrize("name", GRIDS)
def test_no_control_is_passed_over(name):
    explorer = SweepExplorer(name)
    moved = {explorer.controls[axis] for of, axis, _ in MOVES if of == name}
    assert moved == set(explorer.controls.values())
    assert moved | {explorer.x, explorer.measure, explorer.seed} == set(controls(explorer))


@pytest.mark.parametrize("measure", [LOSS, FORGOTTEN])
def test_the_measure_moves_picture_and_words_there_and_back(explorer, measure):
    assert_moves(explorer, explorer.measure, measure, [explorer.picture])


def test_the_axis_moves_the_picture_alone_and_back(explorer):
    before = look(explorer)
    explorer.x.value = "lr"
    ((png, text),) = look(explorer)
    assert png != before[0][0] and text == before[0][1]
    explorer.x.value = "kind"
    assert look(explorer) == before


def test_the_seed_decides_the_next_run_and_moves_no_picture(explorer):
    before, run = look(explorer), explorer.run
    explorer.seed.value = module.NEW
    assert (run.seed, explorer.run.seed) == (0, 5)
    assert look(explorer) == before
    explorer.seed.value = module.AGAIN
    assert explorer.run == run


@pytest.mark.parametrize("name", GRIDS)
def test_a_picture_reached_by_many_moves_is_that_drawn_afresh(name):
    explorer, draw = SweepExplorer(name), random.Random(name)
    for _ in range(8):
        control = draw.choice(controls(explorer))
        control.value = draw.choice(values(control))
    reached = look(explorer)
    explorer.picture._figure, explorer.picture.axes = figure(900, 420)
    explorer.picture._kept = {}
    explorer.refresh()
    assert look(explorer) == reached


@pytest.mark.parametrize("name", GRIDS)
def test_nothing_is_trained_while_a_slider_moves(name, monkeypatch):
    monkeypatch.setattr(module, "run_here", lambda *_: pytest.fail("trained"))
    explorer = SweepExplorer(name)
    explorer.x.value = "lr"
    slider = explorer.controls["lr"]
    for option in values(slider):
        slider.value = option
    assert not explorer.own


def test_what_it_is_is_told_in_words_that_stay(explorer):
    assert explorer._repr_mimebundle_()["text/plain"] == explorer.alt
    assert explorer.picture.value and explorer.picture.text != explorer.picture.alt


def test_an_unknown_sweep_is_refused():
    with pytest.raises(ValueError, match="there is no sweep 'depth'"):
        SweepExplorer("depth")


# Its own runs


def test_the_run_is_the_cells_with_the_rate_that_is_best(explorer):
    (row,) = [
        row
        for row in best_of(raw("rank", task="json", method="lora", rank=8))
        if row["run"].get("seed", 0) == 0
    ]
    run = explorer.run
    found = (run.base, run.task, run.method, run.rank, run.learning_rate, run.steps, run.seed)
    assert found == ("mini", "json", "lora", 8, row["run"]["lr"], 60, 0)
    explorer.controls["kind"].value = "full"
    explorer.controls["lr"].value = 0.002
    assert (explorer.run.method, explorer.run.learning_rate) == ("full", 0.002)


@pytest.mark.parametrize("kind", ["full", "rank 8"])
def test_a_cell_run_here_gives_what_the_sweep_gives_for_it(quick, tmp_path, kind):
    quick.controls["kind"].value = kind
    quick.start.click()
    (mine,) = quick.own
    (row,) = sweep([quick.run], tmp_path / "rows.jsonl")
    assert mine["heldout"][0] == row["heldout"][0]
    assert mine["heldout"][1] == pytest.approx(row["heldout"][1], rel=1e-4)
    assert mine["own"] == pytest.approx(row["own"], rel=1e-4)
    assert run_of(mine) == run_of(row) == quick.run and not mine["diverged"]
    assert quick.line.value.startswith("2 steps with seed 0")


def test_ones_own_run_is_a_star_and_stands_in_words_beside_the_sweeps(quick):
    quick.measure.value = LOSS
    before = look(quick)
    quick.start.click()
    loss = quick.own[0]["heldout"][1]
    (there,) = [row for row in quick.cell if row["run"]["seed"] == 0]
    words = f"seed 0 gives {loss:.3g} (the sweep's: {there['heldout'][1]:.3g})"
    assert words in quick.picture.text and "Yours (CPU" in quick.picture.text
    stars = [line for line in quick.picture.axes.lines if line.get_marker() == "*"]
    assert [(x, y) for line in stars for x, y in line.get_xydata()] == [(4, loss)]
    assert quick.picture.axes.get_ylim()[1] > loss
    assert look(quick) != before


def test_the_star_stays_with_its_cell(quick):
    quick.start.click()
    seen = look(quick)
    for axis, value in (("task", "manners-dialect"), ("lr", 0.04)):
        control = quick.controls[axis]
        old, control.value = control.value, value
        assert "Yours" not in quick.picture.text
        stars = [line for line in quick.picture.axes.lines if line.get_marker() == "*"]
        assert not any(len(line.get_xdata()) for line in stars)
        control.value = old
    assert look(quick) == seen


def test_new_seeds_go_on_from_the_last_and_an_old_one_replaces_its_own(quick):
    quick.seed.value = module.NEW
    quick.start.click()
    quick.start.click()
    quick.seed.value = module.AGAIN
    quick.start.click()
    quick.start.click()
    assert [row["run"]["seed"] for row in quick.own] == [5, 6, 0]
    matches = [f"{row['heldout'][0]:.3f}" for row in quick.own]
    words = f"seed 5 gives {matches[0]}, seed 6 gives {matches[1]}, seed 0 gives {matches[2]} (the"
    assert words in quick.picture.text
    quick.controls["kind"].value = "full"
    quick.seed.value = module.NEW
    assert quick.run.seed == 5


@pytest.mark.parametrize("at", ["training", "judging"])
def test_stop_keeps_what_was_drawn_and_judges_nothing(quick, monkeypatch, at):
    quick.start.click()
    before, own = look(quick), quick.own
    name = "step" if at == "training" else "score"
    real, done = getattr(Stack, name), []

    def stopped(stack, *args, **found):
        done.append(stack)
        quick.stop.click()
        return real(stack, *args, **found)

    monkeypatch.setattr(Stack, name, stopped)
    quick.start.click()
    assert quick.line.value.startswith("stopped") and len(done) == 1
    assert quick.own == own and look(quick) == before


def test_the_line_tells_how_far_it_is_and_how_long_it_takes(quick):
    seen = []
    quick.line.observe(lambda change: seen.append(change.new), names="value")
    quick.start.click()
    assert "loading the base" in seen and "judging" in seen
    assert any(line.startswith("training: 1 of 2,") and line.endswith("s left") for line in seen)


def test_a_run_of_ones_own_that_diverges_is_said(quick, monkeypatch):
    monkeypatch.setattr(Stack, "alive", property(lambda stack: stack.adamw.alive & False))
    quick.measure.value = LOSS
    quick.start.click()
    assert "seed 0 gives diverged" in quick.picture.text
    assert quick.error.value == ""


def test_closing_stops_a_run_that_is_alive_and_nothing_is_drawn_any_more(quick, monkeypatch):
    began, gate, real = threading.Event(), threading.Event(), Stack.step

    def step(stack):
        began.set()
        assert gate.wait(20)
        return real(stack)

    monkeypatch.setattr(Stack, "step", step)
    before = look(quick)
    quick.go()
    assert began.wait(20)
    quick.close()
    gate.set()
    quick._thread.join(20)
    assert not quick.running and quick._error is None
    assert quick.own == [] and look(quick) == before


def test_running_and_closing_leaves_no_tensor_behind(monkeypatch, small_base_to_read):
    monkeypatch.setattr(module, "grid", small(small_base_to_read))

    def run_and_close() -> None:
        explorer = SweepExplorer("rank")
        explorer.start.click()
        explorer.close()

    assert_keeps_nothing(run_and_close, 3)


def test_best_is_one_of_the_rates_to_choose(explorer):
    first, *rates = values(explorer.controls["lr"])
    assert first == BEST == explorer.controls["lr"].value
    assert rates == sorted({row["run"]["lr"] for row in raw("rank")})
