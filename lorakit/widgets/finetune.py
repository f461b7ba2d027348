"""Fine-tune from a notebook: settings, a run, its loss and memory live, and what it answers."""

import html
from collections.abc import Sequence

import ipywidgets

from lorakit.experiment import Stopped, finetune
from lorakit.memory import StepMemory
from lorakit.plots import COLORS, draw_loss, draw_memory
from lorakit.plots.style import size
from lorakit.run import Answer, Progress, Result, Run
from lorakit.widgets.job import Job
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import Settings


class FinetuneExplorer(Job):
    """Settings -> `experiment.finetune` in a thread -> live pictures, then `result`."""

    def __init__(self, run: Run):
        self.settings = Settings(run)
        self.settings.rest_when_full()
        self.loss = Picture(720, 320, alt="loss by step")
        self.memory = Picture(720, 200, alt="bytes that a step holds")
        self.table = ipywidgets.HTML()
        super().__init__(
            [self.settings],
            [self.loss, self.memory, self.table],
            alt="explorable: fine-tune a model",
        )
        self.result: Result | None = None
        self._draw_loss(run, ())

    def train(self, *, wait: bool = False) -> Result | None:
        """Start the run that the settings stand for; with `wait`, return its result.

        Waits and raises as `go` does.
        """
        self.go(wait=wait)
        return self.result if wait else None

    def work(self) -> str:
        run = self.settings.run
        self.result, self.table.value = None, ""
        self._draw_loss(run, ())
        try:
            result = finetune(run, stop=self.stopping, report=lambda told: self._show(run, told))
        except Stopped as stopped:
            return str(stopped)
        self._draw_loss(run, result.history.losses)
        if result.memory is not None:
            self._draw_memory(run, result.memory, "measured in the step with the highest peak")
        if self.comm is not None:  # closed meanwhile, it holds no model
            self.result = result
        self.table.value = answers_table(result.answers)
        done = f"{len(result.history.steps)} of {run.steps} steps"
        line = f"stopped after {done}"
        if result.after is not None:
            line = (
                f"{done} in {result.history.seconds:.0f} s on {result.device}: exact match "
                f"{result.before.exact_match:.2f} before, {result.after.exact_match:.2f} after "
                f"({_settings(run)})"
            )
        return " - ".join([line, *result.history.notes])

    def _show(self, run: Run, progress: Progress) -> None:
        self.show(progress)
        if progress.memory is not None and self.due():
            self._draw_loss(run, progress.losses)
            self._draw_memory(run, progress.memory, f"measured in step {progress.followed}")

    def _draw_memory(self, run: Run, memory: StepMemory, title: str) -> None:
        with self.memory.drawing(blit=True) as ax:
            draw_memory(ax, {run.method: memory.peak}, title=title, totals=True)
        self.memory.text = (
            f"{size(memory.peak.total)} held at once, at the peak: it falls in {memory.phase}"
        )

    def _draw_loss(self, run: Run, losses: Sequence[float]) -> None:
        style = {"label": run.method, "color": COLORS[run.method]}
        with self.loss.drawing() as ax:
            draw_loss(ax, losses, total_steps=run.steps, **style)
        last = f"step {len(losses)}: loss {losses[-1]:.3g}" if losses else "no step yet"
        self.loss.text = last

    def close(self) -> None:
        """Take it off the page, and let go of the model; work that is alive is stopped."""
        super().close()
        self.result = None


def _settings(run: Run) -> str:
    """What was run, in words, since the controls may have moved on."""
    adapter = f"rank {run.rank}, alpha {run.alpha:g}, " if run.lora else ""
    return f"{run.method}, {adapter}batch size {run.batch_size}"


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
