"""A training step's memory while training goes on, full fine-tuning and LoRA in turns.

Drawn are the last steps that were followed from instant to instant: `memory.Recorder` says which.
"""

from itertools import product

from lorakit.begin import begin
from lorakit.memory import Recorder, StepMemory
from lorakit.plots import draw_timeline
from lorakit.plots.style import size
from lorakit.run import Progress, Run
from lorakit.widgets.job import Job
from lorakit.widgets.picture import Picture

METHODS = {"full": "full", "LoRA": "lora"}  # as the picture calls them, and as a run does


class LiveMemoryExplorer(Job):
    """A run -> both methods trained in a thread, a step each in turns -> live areas, `memories`."""

    redraw = 0.2

    def __init__(self, run: Run):
        self.run = run
        self.memories: dict[str, StepMemory] = {}  # of the last step that was followed
        self.followed: dict[str, int] = {}  # its number
        self.picture = Picture(860, 420, alt="memory from instant to instant, full and LoRA")
        super().__init__([], [self.picture], alt="explorable: memory while a model trains")

    def work(self) -> str:
        self.memories, self.followed = {}, {}
        self.show(Progress(stage="loading the base"))
        trainings = {name: begin(self.run.with_method(METHODS[name])) for name in METHODS}
        recorders = {name: Recorder(t.model, t.optimizer) for name, t in trainings.items()}
        done = dict.fromkeys(METHODS, 0)
        for number, name in product(range(1, self.run.steps + 1), METHODS):
            recorder = recorders[name]
            if trainings[name].step(stop=self.stopping, phase=recorder) is None:
                break
            done[name] = number
            self.show(Progress(stage="training", done=number, total=self.run.steps))
            if recorder.latest is not None and recorder.step == number:
                self.memories[name], self.followed[name] = recorder.latest, number
                if len(self.memories) == len(METHODS) and self.due():
                    self._draw()
        if self.memories:
            self._draw()
        steps = ", ".join(f"{name} {count}" for name, count in done.items())
        return f"steps done of {self.run.steps}: {steps}"

    def _draw(self) -> None:
        title = ", ".join(f"{name}: step {number}" for name, number in self.followed.items())
        with self.picture.drawing(blit=True) as ax:
            draw_timeline(ax, self.memories, title=title)
        self.picture.text = "; ".join(
            f"{name}: {size(memory.peak.total)} at the peak, in {memory.phase}"
            for name, memory in self.memories.items()
        )
