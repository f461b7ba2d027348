"""A small explorable in JupyterLab, by keyboard and mouse, in both themes, over a reload."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from playwright.sync_api import expect
from slow.browser import Cell, Lab, find_browser

EXPLORABLE = """
import ipywidgets
from lorakit.widgets import Explorable, Picture, shown

class Bars(Explorable):
    def __init__(self):
        self.rank = ipywidgets.IntSlider(4, min=1, max=9, description="rank")
        self.kind = ipywidgets.Dropdown(options=["plain", "striped"], description="kind")
        self.size = ipywidgets.ToggleButtons(options=["small", "large"], description="size")
        self.again = ipywidgets.Button(description="Again", icon="undo")
        self.picture = Picture(400, 120, alt="bars")
        controls = [self.rank, self.kind, self.size, self.again]
        super().__init__([*controls, self.picture], alt="explorable: bars")
        for control in (self.rank, self.kind):
            control.observe(self.refresh, names="value")
        self.again.on_click(lambda button: setattr(self.rank, "value", 4))
        self.refresh()

    @shown
    def refresh(self, change=None):
        if self.rank.value == 9:
            raise ValueError("nine is too many")
        hatch = "/" if self.kind.value == "striped" else ""
        with self.picture.drawing() as ax:
            ax.barh(["rank"], [self.rank.value], hatch=hatch)
            ax.set_xlim(0, 9)
        self.picture.text = f"{self.rank.value} bars, {self.kind.value}"
"""


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    path = tmp_path_factory.mktemp("notebook") / "bars.ipynb"
    cells = [new_markdown_cell("# Bars"), new_code_cell(EXPLORABLE), new_code_cell("Bars()")]
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture
def bars(lab: Lab, notebook) -> Cell:
    lab.open(notebook)
    lab.run_all()
    cell = lab.cell("Bars()")
    cell.expect_picture_text("4 bars, plain")
    return cell


def test_arrow_keys_change_picture_and_text_there_and_back(bars):
    with bars.changing():
        bars.press("rank", "ArrowRight")
    bars.expect_picture_text("5 bars, plain")
    assert bars.value("rank") == "5"
    with bars.changing():
        bars.press("rank", "ArrowLeft")
    bars.expect_picture_text("4 bars, plain")


def test_many_keys_end_at_the_last_value(bars):
    bars.press(0, "ArrowRight", times=4)
    bars.expect_picture_text("8 bars, plain")


def test_the_mouse_drags_a_slider_there_and_back(bars):
    with bars.changing():
        bars.drag("rank", 60)
    bars.lab.wait_until_idle()
    assert int(bars.value("rank")) > 4
    bars.expect_picture_text(f"{bars.value('rank')} bars, plain")
    bars.drag("rank", -400)
    bars.expect_picture_text("1 bars, plain")


def test_a_dropdown_and_a_button_reach_the_picture(bars):
    with bars.changing():
        bars.choose("kind", "striped")
    bars.expect_picture_text("4 bars, striped")
    bars.press("rank", "ArrowRight")
    bars.expect_picture_text("5 bars, striped")
    bars.click("Again")
    bars.expect_picture_text("4 bars, striped")


def test_a_callback_s_error_is_on_the_page_and_the_next_success_clears_it(bars):
    bars.press("rank", "ArrowRight", times=5)
    bars.expect_text("ValueError: nine is too many")
    with pytest.raises(AssertionError, match="nine is too many"):
        bars.lab.check()
    bars.press("rank", "ArrowLeft")
    bars.expect_picture_text("8 bars, plain")
    bars.lab.check()


def test_a_dark_theme_inverts_pictures_and_a_light_one_does_not(bars):
    assert bars.picture_filter() == "none"
    bars.lab.set_theme("JupyterLab Dark")
    assert "invert" in bars.picture_filter()
    assert bars.lab.screenshot("bars-dark").stat().st_size > 0
    bars.lab.set_theme("JupyterLab Light")
    assert bars.picture_filter() == "none"
    assert bars.screenshot("bars-light").stat().st_size > 0


@pytest.mark.parametrize(
    ("root", "mark"), [("body", {"class": "vscode-dark"}), ("documentElement", {"theme": "dark"})]
)
def test_so_does_a_dark_page_of_vs_code_and_of_colab(bars, root, mark):
    [(name, value)], page = mark.items(), bars.lab.page
    before = page.evaluate("([root, name]) => document[root].getAttribute(name)", [root, name])
    page.evaluate("([root, name, v]) => document[root].setAttribute(name, v)", [root, name, value])
    assert "invert" in bars.picture_filter()
    page.evaluate(
        "([root, name, v]) => v === null ? document[root].removeAttribute(name)"
        " : document[root].setAttribute(name, v)",
        [root, name, before],
    )
    assert bars.picture_filter() == "none"


def test_the_button_that_is_down_has_a_mark_of_its_own(bars):
    def marks() -> dict[str, bool]:
        buttons = bars.outputs.locator(".widget-toggle-buttons button")
        return {
            button.inner_text().strip(): "inset"
            in button.evaluate("button => getComputedStyle(button).boxShadow")
            for button in buttons.all()
        }

    assert marks() == {"small": True, "large": False}
    bars.click("large")
    expect(bars.outputs.locator("button.mod-active")).to_have_text("large")
    assert marks() == {"small": False, "large": True}


@pytest.mark.parametrize("saved", [True, False])
def test_after_a_reload_the_cell_runs_again(bars, saved):
    lab = bars.lab
    if saved:
        lab.save()
    lab.reload()
    lab.check()
    bars = lab.run("Bars()")
    bars.expect_picture_text("4 bars, plain")
    with bars.changing():
        bars.press("rank", "ArrowRight")
    bars.expect_picture_text("5 bars, plain")
    assert lab.crashes == []


def test_after_a_restart_all_cells_run_again(bars):
    bars.lab.restart()
    with pytest.raises(AssertionError, match="NameError"):
        bars.lab.run("Bars()")
    bars.lab.run_all()
    with bars.changing():
        bars.press("rank", "ArrowRight")
    bars.expect_picture_text("5 bars, plain")


def test_a_cell_that_fails_fails_the_run(lab, tmp_path):
    cells = [new_code_cell("1 / 0"), new_code_cell("print('on')")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "broken.ipynb")
    lab.open(tmp_path / "broken.ipynb")
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        lab.run_all()
    assert lab.cell(1).outputs.count() == 0 or "on" not in lab.cell(1).text()


def test_each_test_has_a_kernel_of_its_own(lab, notebook):
    lab.open(notebook)
    lab.run(1)
    lab.open(notebook)
    expect(lab.cell(2).picture()).to_have_count(0)
    with pytest.raises(AssertionError, match="NameError"):
        lab.run(2)


def test_kernels_are_a_learner_s_and_on_a_fixed_device(lab, tmp_path):
    names = ("LORAKIT_TEST", "LORAKIT_DEVICE", "OMP_NUM_THREADS")
    cell = new_code_cell(f"import os\nprint(*(os.environ.get(name) for name in {names}))")
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "environment.ipynb")
    lab.open(tmp_path / "environment.ipynb")
    lab.run(0).expect_text("None cpu 2")


def test_a_named_browser_that_is_not_there_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("LORAKIT_BROWSER", str(tmp_path / "chromium"))
    with pytest.raises(FileNotFoundError, match="LORAKIT_BROWSER="):
        find_browser()


def test_without_a_name_and_without_a_browser_there_is_none(monkeypatch, tmp_path):
    monkeypatch.delenv("LORAKIT_BROWSER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_browser() is None
