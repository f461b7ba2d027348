"""Guesses in JupyterLab: made by keys, before the result, and found again after every mishap."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect
from slow.browser import Cell, Lab, Server, closing

from lorakit.answers import FILE

IMPORTS = "from lorakit.widgets import Choice, Keeping, Number, Predictions, Sketch"
# What a lent machine comes to: the kernel forgets everything.
MEMORY = "import os\nos.environ['LORAKIT_TEST'] = '1'\n"
CHOICE = 'first = Choice("02/first", "Which moves first?", ["A", "B", "both"])\nfirst'
NUMBER = 'peak = Number("05/peak", "How much?", "MB", log=True)\npeak'
SKETCH = (
    'ranks = Sketch("04/ranks", "How does it go on?", x=(1, 8), y=(0, 1), x_label="rank")\nranks'
)
REVEALS = ["first.reveal('B')", "peak.reveal(10)", "ranks.reveal({1: 0.5, 8: 1})"]
SOURCES = [IMPORTS, "Keeping()", CHOICE, NUMBER, SKETCH, *REVEALS, "Predictions()", "'the end'"]
ITEMS = "() => Object.keys(localStorage).filter(name => name.startsWith('lorakit-answers/'))"


@pytest.fixture
def page(lab: Lab, tmp_path) -> Lab:
    return opened(lab, tmp_path)


def opened(lab: Lab, folder, first: str = "") -> Lab:
    """A notebook of all three kinds, run once, where nothing was kept before."""
    for left in lab.server.root.glob(f"{FILE}*"):
        left.unlink()
    path = folder / "guesses.ipynb"
    cells = [new_code_cell(source) for source in [first + IMPORTS, *SOURCES[1:]]]
    nbformat.write(new_notebook(cells=cells), path)
    lab.open(path)
    lab.page.evaluate("() => localStorage.clear()")
    lab.run_all()
    return lab


def shows_result(cell: Cell) -> bool:
    return cell.picture().is_visible()


def choose_a(lab: Lab) -> None:
    """By keys alone: choose the first option, go past the others to the button, press it."""
    cell = lab.cell("Which moves first?")
    cell.outputs.locator("input[type=radio]").first.focus()
    for key in ("Space", "Tab", "Tab", "Tab", "Enter"):
        lab.page.keyboard.press(key)
    cell.expect_text("kept: A")


def test_run_all_goes_through_with_no_guess_and_shows_no_result(page):
    page.cell("'the end'").expect_text("the end")
    for reveal in REVEALS:
        cell = page.cell(reveal)
        cell.expect_text("the result shows here when you have kept your guess above")
        assert not shows_result(cell)
    page.cell("Predictions()").expect_text("no prediction is kept yet")
    assert page.crashes == []


def test_a_choice_by_keys_brings_its_result_and_the_replay(page):
    choose_a(page)
    page.cell("first.reveal").expect_picture_text("you said A, the result is B: not right")
    assert shows_result(page.cell("first.reveal"))
    page.cell("Predictions()").expect_text("0 of 1 choices right")
    page.cell("Which moves first?").expect_text("kept: A; the result is known")
    expect(page.cell("Which moves first?").outputs.locator("input").first).to_be_disabled()


def test_a_number_is_typed_and_kept_by_keys(page):
    page.cell("How much?").control("your guess").locator("input").focus()
    page.page.keyboard.type("40")
    for key in ("Tab", "Enter"):
        page.page.keyboard.press(key)
    page.cell("How much?").expect_text("kept: 40 MB")
    page.cell("peak.reveal").expect_picture_text(
        "you said 40 MB, the result is 10 MB: 4.0 times too high"
    )


def test_what_is_no_number_is_told_beside_it_and_can_be_mended(page):
    cell = page.cell("How much?")
    box = cell.control("your guess").locator("input")
    box.fill("many")
    cell.click("Keep my guess")
    cell.expect_text("a number is asked for, such as 1,200 or 0.5 or 3e6, got 'many'")
    box.fill("5")
    box.blur()  # the error goes, and what is below it moves
    cell.click("Keep my guess")
    cell.expect_text("kept: 5 MB")
    page.check()


def test_a_curve_is_drawn_by_arrow_keys(page):
    cell = page.cell("How does it go on?")
    with cell.changing():
        cell.press(1, "ArrowUp", times=3)
    cell.expect_picture_text("your curve: 1: 0.5, 8: 0.55")
    cell.click("Keep my guess")
    page.cell("ranks.reveal").expect_picture_text(
        "you said 1: 0.5, 8: 0.55, the result is 1: 0.5, 8: 1: "
        "off by 0.225 (median of 2 points), by 0.45 at 8; "
        "from 1 to 8 yours rises by 0.05, the result rises by 0.5"
    )


def test_show_me_shows_the_result_without_a_guess(page):
    page.cell("first.reveal").click("Show me")
    page.cell("first.reveal").expect_picture_text("no guess was made, the result is B")
    page.cell("Which moves first?").expect_text("the result was seen without a guess")


def test_a_guess_outlives_a_reload_and_a_restart(page):
    choose_a(page)
    page.reload()
    page.restart()
    page.run_all()
    page.cell("Which moves first?").expect_text("kept: A; the result is known")
    assert shows_result(page.cell("first.reveal"))
    page.cell("Predictions()").expect_text("0 of 1 choices right")


def test_a_guess_outlives_its_server_and_is_found_on_another_port(page, browser, tmp_path):
    choose_a(page)
    again = Server(tmp_path / "again")
    assert again.address != page.server.address
    again.root = page.server.root
    with again, closing(Lab(browser.new_page(), again, page.shots)) as lab:
        lab.open(page.server.root / "guesses.ipynb")
        lab.run_all()
        lab.cell("Which moves first?").expect_text("kept: A; the result is known")


def test_answers_are_exported_forgotten_and_imported(page, tmp_path):
    choose_a(page)
    cell = page.cell("Keeping()")
    with page.page.expect_download() as download:
        cell.outputs.get_by_text("Export", exact=True).click()
    assert download.value.suggested_filename == "lorakit-answers.json"
    download.value.save_as(tmp_path / "answers.json")
    assert json.loads((tmp_path / "answers.json").read_text())["predict/02/first"]["guess"] == "A"
    cell.click("Reset")
    cell.expect_text("Forget all 1 answers? There is no way back.")
    cell.click("Keep them")
    page.cell("Which moves first?").expect_text("kept: A")
    cell.click("Reset")
    cell.click("Forget them all")
    cell.expect_text("forgotten: 1")
    expect(page.cell("first.reveal").picture()).to_be_hidden()
    with page.page.expect_file_chooser() as chooser:
        cell.outputs.get_by_role("button", name="Import").click()
    chooser.value.set_files(tmp_path / "answers.json")
    cell.expect_text("answers that came: 1")
    page.cell("Which moves first?").expect_text("kept: A; the result is known")


def test_on_a_lent_machine_the_browser_keeps_them_over_a_reload_and_a_restart(lab, tmp_path):
    opened(lab, tmp_path, MEMORY)
    lab.cell("Keeping()").expect_text("and in this browser, where more were found: 0")
    choose_a(lab)
    lab.wait_for("the browser's copy", f"() => ({ITEMS})().length === 1")
    assert not (lab.server.root / FILE).exists()
    lab.reload()
    lab.restart()
    lab.run_all()
    lab.cell("Keeping()").expect_text("and in this browser, where more were found: 1")
    lab.cell("Which moves first?").expect_text("kept: A; the result is known")
    assert shows_result(lab.cell("first.reveal"))
    lab.cell("Keeping()").click("Reset")
    lab.cell("Keeping()").click("Forget them all")
    lab.wait_for("an empty copy", f"() => ({ITEMS})().length === 0")


def test_a_machine_that_stays_leaves_nothing_in_the_browser(page):
    choose_a(page)
    page.wait_until_idle()
    assert page.page.evaluate(ITEMS) == []
    assert [*json.loads((page.server.root / FILE).read_text())] == ["predict/02/first"]


def test_words_and_controls_can_be_read_in_both_themes(page):
    choose_a(page)
    page.cell("Keeping()").click("Reset")
    page.cell("Keeping()").expect_text("There is no way back.")
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        page.set_theme(theme)
        for source in [*SOURCES[1:3], *REVEALS, "Predictions()"]:
            cell = page.cell(source)
            ratios = dict(page.page.evaluate(CONTRASTS, cell.outputs.element_handle()))
            assert ratios
            assert {text: ratio for text, ratio in ratios.items() if ratio < 4.5} == {}
            cell.screenshot(f"guesses-{cell.index}-{theme.split()[-1].lower()}")


# WCAG 2.2, 1.4.3: the contrast of each text with the first opaque background below it. What is
# disabled, what cannot be seen and the prompt, which is JupyterLab's, is left out.
CONTRASTS = """output => {
    const channels = color => color.match(/[\\d.]+/g).map(Number);
    const light = color => {
        const [r, g, b] = channels(color).map(c => c / 255)
            .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const opaque = color => (channels(color)[3] ?? 1) > 0.99;
    const below = node => {
        for (; node; node = node.parentElement)
            if (opaque(getComputedStyle(node).backgroundColor))
                return getComputedStyle(node).backgroundColor;
        return getComputedStyle(document.body).backgroundColor;
    };
    const LEFT_OUT = ":disabled, style, .jp-OutputPrompt";
    const found = [];
    const walk = document.createTreeWalker(output, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const node = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
        if (!text || !node.getClientRects().length || node.closest(LEFT_OUT)) continue;
        const pair = [getComputedStyle(node).color, below(node)].map(light);
        found.push([text, (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)]);
    }
    return found;
}"""
