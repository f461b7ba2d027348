"""JupyterLab in a real browser: a server, a page with a notebook, and what a reader does there.

    lab.open(NOTEBOOKS / "09_real_model.ipynb")       # a fresh copy, in a fresh kernel
    lab.run_all()                                     # fails if a cell does
    cell = lab.cell("MemoryExplorer(")                # by a piece of its source, or its number
    with cell.changing():                             # its first picture changes meanwhile
        cell.press("rank", "ArrowRight")
    lab.set_theme("JupyterLab Dark")
    cell.screenshot("memory-dark")

Times are in seconds. Everything waits for what it needs and raises if that does not come. Whatever
is missing here is reached by `lab.page` and `cell.outputs`, which are Playwright's own.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import ConsoleMessage, Error, Locator, Page, TimeoutError, expect

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
WAIT = 30  # for everything but notebooks, which may take longer

FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

# JupyterLab asks for a kernel, and whether to restart one: the answer is always yes.
ACCEPT_DIALOGS = """
new MutationObserver(() => {
    for (const button of document.querySelectorAll(".jp-Dialog button.jp-mod-accept"))
        button.click();
}).observe(document, {childList: true, subtree: true});
"""

# `panel` is the notebook on show; the last line is the value.
PANEL = "const panel = window.jupyterapp?.shell.currentWidget;"
OPENED = f"""() => {{ {PANEL}
    return Boolean(panel?.context?.isReady && panel.content.widgets?.length
        && panel.sessionContext.isReady
        && panel.sessionContext.session?.kernel?.status === "idle");
}}"""
IDLE = f"() => {{ {PANEL} return panel.sessionContext.session?.kernel?.status === 'idle'; }}"
SOURCES = f"""() => {{ {PANEL}
    return panel.content.widgets.map(cell => cell.model.sharedModel.getSource());
}}"""
ERRORS = f"""() => {{ {PANEL}
    return panel.content.widgets.flatMap(cell => cell.model.outputs?.toJSON() ?? [])
        .filter(output => output.output_type === "error")
        .map(output => `${{output.ename}}: ${{output.evalue}}`);
}}"""
EXECUTE = f"""code => {{ {PANEL}
    return panel.sessionContext.session.kernel.requestExecute({{code}}).done
        .then(reply => reply.content.status === "ok" || Promise.reject(reply.content.evalue));
}}"""
# A promise of all cells would hold the page's answer back without a limit: note it down instead.
RUN = f"""([command, cell]) => {{ {PANEL}
    if (cell !== null) panel.content.activeCellIndex = cell;
    window.ran = null;
    window.jupyterapp.commands.execute(command).then(
        () => {{ window.ran = "done"; }}, error => {{ window.ran = `failed: ${{error}}`; }});
}}"""


def find_browser() -> str | None:
    """The browser that LORAKIT_BROWSER names, or the first of those that are on the PATH.

    Raises FileNotFoundError if the one that is named is not there.
    """
    if named := os.environ.get("LORAKIT_BROWSER"):
        if not os.access(named, os.X_OK):
            raise FileNotFoundError(
                f"LORAKIT_BROWSER={named} is no program: install Chromium there, or unset it"
            )
        return named
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


class Server:
    """A JupyterLab server in `folder`, which it alone writes to; use it as a context manager.

    `root`, the folder it shows, starts as a copy of the lab's notebooks. Nothing of the user's own
    settings reaches it, and its kernels are as a learner's: on a CPU, not under LORAKIT_TEST.
    """

    def __init__(self, folder: Path):
        self.folder, self.root = folder, folder / "lab" / "notebooks"
        self.log = folder / "server.log"
        shutil.copytree(NOTEBOOKS, self.root, ignore=shutil.ignore_patterns(".*"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{free.getsockname()[1]}"

    def __enter__(self) -> "Server":
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={self.address.rpartition(':')[2]}"),
            *("--ServerApp.port_retries=0", f"--ServerApp.root_dir={self.root}"),
            *("--IdentityProvider.token=", "--expose-app-in-browser"),
            *("--LabApp.news_url=None", "--LabApp.extension_manager=readonly"),
        ]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, env=self._environment(), stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()  # it ends its kernels then
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # kernels end when their server is gone
            self.process.wait()

    def _environment(self) -> dict[str, str]:
        own = {
            name: str(self.folder / name.lower())
            for name in (
                *("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"),
                *("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"),
            )
        }
        settings = Path(own["JUPYTERLAB_SETTINGS_DIR"], "@jupyterlab", "apputils-extension")
        settings.mkdir(parents=True)
        (settings / "notification.jupyterlab-settings").write_text(
            '{"fetchNews": "false", "checkForUpdates": false}'
        )
        environment = {**os.environ, **own, "LORAKIT_DEVICE": "cpu", "OMP_NUM_THREADS": "2"}
        environment.pop("LORAKIT_TEST", None)
        return environment

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + 2 * WAIT
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.address}/api/status", timeout=WAIT).close()
                return
            time.sleep(0.1)
        raise RuntimeError(f"no JupyterLab at {self.address}:\n{self.log.read_text()[-3000:]}")


class Lab:
    """A page of JupyterLab.

    `crashes` holds the errors that no script of the page caught, `complaints` what scripts wrote to
    the console as errors.
    """

    def __init__(self, page: Page, server: Server, shots: Path):
        self.page, self.server, self.shots = page, server, shots
        self.crashes: list[str] = []
        self.complaints: list[str] = []
        page.set_default_timeout(1000 * WAIT)
        page.add_init_script(ACCEPT_DIALOGS)
        page.on("dialog", lambda dialog: dialog.accept())  # leave without saving: yes
        page.on("pageerror", lambda error: self.crashes.append(str(error)))
        page.on("console", self._hear)

    def open(self, path: Path) -> None:
        """Copy a notebook to the server and open it, in the light theme and with a new kernel.

        One that lies in `server.root` already is opened as it is.
        """
        if path.parent != self.server.root:
            shutil.copy(path, self.server.root)
        self.shut_down()
        self.page.goto(f"{self.server.address}/lab/tree/{path.name}?reset")
        self.wait_for("the notebook and its kernel", OPENED)
        self.set_theme("JupyterLab Light")

    def reload(self) -> None:
        """Load the page again; the kernel lives on, what was not saved is lost."""
        self.page.reload()
        self.wait_for("the notebook and its kernel", OPENED)

    def save(self) -> None:
        """Save the server's copy of the notebook."""
        self.page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")

    def restart(self) -> None:
        """Restart the kernel; outputs stay."""
        self._execute("kernelmenu:restart", WAIT)
        self.wait_for("the notebook and its kernel", OPENED)

    def shut_down(self) -> None:
        """End every kernel of the server, if the page has one."""
        self.page.evaluate("() => window.jupyterapp?.serviceManager.sessions.shutdownAll()")

    def run_all(self, *, timeout: float = 120, errors: bool = False) -> None:
        """Run all cells and wait for the kernel; fails if a cell does, unless `errors` is true."""
        self._execute("notebook:run-all-cells", timeout)
        self.wait_until_idle(timeout=timeout)
        if not errors:
            self.check()

    def run(self, which: int | str, *, timeout: float = 120) -> "Cell":
        """Run one cell, wait for the kernel, and return the cell."""
        cell = self.cell(which)
        self._execute("notebook:run-cell", timeout, cell.index)
        self.wait_until_idle(timeout=timeout)
        self.check()
        return cell

    def execute(self, code: str) -> None:
        """Have the kernel do something that no cell says, and wait for it."""
        self.page.evaluate(EXECUTE, code)
        self.wait_until_idle()

    def check(self) -> None:
        """Fail if a cell shows an error; an explorable's own line of errors counts too."""
        alerts = self.page.locator(".jp-OutputArea [role=alert]").all_inner_texts()
        errors = self.page.evaluate(ERRORS) + alerts
        assert not errors, f"the notebook shows errors: {errors}"

    def wait_until_idle(self, *, timeout: float = WAIT) -> None:
        """Wait until the kernel has nothing to do; a thread of its own does not count."""
        self.wait_for("an idle kernel", IDLE, timeout=timeout)

    def cell(self, which: int | str) -> "Cell":
        """The cell of that number, text cells included, or the only one whose source has that."""
        if isinstance(which, int):
            return Cell(self, which)
        found = [i for i, text in enumerate(self.page.evaluate(SOURCES)) if which in text]
        assert len(found) == 1, f"{len(found)} cells have {which!r} in their source"
        return Cell(self, found[0])

    def set_theme(self, theme: str) -> None:
        """Such as "JupyterLab Dark" or "JupyterLab Light"."""
        self.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme
        )
        self.wait_for(theme, "theme => document.body.dataset.jpThemeName === theme", theme)

    def screenshot(self, name: str) -> Path:
        """The whole page as a PNG in LORAKIT_SHOTS, or in a temporary folder without that."""
        path = self.shots / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.complaints.append(f"{said.text} ({said.location.get('url')})")

    def _execute(self, command: str, timeout: float, cell: int | None = None) -> None:
        self.page.evaluate(RUN, [command, cell])
        self.wait_for(f"{command} to end", "() => window.ran !== null", timeout=timeout)
        ran = self.page.evaluate("window.ran")
        assert ran == "done", f"{command} {ran}"

    def wait_for(
        self, what: str, condition: str, argument: object = None, *, timeout: float = WAIT
    ) -> None:
        """Wait until `condition`, a function in JavaScript, is true of `argument`."""
        try:
            self.page.wait_for_function(condition, arg=argument, timeout=1000 * timeout)
        except TimeoutError as error:
            raise AssertionError(f"waited {timeout} s for {what}") from error


