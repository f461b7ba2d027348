"""Page 10 in a browser: the quiz by keys alone, its answers after every mishap, the glossary."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect
from slow.browser import NOTEBOOKS, Cell, Lab, Server, closing
from slow.test_answers import CONTRASTS

from lorakit.answers import FILE
from lorakit.quiz import quiz_items

PAGE = "10_check_yourself.ipynb"
QUIZ, GLOSSARY = "quiz = widgets.QuizExplorer()", "glossary = widgets.Glossary()"
FIRST, COUNT = quiz_items()[0], len(quiz_items())


@pytest.fixture
def page(lab: Lab) -> Iterator[Lab]:
    """The page, run once, where nothing was kept before; in the end no widget of it is broken."""
    for left in lab.server.root.glob(f"{FILE}*"):
        left.unlink()
    lab.open(NOTEBOOKS / PAGE)
    lab.run_all()
    yield lab
    expect(lab.page.get_by_text("javascript error")).to_have_count(0)


def keys(lab: Lab, *names: str) -> None:
    for name in names:
        lab.page.keyboard.press(name)


def answer_by_keys(page: Lab, option: str) -> Cell:
    """Choose an option of the question on show, and press Check, without a mouse."""
    quiz = page.cell(QUIZ)
    quiz.outputs.locator("select").focus()
    texts = [option.text for option in FIRST.options]
    place = texts.index(option)
    keys(page, *["Tab"] * (place + 1), "Space", *["Tab"] * (len(texts) - place))
    expect(quiz.outputs.locator("button", has_text="Check")).to_be_focused()
    keys(page, "Enter")
    return quiz


def kept(lab: Lab) -> dict:
    return json.loads((lab.server.root / FILE).read_text())


def test_a_question_is_answered_explained_and_followed_by_the_next_with_keys_alone(page):
    quiz = answer_by_keys(page, FIRST.solution)
    quiz.expect_text("Right.")
    for option in FIRST.options:
        quiz.expect_text(option.why)
    quiz.expect_picture_text(
        f"1 of {COUNT} right, 1 of them at the first try; 0 to come back, {COUNT - 1} not asked yet"
    )
    assert kept(page) == {f"quiz/{FIRST.key}": [FIRST.solution]}
    keys(page, "Tab")
    expect(quiz.outputs.locator("button", has_text="Next question")).to_be_focused()
    keys(page, "Enter")
    quiz.expect_text(f"2 of {COUNT}")
    expect(quiz.outputs.locator("input[type=text]")).to_be_focused()
    page.page.keyboard.type("12")
    keys(page, "Tab", "Enter")
    quiz.expect_text("AdamW keeps two means for each parameter, not one")
    assert page.crashes == []


def test_answers_outlive_a_reload_and_a_restart(page):
    answer_by_keys(page, FIRST.solution).expect_text("Right.")
    page.reload()
    page.restart()
    page.run_all()
    quiz = page.cell(QUIZ)
    quiz.expect_text(f"2 of {COUNT}")
    quiz.expect_text(f"1 of {COUNT} right")
    quiz.choose("question", "1. full fine-tuning")
    quiz.expect_text("Right.")
    place = [o.text for o in FIRST.options].index(FIRST.solution)
    expect(quiz.outputs.locator("input[type=radio]").nth(place)).to_be_checked()


def test_answers_outlive_their_server_and_are_found_on_another_port(page, browser, tmp_path):
    answer_by_keys(page, FIRST.options[0].text).expect_text("Not right.")
    again = Server(tmp_path / "again")
    assert again.address != page.server.address
    again.root = page.server.root
    with again, closing(Lab(browser.new_page(), again, page.shots)) as lab:
        lab.open(page.server.root / PAGE)
        lab.run_all()
        quiz = lab.cell(QUIZ)
        quiz.expect_text(f"0 of {COUNT} right, 0 of them at the first try; 1 to come back")
        quiz.choose("question", "1. full fine-tuning")
        quiz.expect_text(f"asked again. Your answer before: {FIRST.options[0].text}")


def test_starting_over_forgets_on_a_second_press(page):
    quiz = answer_by_keys(page, FIRST.solution)
    quiz.expect_text("Right.")
    quiz.click("Start over")
    quiz.click("Yes, forget all my answers")
    quiz.expect_text(f"0 of {COUNT} right")
    assert kept(page) == {}


def test_long_options_are_read_in_full(page):
    quiz = page.cell(QUIZ)
    for number, item in enumerate(quiz_items(), 1):
        quiz.choose("question", f"{number}. {item.topic}")
        quiz.expect_text(f"{number} of {COUNT}: {item.topic}")
        labels = ".widget-radio-box label, .widget-checkbox label"
        cut = quiz.outputs.locator(labels).evaluate_all(
            "all => all.filter(l => l.scrollWidth > l.clientWidth + 1 ||"
            " l.scrollHeight > l.clientHeight + 1).map(l => l.textContent)"
        )
        assert cut == [], item.key
    quiz.screenshot("quiz-last")


def test_there_is_room_to_read_a_number_of_many_digits(page):
    quiz = page.cell(QUIZ)
    for number, item in enumerate(quiz_items(), 1):
        if item.kind == "number":
            quiz.choose("question", f"{number}. {item.topic}")
            quiz.expect_text(f"{number} of {COUNT}: {item.topic}")
            box = quiz.outputs.locator("input[type=text]").bounding_box()
            assert box and box["width"] >= 140, item.key


def test_the_glossary_filters_as_one_types_and_its_links_open_the_page(page):
    glossary = page.cell(GLOSSARY)
    box = glossary.control("search the words").locator("input")
    box.focus()
    page.page.keyboard.type("stable")
    glossary.expect_text("stable rank")
    expect(glossary.outputs.locator("dt")).to_have_count(1)
    with page.page.context.expect_page() as opened:
        glossary.outputs.locator("dt", has_text="stable rank").first.locator(
            "xpath=following-sibling::dd[1]//a"
        ).click()
    other = opened.value
    other.wait_for_url("**/lab/**03_how_big_is_the_change.ipynb*")
    expect(other.locator(".jp-Notebook").first).to_be_visible(timeout=60_000)
    other.close()


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_words_and_controls_can_be_read_in_both_themes(page, theme):
    answer_by_keys(page, FIRST.solution).expect_text("Right.")
    page.set_theme(theme)
    for source in (QUIZ, GLOSSARY):
        outputs = page.cell(source).outputs.locator(".jp-OutputArea-output").element_handle()
        for text, ratio in page.page.evaluate(CONTRASTS, outputs):
            assert ratio >= 4.5, f"{text!r} has a contrast of {ratio:.2f} in {theme}"
        page.cell(source).screenshot(f"{source[:4]}-{theme.split()[-1].lower()}")
