"""Which parameters does a training step change? All tensors of a model, coloured by that."""

from lorakit.begin import begin
from lorakit.changes import Change, changes, snapshot
from lorakit.plots import draw_tensors
from lorakit.run import Run
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import choice, methods, slider

STEPS = (0, 1, 2, 4, 8)


def changes_after(run: Run, steps: int) -> list[Change]:
    """What the first `steps` steps of `run` change, done on a fresh copy of its base."""
    training = begin(run)
    before = snapshot(training.model)
    for _ in range(steps):
        training.step()
    return changes(training.model, before)


def describe(found: list[Change], steps: int, lr: float) -> str:
    """How many numbers changed, and what kind of tensor they are in; `lr` is the last step's."""
    total, changed = sum(c.numbers for c in found), sum(c.changed for c in found)
    kinds = {"A": 0, "B": 0, "base": 0}
    for change in found:
        last = change.name.rpartition(".")[2]
        kinds[last if last in kinds else "base"] += change.changed
    where = ", ".join(f"{number:,} in {kind}" for kind, number in kinds.items() if number)
    unit = "step" if steps == 1 else "steps"
    text = f"after {steps} {unit}: {changed:,} of {total:,} numbers changed"
    return f"{text} ({where}); the learning rate was {lr:.1g}" if changed else text


class StepExplorer(Explorable):
    """A method and a number of steps -> `changes_after` -> one tile a tensor."""

    def __init__(self, run: Run):
        self.run = run
        self.method = choice("method", methods(run), run.method)
        self.steps = slider("steps", [n for n in STEPS if n <= run.steps], 1, on_release=True)
        self.controls = (self.method, self.steps)
        self.picture = Picture(900, 400, alt="every tensor of the model, by how much it changed")
        super().__init__(
            [*self.controls, self.picture], alt="explorable: which parameters a step changes"
        )
        for control in self.controls:
            control.observe(self.refresh, names="value")
        self.refresh()

    @shown
    def refresh(self, change=None) -> None:
        run, steps = self.run.with_method(self.method.value), self.steps.value
        found = changes_after(run, steps)
        with self.picture.drawing() as ax:
            draw_tensors(ax, found, concept=run.method)
        lr = run.train_config("cpu").learning_rate(steps)
        self.picture.text = describe(found, steps, lr)
