"""Pages 04, 06, 08, 09 and 10 in a browser: every control by keys and mouse, runs, errors."""

import contextlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, expect
from slow.browser import NOTEBOOKS, Cell, Lab
from slow.test_lesson import LONG, grows, opened, starts, stops

from lorakit.answers import FILE


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_on_the_page(lab: Lab) -> Iterator[None]:
    yield
    expect(lab.page.get_by_text("javascript error")).to_have_count(0)
    assert (lab.crashes, lab.complaints) == ([], [])


@contextlib.contextmanager
def tells(cell: Cell, *numbers: int, timeout: float = 60) -> Iterator[None]:
    """What happens in the block changes these pictures, and the lines under them."""
    before = [(cell.picture_src(n), cell.picture_text(n)) for n in numbers]
    yield
    for number, (src, text) in zip(numbers, before, strict=True):
        cell.wait_for_change(src, number, timeout=timeout)
        expect(cell.line(number)).not_to_have_text(text, timeout=1000 * timeout)
    cell.lab.wait_until_idle(timeout=timeout)


def slides(cell: Cell, label: str, *numbers: int, key: str = "ArrowRight", pixels: float = 80):
    """A key moves a slider, another takes it back, the mouse drags it: all three are told."""
    back = {"ArrowRight": "ArrowLeft", "ArrowLeft": "ArrowRight"}[key]
    texts = [cell.picture_text(number) for number in numbers]
    for press in (key, back):
        with tells(cell, *numbers):
            cell.press(label, press)
    assert [cell.picture_text(number) for number in numbers] == texts
    with tells(cell, *numbers):
        cell.drag(label, pixels)


def press_on(control: Locator, *keys: str) -> None:
    control.focus()
    for key in keys:
        control.page.keyboard.press(key)


def next_option(cell: Cell, label: str, arrow: str = "ArrowDown") -> None:
    """By keys: a closed list would leave the arrow to JupyterLab, so it is opened first."""
    press_on(cell.control(label).locator("select"), "Space", arrow, "Enter")


def chooses(cell: Cell, label: str, option: str, *numbers: int, arrow: str = "ArrowDown") -> None:
    """A neighbouring option of a dropdown by keys, then one by its name."""
    with tells(cell, *numbers):
        next_option(cell, label, arrow)
    with tells(cell, *numbers):
        cell.choose(label, option)


def toggles(cell: Cell, by_key: str, by_mouse: str, *numbers: int) -> None:
    """Two of the buttons of which one is down."""
    with tells(cell, *numbers):
        press_on(cell.outputs.locator("button").get_by_text(by_key, exact=True), "Enter")
    with tells(cell, *numbers):
        cell.click(by_mouse)


def test_page_04_trains_a_rank_anew_sketches_a_curve_and_races(lab):
    opened(lab, "04_rank_and_alpha")
    explorer = lab.cell("explorer = widgets.RankAlphaExplorer(run)")
    with tells(explorer, 0):
        explorer.press("rank", "ArrowLeft")
    with tells(explorer, 0):
        explorer.drag("rank", -60)
    lab.page.wait_for_timeout(1_000)  # what the drag asked for begins when the slider rests
    stop = explorer.outputs.locator("button").filter(has_text="Stop")
    expect(stop).to_be_disabled(timeout=60_000)  # one run at a time
    drawn = lab.cell("drawn = widgets.Sketch(")
    with tells(drawn, 0):
        drawn.press(1, "ArrowUp")
    race = lab.run("race = widgets.RaceExplorer(")
    starts(race, "racing: ")
    grows(race)
    race.click("Stop")
    race.expect_text("runs in", timeout=60)
    lab.check()


