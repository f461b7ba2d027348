"""How soon the teacher's screen is open: the server, then its page in a browser.

    python benchmarks/present.py --out data/results/present.json      a minute; a quiet machine

Every round starts `lorakit present` anew. Seconds from the command to the printed address, from
opening that to the first question on the screen, and from there to the last explorable's being
made, of which nobody need wait for more than the next. The lesson's bar is 5 s for the question.
"""

import argparse
import datetime
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from slow.browser import FLAGS, find_browser  # noqa: E402

from lorakit.device import describe, pick_device  # noqa: E402
from lorakit.files import write_json  # noqa: E402
from lorakit.widgets.frames import FRAMES  # noqa: E402

ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\?token=\w+")
BAR = 5.0  # seconds
LONG = 300_000  # milliseconds


def opened(browser: Browser) -> dict[str, float]:
    """One start, one page; seconds by what was waited for."""
    environment = {name: value for name, value in os.environ.items() if name != "LORAKIT_TEST"}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        began = time.perf_counter()
        with log.open("w") as file:
            command = [sys.executable, "-m", "lorakit.cli", "present", "--no-browser"]
            server = subprocess.Popen(
                command, env=environment, stdout=file, stderr=file, start_new_session=True
            )
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        try:
            while not (match := ADDRESS.search(log.read_text())):
                if server.poll() is not None:
                    raise RuntimeError(f"no server: {log.read_text()}")
                time.sleep(0.02)
            served = time.perf_counter()
            page.goto(match[0])
            page.wait_for_selector(".stage-frame h2", timeout=LONG)
            asked = time.perf_counter()
            for _ in range(len(FRAMES) - 1):
                page.keyboard.press("PageDown")
            page.get_by_text(f"{len(FRAMES)} of {len(FRAMES)}, page").wait_for(timeout=LONG)
            page.keyboard.press("r")
            page.wait_for_selector(".stage-pane img.figure", timeout=LONG)
            made = time.perf_counter()
        finally:
            page.context.close()
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
    return {"server": served - began, "question": asked - served, "every frame": made - asked}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    program = find_browser()
    if program is None:
        parser.error("no Chromium on the PATH: install one, or name one in LORAKIT_BROWSER")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=FLAGS) as browser,
    ):
        rounds = [opened(browser) for _ in range(options.rounds)]
        browser_version = browser.version
    seconds = {
        name: {
            kind: round(of([one[name] for one in rounds]), 2)
            for kind, of in (("median", median), ("min", min), ("max", max))
        }
        for name in rounds[0]
    }
    told = {
        "command": " ".join(["python benchmarks/present.py", *sys.argv[1:]]),
        "device": describe(pick_device()),
        "browser": f"Chromium {browser_version}",
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "rounds": options.rounds,
        "seconds": seconds,
        "within the bar": seconds["question"]["median"] <= BAR,
    }
    if options.out:
        write_json(options.out, told)
    print(json.dumps(told))


if __name__ == "__main__":
    main()
