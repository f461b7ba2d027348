"""What a training step holds in memory, part by part, full fine-tuning beside LoRA."""

from dataclasses import replace

from lorakit.device import pick_device
from lorakit.memory import MemoryBreakdown, Setup, StepMemory, estimate
from lorakit.model import ModelConfig
from lorakit.plots import draw_memory
from lorakit.plots.style import size
from lorakit.run import Run
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.measured import measured
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import Settings

# The rank is beside its slider: as part of a name it would move what stands still.
NAMES = {"full": "full", "lora": "LoRA", "qlora": "QLoRA"}


class MemoryExplorer(Explorable):
    """Method, rank and batch size -> `memories` of both methods -> a bar each, the chosen one bold.

    `length` is the tokens of a row. With `measure`, each number comes from a real step, made when
    it is first asked for; without, from a dry run that takes no memory. Both hold every weight in
    float32, wherever they run.
    """

    def __init__(self, model: ModelConfig, run: Run, *, length: int, measure: bool = True):
        self.model, self.length, self.measure = model, length, measure
        self.settings = Settings(run, alpha=False, on_release=measure)
        self.picture = Picture(720, 260, alt="memory of a training step, full and LoRA")
        super().__init__(
            [self.settings, self.picture], alt="explorable: what a training step holds in memory"
        )
        self.settings.observe_all(self.refresh)
        self.refresh()

    def steps(self) -> dict[str, StepMemory]:
        """A step by each method at the settings; by QLoRA too, if it is the run's method."""

        def step(setup: Setup) -> StepMemory:
            # A learning rate is its method's own, and no byte depends on it: each is measured once.
            setup = replace(setup, config=replace(setup.config, lr=0.0))
            return measured(setup, pick_device()) if self.measure else estimate(setup)

        run = self.settings.run
        return {
            method: step(run.with_method(method).setup(self.model, self.length, "cpu"))
            for method in self.settings.method.options
        }

    def memories(self) -> dict[str, MemoryBreakdown]:
        """Both methods' memory at the settings: of each part the most that a step holds.

        Of what is needed in passing, temporaries and overhead, it has none.
        """
        return {
            method: replace(step.most, temporaries=0, overhead=0)
            for method, step in self.steps().items()
        }

    @shown
    def refresh(self, change=None) -> None:
        run, found = self.settings.run, self.memories()
        source = self.steps()[run.method].source
        with self.picture.drawing(blit=True) as ax:
            draw_memory(
                ax,
                {NAMES[method]: parts for method, parts in found.items()},
                chosen=NAMES[run.method],
                title=f"{source}: one step of {run.batch_size} x {self.length} tokens",
            )
        self.picture.text = describe(run.method, found)


def describe(method: str, found: dict[str, MemoryBreakdown]) -> str:
    """The chosen method's parts, and what those of LoRA or QLoRA are beside full fine-tuning's."""
    chosen, full = found[method], found["full"]
    small = "qlora" if method == "qlora" else "lora"
    less = found[small]
    learning = (less.gradients + less.optimizer) / (full.gradients + full.optimizer)
    return (
        f"{method}: {size(chosen.weights)} of weights, {size(chosen.activations)} of activations, "
        f"{size(chosen.gradients + chosen.optimizer)} of gradients and optimizer state. "
        f"{NAMES[small]} has {less.weights / full.weights:.0%} of full "
        f"fine-tuning's weights, {learning:.1%} of its gradients and optimizer state, and "
        f"{less.activations / full.activations:.0%} of its activations. Each part is told at its "
        "own highest: they are not all there at once."
    )
