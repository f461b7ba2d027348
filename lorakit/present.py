"""Open the teacher's screen: a page of one cell, served by Voila on this machine alone."""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lorakit.doctor import until_closed

CELL = """from pathlib import Path
from IPython.display import Javascript, display
from lorakit.answers import Answers
from lorakit.widgets.frames import FRAMES
from lorakit.widgets.stage import Stage
from lorakit.widgets.stage_page import KEYS
display(Stage([*FRAMES.values()], Answers(Path("room.json"))), Javascript(KEYS))"""

# Voila's own page without its margins, and without two style sheets that it asks the network for:
# where that does not answer, a browser would wait for them before it shows anything.
PAGE = """{%- extends "voila/templates/lab/index.html.j2" -%}
{% import "spinner.macro.html.j2" as spinner %}
{%- block notebook_css -%}
{{ resources.include_js("static/voila-style.js") }}
{{ spinner.css() }}
{{ super.super() }}
<style>
body.jp-Notebook, .jp-Notebook .jp-Cell, .jp-Cell-outputWrapper, .jp-OutputArea-output {
    padding: 0; margin: 0; overflow: hidden; }
</style>
{%- endblock notebook_css -%}"""

OWN = (
    "--Voila.ip=127.0.0.1",
    "--token",
    "--show_tracebacks=True",
    "--template=stage",
    # A page that is opened anew has a new kernel; the one that it left behind is ended in time.
    "--MappingKernelManager.cull_idle_timeout=300",
    "--MappingKernelManager.cull_interval=30",
)


def open_stage(options: Sequence[str]) -> int:
    """Serve the lesson's frames until Ctrl-C; `options` go to Voila, whose exit code it returns.

    Listens on 127.0.0.1 and keeps a token, unless the options, spelt as in `OWN`, say otherwise.
    The page runs its cell whenever it is opened, and finds frame and counts as they were left.
    """
    print("Voila prints its address below: open it by hand if no browser opens", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        page = write_page(Path(folder))
        data = os.pathsep.join(filter(None, [folder, os.environ.get("JUPYTER_PATH")]))
        given = {name(option) for option in options}
        own = [option for option in OWN if name(option) not in given]
        command = [sys.executable, "-m", "voila", *own, *options, str(page)]
        return until_closed(command, {**os.environ, "JUPYTER_PATH": data})


def name(option: str) -> str:
    return option.partition("=")[0]


def write_page(folder: Path) -> Path:
    """A notebook with the one cell, and the template `stage` where Jupyter looks for its data."""
    from nbformat.v4 import new_code_cell, new_notebook, writes  # slow to import

    template = folder / "voila" / "templates" / "stage"
    template.mkdir(parents=True)
    (template / "conf.json").write_text('{"base_template": "lab"}', encoding="utf-8")
    (template / "index.html.j2").write_text(PAGE, encoding="utf-8")
    page = folder / "lesson.ipynb"
    page.write_text(writes(new_notebook(cells=[new_code_cell(CELL)])), encoding="utf-8")
    return page
