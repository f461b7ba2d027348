"""Fine-tune from a notebook: settings, a run in a thread of its own, its loss and memory live.

The cell returns at once and the page stays alive; Stop ends the run after the micro-batch at hand.
Everything the run says goes through traits, the one way from a thread to the page.
"""

import html
import os
import threading
import time
from collections.abc import Sequence

import ipywidgets

from lorakit.experiment import Stopped, finetune
from lorakit.plots import COLORS, draw_loss, draw_memory
from lorakit.run import Answer, Progress, Result, Run
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import Settings

REDRAW = 0.5  # seconds between two live pictures


class FinetuneExplorer(Explorable):
    """Settings -> `experiment.finetune` in a thread -> live pictures, then `result`."""

    def __init__(self, run: Run):
        self.settings = Settings(run)
        self.start = ipywidgets.Button(description="Start", button_style="primary", icon="play")
        self.stop = ipywidgets.Button(description="Stop", icon="stop", disabled=True)
        self.bar = ipywidgets.IntProgress(layout=ipywidgets.Layout(width="300px"))
        self.line = ipywidgets.Label("not started")
        self.loss = Picture(720, 320, alt="loss by step")
        self.memory = Picture(720, 200, alt="bytes that a step holds")
        self.table = ipywidgets.HTML()
        buttons = ipywidgets.HBox([self.start, self.stop, self.bar, self.line])
        super().__init__(
            [self.settings, buttons, self.loss, self.memory, self.table],
            alt="explorable: fine-tune a real model",
        )
        self.result: Result | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread()
        self._drawn = 0.0
        self.start.on_click(self._on_start)
        self.stop.on_click(lambda button: self._stopping.set())

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    @shown
    def _on_start(self, button) -> None:
        # Under test a click does its work before it returns.
        self.train(wait=os.environ.get("LORAKIT_TEST") == "1")

    def train(self, *, wait: bool = False) -> Result | None:
        """Start the run that the settings stand for; with `wait`, do it here and return its result.

        With `wait` a run that is alive already is waited for instead; without, it makes this raise
        RuntimeError. With `wait` what the run raises is raised here.
        """
        if self.running and wait:
            self._thread.join()
            return self.result
        if self.running:
            raise RuntimeError("a run is alive: press Stop, or wait for its end")
        run = self.settings.run
        self._stopping.clear()
        self.result, self._drawn = None, 0.0
        self.table.value = ""
        self.start.disabled, self.stop.disabled = True, False
        if wait:
            self._work(run)
            return self.result
        self._thread = threading.Thread(target=self._work_apart, args=(run,), daemon=True)
        self._thread.start()
        return None

    @shown
    def _work_apart(self, run: Run) -> None:
        self._work(run)

    def _work(self, run: Run) -> None:
        try:
            result = finetune(
                run,
                stop=self._stopping.is_set,
                report=lambda progress: self._show(run, progress),
            )
            self._finish(result)
        except Stopped as stopped:
            self.line.value = str(stopped)
        except Exception:
            self.line.value = "ended by an error"
            raise
        finally:
            self.start.disabled, self.stop.disabled = False, True

    def _show(self, run: Run, progress: Progress) -> None:
        self.bar.max, self.bar.value = progress.total, progress.done
        line = f"{progress.stage}: {progress.done} of {progress.total}"
        if progress.total == 1:
            line = progress.stage
        if progress.seconds_left is not None:
            line += f", {progress.seconds_left:.0f} s left"
        self.line.value = line
        last = progress.done == progress.total
        if progress.losses and (last or time.monotonic() - self._drawn > REDRAW):
            self._draw(run, progress)
            self._drawn = time.monotonic()

    def _draw(self, run: Run, progress: Progress) -> None:
        with self.loss.drawing() as ax:
            draw_loss(
                ax,
                progress.losses,
                total_steps=run.steps,
                label=run.method,
                color=COLORS[run.method],
            )
        self.loss.text = f"step {len(progress.losses)}: loss {progress.losses[-1]:.3g}"
        if progress.memory is not None:
            with self.memory.drawing() as ax:
                draw_memory(ax, {run.method: progress.memory})
                ax.set_title(f"measured in step {len(progress.losses)}")
            held = f"{progress.memory.total / 1e6:,.0f} MB"
            self.memory.text = f"{held} held at once, at the end of forward or backward"

    def _finish(self, result: Result) -> None:
        self.result = result
        done = f"{len(result.history.steps)} of {result.run.steps} steps"
        if result.after is None:
            line = f"stopped after {done}"
        else:
            line = (
                f"{done} in {result.history.seconds:.0f} s on {result.device}: exact match "
                f"{result.before.exact_match:.2f} before, {result.after.exact_match:.2f} after"
            )
        self.line.value = " - ".join([line, *result.history.notes])
        self.table.value = answers_table(result.answers)


def answers_table(answers: Sequence[Answer]) -> str:
    """Base and tuned answers side by side, as HTML."""
    rows = [("question", "base", "tuned")]
    rows += [(a.prompt, a.base, "" if a.tuned is None else a.tuned) for a in answers]
    cells = (
        "".join(f'<td style="padding: 4px 12px 4px 0">{html.escape(text)}</td>' for text in row)
        for row in rows
    )
    lines = "".join(f'<tr style="vertical-align: top">{row}</tr>' for row in cells)
    return f'<table style="line-height: 1.4; max-width: 900px">{lines}</table>'