def test_page_06_swaps_looks_into_files_and_merges(lab):
    (lab.server.root / FILE).unlink(missing_ok=True)
    opened(lab, "06_keep_or_merge")
    shelf = lab.cell("shelf_of_48 = widgets.ShelfExplorer()")
    chooses(shelf, "adapter", "none", 0)
    expect(shelf.line(0)).to_contain_text("the base: ")
    with tells(shelf, 0):
        next_option(shelf, "prompt")
    slides(shelf, "tasks", 1, key="ArrowLeft", pixels=-100)
    shelf.screenshot("06-shelf")
    inside = lab.cell("inside = widgets.AdapterFileExplorer(")
    chooses(inside, "model", "llama-3-8b", 0)
    chooses(inside, "targets", "attention", 0, arrow="ArrowUp")
    slides(inside, "rank", 0)
    with tells(inside, 0):
        press_on(inside.outputs.locator("input[type=checkbox]"), "Space")
    with tells(inside, 0):
        inside.outputs.get_by_text("save embeddings").click()
    inside.screenshot("06-file")
    merging = lab.cell("merging = widgets.MergeExplorer(result)")
    slides(merging, "alpha", 0, key="ArrowLeft", pixels=-120)
    toggles(merging, "float16", "float32", 0)
    merging.screenshot("06-merge")
    swap = lab.cell("swap = widgets.Choice(")
    swap.outputs.get_by_text("the form", exact=True).click()
    swap.click("Keep my guess")
    swap.expect_text("kept: the form; the result is known")
    told = "you said the form, the result is the form: right"
    lab.cell("swap.reveal(").expect_picture_text(told)
    lab.check()


def test_page_08_moves_blocks_and_levels_and_trains_over_four_bits(lab):
    opened(lab, "08_qlora")
    bits = lab.cell("bits = widgets.QuantizeExplorer(base)")
    chooses(bits, "layer", "1.mlp.down_proj", 0, 1)
    slides(bits, "block", 0, 1)
    toggles(bits, "fp4", "int4", 0, 1)
    toggles(bits, "32 bits", "8 bits", 0)
    bits.screenshot("08-bits")
    trainer = lab.run("four_bits = widgets.FinetuneExplorer(")
    starts(trainer)
    grows(trainer)
    stops(trainer)
    trainer.screenshot("08-trainer")
    lab.check()


def test_page_08_shows_a_callback_s_error_until_it_is_mended(lab):
    lab.open(NOTEBOOKS / "08_qlora.ipynb")
    lab.run("import lorakit as lk")
    bits = lab.run("bits = widgets.QuantizeExplorer(base)")
    lab.execute("taken = {**bits.weights}; bits.weights.clear()")
    bits.press("block", "ArrowRight")
    bits.expect_text("KeyError: ")
    with pytest.raises(AssertionError, match="KeyError"):
        lab.check()
    lab.execute("bits.weights.update(taken)")
    with tells(bits, 0, 1):
        bits.press("block", "ArrowRight")
    lab.check()


def test_page_09_trains_a_real_model_and_takes_its_delta_apart(lab):
    opened(lab, "09_real_model")
    parameters = lab.cell("parameters = widgets.ParametersExplorer(")
    chooses(parameters, "model", "llama-3-8b", 0, 1)
    chooses(parameters, "targets", "attention", 0, 1, arrow="ArrowUp")
    slides(parameters, "rank", 0, 1)
    parameters.press("alpha", "ArrowRight")
    parameters.expect_text("alpha / rank = ")
    three = lab.cell("three = widgets.RealModelExplorer(")
    chooses(three, "measure", "on disk, MB", 0)
    spectrum = lab.cell("spectrum = widgets.SpectrumExplorer(result)")
    slides(spectrum, "cut at rank", 0)
    chooses(spectrum, "layer", "2.mlp.up_proj", 0)
    with spectrum.changing(timeout=LONG):
        spectrum.press("alpha", "ArrowRight")
    spectrum.expect_text("rescaled, not retrained", timeout=LONG)
    spectrum.screenshot("09-spectrum")
    trainer = lab.run("trainer = widgets.FinetuneExplorer(run)")
    starts(trainer, timeout=LONG)
    grows(trainer)
    stops(trainer)
    lab.check()


def test_page_10_is_answered_and_searched_by_mouse(lab):
    (lab.server.root / FILE).unlink(missing_ok=True)
    opened(lab, "10_check_yourself")
    quiz = lab.cell("quiz = widgets.QuizExplorer()")
    with tells(quiz, 0):
        quiz.outputs.locator(".widget-radio-box label").first.click()
        quiz.click("Check")
    quiz.click("Next question")
    quiz.expect_text("2 of ")
    next_option(quiz, "question")
    quiz.expect_text("3 of ")
    glossary = lab.cell("glossary = widgets.Glossary()")
    glossary.control("search the words").locator("input").fill("absmax")
    expect(glossary.outputs.locator("dt").first).to_have_text("absmax")
    lab.check()
