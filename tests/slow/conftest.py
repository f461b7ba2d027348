"""`lab`: JupyterLab in a headless Chromium, one server and one browser for all tests.

Without a browser its tests are skipped, unless LORAKIT_BROWSER names one: then they fail.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from slow.browser import FLAGS, Lab, Server, closing, find_browser


@pytest.fixture(scope="session", autouse=True)
def _tear_down_when_terminated() -> Iterator[None]:
    """A termination ends the tests as Ctrl-C does, so that no server outlives them."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip("no Chromium on the PATH: install one, or name one in LORAKIT_BROWSER")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=FLAGS) as started,
    ):
        yield started


@pytest.fixture(scope="session")
def server(browser, tmp_path_factory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("jupyter")) as started:
        yield started


@pytest.fixture
def lab(browser, server, tmp_path) -> Iterator[Lab]:
    """A page of its own, and no kernel from another test. Screenshots go to LORAKIT_SHOTS."""
    shots = Path(os.environ.get("LORAKIT_SHOTS") or tmp_path)
    shots.mkdir(parents=True, exist_ok=True)
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    with closing(Lab(page, server, shots)) as lab:
        yield lab
