"""The teacher's screen in a browser: keys, guesses, reveal, a run, and no word to the network."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import ConsoleMessage, Page, expect
from slow.browser import WAIT

from lorakit.widgets.frames import FRAMES

LONG = 120_000  # milliseconds: until the last explorable is made, on two busy cores
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\?token=\w+")

FITS = """() => [".stage-pane", ".stage-asked"].every(part => {
    const box = document.querySelector(part);
    return box.scrollHeight <= box.clientHeight + 1;
})"""


@dataclass(frozen=True)
class Served:
    """The address that `lorakit present` prints, its process, and the folder of its files."""

    address: str
    pid: int
    folder: Path

    @property
    def kernels(self) -> int:
        found = 0
        for process in psutil.Process(self.pid).children(recursive=True):
            with suppress(psutil.Error):  # of one that has just ended
                found += "ipykernel_launcher" in " ".join(process.cmdline())
        return found


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    """`lorakit present`, while it runs; a kernel that no page has any more ends within seconds."""
    folder = tmp_path_factory.mktemp("present")
    environment = {**os.environ, "JUPYTER_DATA_DIR": str(folder), "HOME": str(folder)}
    environment["TMPDIR"] = str(folder)
    environment.pop("LORAKIT_TEST", None)
    soon = ("--MappingKernelManager.cull_idle_timeout=3", "--MappingKernelManager.cull_interval=1")
    command = [sys.executable, "-m", "lorakit.cli", "present", "--no-browser", *soon]
    log = folder / "log"
    with log.open("w") as file:
        server = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield Served(found(log), server.pid, folder)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(WAIT)


def found(log: Path) -> str:
    end = time.monotonic() + 2 * WAIT
    while time.monotonic() < end:
        if match := ADDRESS.search(log.read_text()):
            return match[0]
        time.sleep(0.1)
    raise AssertionError(f"no address in {log.read_text()}")


@pytest.fixture
def stage(browser, served) -> Iterator[Page]:
    """The first frame, without a guess; what goes wrong on the page fails the test that sees it."""
    for room in served.folder.rglob("room.json"):
        room.unlink()
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: is_error(said) and wrong.append(said.text))
    page.on("request", lambda asked: foreign(asked.url) and wrong.append(asked.url))
    page.goto(served.address)
    expect(page.locator(".stage-frame h2")).to_be_visible(timeout=1000 * WAIT)
    yield page
    expect(page.locator("[role=alert]")).to_have_count(0)
    page.context.close()
    assert wrong == []


def is_error(said: ConsoleMessage) -> bool:
    """Voila refuses its own page's farewell, which lacks a token: the kernel ends by itself."""
    return said.type == "error" and "/api/shutdown/" not in said.location["url"]


def foreign(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))


def where(page: Page, place: int) -> None:
    expect(page.get_by_text(f"{place} of {len(FRAMES)}, page")).to_be_visible()


def test_every_frame_is_stepped_to_and_revealed_by_keys_alone(stage):
    for place, frame in enumerate(FRAMES.values(), start=1):
        where(stage, place)
        expect(stage.locator(".stage-frame h2")).to_have_text(frame.question)
        expect(stage.get_by_text(frame.answer)).to_have_count(0)
        stage.keyboard.press("r")
        expect(stage.get_by_text(frame.answer)).to_be_visible()
        picture = stage.locator(".stage-pane img.figure").first
        expect(picture).to_be_visible(timeout=LONG)
        stage.wait_for_function(FITS)  # all of it is on a wall of 1280 x 720
        stage.keyboard.press("PageDown")
    where(stage, len(FRAMES))


def test_arrows_step_there_and_back_and_a_second_r_hides(stage):
    stage.keyboard.press("ArrowRight")
    where(stage, 2)
    stage.keyboard.press("ArrowLeft")
    where(stage, 1)
    stage.keyboard.press("r")
    expect(stage.locator(".stage-pane")).to_be_visible()
    stage.keyboard.press("r")
    expect(stage.locator(".stage-pane")).to_be_hidden()


def test_counts_are_typed_drawn_and_kept(stage):
    count, bar = stage.get_by_label("C", exact=True), stage.locator(".stage-bar")
    count.fill("12")
    stage.get_by_label("A", exact=True).fill("6")
    expect(stage.get_by_text("18 guesses: A 6, B 0, C 12")).to_be_visible()
    widths = [bar.nth(place).bounding_box()["width"] for place in range(3)]
    assert widths[1] == 0 < widths[0] == pytest.approx(widths[2] / 2, abs=1)
    stage.keyboard.press("PageDown")  # from within a field, too
    where(stage, 2)
    stage.keyboard.press("PageUp")
    expect(count).to_have_value("12")
    count.focus()
    stage.keyboard.press("r")
    expect(stage.get_by_text("C is right: 12 of 18")).to_be_visible()


def test_a_letter_goes_to_its_count_and_what_is_typed_there_survives_a_reload(stage, served):
    where(stage, 1)
    stage.keyboard.press("PageDown")
    where(stage, 2)
    for letter, guesses in {"b": "17", "d": "4"}.items():
        stage.keyboard.press(letter)
        stage.keyboard.type(guesses)
    said = "21 guesses: A 0, B 17, C 0, D 4"
    expect(stage.get_by_text(said)).to_be_visible()
    stage.reload()
    expect(stage.get_by_text(said)).to_be_visible(timeout=1000 * WAIT)
    where(stage, 2)
    end = time.monotonic() + WAIT
    while served.kernels > 1 and time.monotonic() < end:
        time.sleep(0.2)
    assert served.kernels == 1, "the page's own"


def test_arrows_in_a_field_and_on_a_slider_stay_there(stage):
    count = stage.get_by_label("A", exact=True)
    count.focus()
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp"):
        stage.keyboard.press(key)
    where(stage, 1)
    expect(count).to_have_value("1")
    stage.keyboard.press("Escape")
    stage.keyboard.press("r")
    picture = stage.locator(".stage-pane img.figure").first
    expect(picture).to_be_visible(timeout=LONG)
    source = picture.get_attribute("src")
    stage.locator(".stage-pane .noUi-handle").first.focus()
    stage.keyboard.press("ArrowRight")
    expect(picture).not_to_have_attribute("src", source, timeout=1000 * WAIT)
    where(stage, 1)


def test_a_run_is_one_key_away(stage):
    place = [*FRAMES].index("race")
    for _ in range(place):
        stage.keyboard.press("PageDown")
    where(stage, place + 1)
    stage.keyboard.press("r")
    expect(stage.locator(".stage-pane button.mod-primary")).to_be_visible(timeout=LONG)
    stage.keyboard.press("l")
    expect(stage.get_by_text("racing: ")).to_be_visible(timeout=LONG)
    stage.keyboard.press("s")
    expect(stage.get_by_text("stopped: ")).to_be_visible(timeout=LONG)


def test_a_larger_wall_enlarges_letters_pictures_and_the_drag_of_a_slider(stage):
    stage.set_viewport_size({"width": 1920, "height": 1080})
    stage.keyboard.press("r")
    picture = stage.locator(".stage-pane img.figure").first
    expect(picture).to_be_visible(timeout=LONG)
    assert picture.bounding_box()["width"] == pytest.approx(1350, abs=2)
    handle, mouse = stage.locator(".stage-pane .noUi-handle").first, stage.mouse
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    track = stage.locator(".stage-pane .noUi-target").first.bounding_box()
    mouse.move(x, y)
    mouse.down()
    mouse.move(track["x"] + track["width"], y, steps=10)
    mouse.up()
    expect(stage.get_by_text("after 8 steps")).to_be_visible(timeout=LONG)