class Cell:
    """One cell and what it shows. Controls go by their labels, pictures by number from the top."""

    def __init__(self, lab: Lab, index: int):
        self.lab, self.index = lab, index
        self.node = lab.page.locator(".jp-Notebook-cell").nth(index)
        self.outputs = self.node.locator(".jp-OutputArea").first

    def text(self) -> str:
        """All the text that its outputs show."""
        return self.outputs.inner_text()

    def expect_text(self, text: str, *, timeout: float = WAIT) -> None:
        """Wait until its outputs show that text."""
        expect(self.outputs).to_contain_text(text, timeout=1000 * timeout)

    def screenshot(self, name: str) -> Path:
        """The cell as a PNG, where `Lab.screenshot` puts them."""
        path = self.lab.shots / f"{name}.png"
        self.node.screenshot(path=path)
        return path

    # Controls

    def control(self, label: str) -> Locator:
        """The slider, dropdown or other control beside the label with exactly that text."""
        named = self.lab.page.locator("label.widget-label").get_by_text(label, exact=True)
        return self.outputs.locator(".widget-inline-hbox").filter(has=named)

    def handle(self, slider: str | int) -> Locator:
        """A slider's handle, by the slider's label or by its number from the top."""
        if isinstance(slider, str):
            return self.control(slider).locator(".noUi-handle")
        return self.outputs.locator(".noUi-handle").nth(slider)

    def value(self, slider: str) -> str:
        """What stands beside a slider."""
        return self.control(slider).locator(".widget-readout").inner_text()

    def press(self, slider: str | int, key: str, times: int = 1) -> None:
        """Press a key, such as "ArrowRight", on a slider."""
        self.handle(slider).focus()
        for _ in range(times):
            self.lab.page.keyboard.press(key)

    def drag(self, slider: str | int, pixels: float) -> None:
        """Drag a slider's handle by the mouse, to the right if `pixels` is positive."""
        handle, mouse = self.handle(slider), self.lab.page.mouse
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        assert box, f"slider {slider!r} is not on show"
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + pixels, y, steps=10)
        mouse.up()

    def click(self, button: str) -> None:
        """Click the button with exactly that text, beside its icon; waits until it is enabled.

        One of ToggleButtons is a button too.
        """
        text = re.compile(rf"^\s*{re.escape(button)}\s*$")
        self.outputs.locator("button").filter(has_text=text).click()

    def choose(self, dropdown: str, option: str) -> None:
        """Choose an option of a dropdown by what both are called on the page."""
        self.control(dropdown).locator("select").select_option(label=option)

    # Pictures

    def picture(self, number: int = 0) -> Locator:
        """The `img` of a picture."""
        return self.outputs.locator("img.figure").nth(number)

    def picture_src(self, number: int = 0) -> str:
        """A picture's address, which is another one after each change of its pixels."""
        return self.picture(number).get_attribute("src") or ""

    def line(self, number: int = 0) -> Locator:
        """The line under a picture."""
        return self.picture(number).locator("xpath=following-sibling::*").last

    def picture_text(self, number: int = 0) -> str:
        """What the line under a picture says."""
        return self.line(number).text_content() or ""  # also of a line that is out of sight

    def expect_picture_text(self, text: str, number: int = 0, *, timeout: float = WAIT) -> None:
        """Wait until the line under a picture is exactly that."""
        expect(self.line(number)).to_have_text(text, timeout=1000 * timeout)

    def picture_filter(self, number: int = 0) -> str:
        """The CSS filter that a picture is shown through; "none" without one."""
        return self.picture(number).evaluate("img => getComputedStyle(img).filter")

    def wait_for_change(self, src: str, number: int = 0, *, timeout: float = WAIT) -> str:
        """Wait until a picture is no longer `src` and is shown whole; returns what it is now."""
        self.lab.wait_for(
            f"picture {number} to change",
            "([img, src]) => img.src !== src && img.complete && img.naturalWidth > 0",
            [self.picture(number).element_handle(), src],
            timeout=timeout,
        )
        return self.picture_src(number)

    @contextlib.contextmanager
    def changing(self, number: int = 0, *, timeout: float = WAIT) -> Iterator[None]:
        """What happens in the block must change a picture; waits for the change and the kernel."""
        src = self.picture_src(number)
        yield
        self.wait_for_change(src, number, timeout=timeout)
        self.lab.wait_until_idle(timeout=timeout)


@contextlib.contextmanager
def closing(lab: Lab) -> Iterator[Lab]:
    """Ends the kernels and closes the page, whatever happened there."""
    try:
        yield lab
    finally:
        with contextlib.suppress(Error):  # a page that crashed: the kernels end with the server
            lab.shut_down()
        lab.page.context.close()
