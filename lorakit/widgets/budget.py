"""Will it fit? A training step's memory before it is done, beside a real one's, and a budget."""

from collections.abc import Callable
from dataclasses import replace

import ipywidgets

from lorakit.counts import count
from lorakit.device import pick_device
from lorakit.lora import LoRAConfig
from lorakit.memory import DEVICES, DTYPES, MemoryBreakdown, Setup, StepMemory, estimate
from lorakit.plots import draw_memory
from lorakit.presets import PRESETS
from lorakit.step import TrainConfig
from lorakit.widgets.advice import advice, describe
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.later import Later
from lorakit.widgets.measured import free_bytes, measured
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import BATCHES, RANKS, choice, dropdown, slider

# What each method makes of a step and a rank.
METHODS: dict[str, Callable[[Setup, int], Setup]] = {
    "full": lambda setup, rank: setup,
    "LoRA": lambda setup, rank: replace(setup, lora=LoRAConfig(rank=rank)),
}
OPTIMIZERS = {
    "AdamW, plain": TrainConfig(implementation="plain"),
    "AdamW, foreach": TrainConfig(implementation="foreach"),
    "AdamW, fused": TrainConfig(implementation="fused"),
    "SGD": TrainConfig(optimizer="sgd"),
    "SGD with momentum": TrainConfig(optimizer="sgd", momentum=0.9),
}
LENGTHS = tuple(2**power for power in range(4, 14))
BUDGETS = (0.03, 0.1, 0.5, 1, 2, 4, 8, 12, 16, 24, 40, 80, 192)  # GB
AT_ONCE = 300 * 10**6  # bytes: a real step that takes less is done unasked
LARGEST = "smollm2-135m"  # of what is measured


class BudgetExplorer(Explorable):
    """A step's controls and a budget -> `estimate` and `measured` -> a bar each, and advice.

    The device is where the step shall run. Where it is of this machine's kind small steps are done
    for comparison, and larger ones when Measure is pressed.
    """

    def __init__(
        self,
        model: str = "mini",
        *,
        rank: int = 8,
        batch_size: int = 4,
        length: int = 128,
        device: str = "cpu",
        budget: float = 0.03,
    ):
        self.model = dropdown("model", [*PRESETS], model)
        self.optimizer = dropdown("optimizer", OPTIMIZERS, OPTIMIZERS["AdamW, plain"])
        self.dtype = choice("base in", [*DTYPES], "float32")
        self.device = choice("device", [*DEVICES], device)
        self.checkpointing = ipywidgets.Checkbox(description="gradient checkpointing", indent=False)
        self.rank = slider("rank", (*RANKS, 128, 256), rank)
        self.batch_size = slider("batch size", BATCHES, batch_size)
        self.length = slider("length", LENGTHS, length, on_release=True)
        self.budget = slider("budget, GB", BUDGETS, budget)
        left = (self.model, self.optimizer, self.dtype, self.device, self.checkpointing)
        right = (self.rank, self.batch_size, self.length, self.budget)
        self.controls = (*left, *right)
        self.measure = ipywidgets.Button(description="Measure", icon="refresh")
        self.measured: dict[Setup, StepMemory] = {}
        self.picture = Picture(860, 420, alt="memory of a training step beside a budget")
        self.advice = ipywidgets.HTML()
        boxes = [ipywidgets.VBox(left), ipywidgets.VBox([*right, self.measure])]
        super().__init__(
            [ipywidgets.HBox(boxes), self.picture, self.advice],
            alt="explorable: does a training step fit a budget",
        )
        for control in self.controls:
            control.observe(self.refresh, names="value")
        self.measure.on_click(self.measure_now)
        self._later = Later(self.settle)
        self._draw()
        self._cap_length()
        self.settle()

    @property
    def setups(self) -> dict[str, Setup]:
        """What the controls stand for, by method. Raises ValueError for what cannot be."""
        checkpointing = self.checkpointing.value
        step = Setup(
            model=PRESETS[self.model.value],
            batch_size=self.batch_size.value,
            length=self.length.value,
            config=replace(self.optimizer.value, gradient_checkpointing=checkpointing),
            dtype=self.dtype.value,
            device=self.device.value,
        )
        return {method: make(step, self.rank.value) for method, make in METHODS.items()}

    @property
    def bytes(self) -> int:
        """The budget."""
        return round(self.budget.value * 10**9)

    @shown
    def refresh(self, change=None) -> None:
        """Draw what can be told at once; the rest waits for a slider that moves."""
        self._cap_length()
        self._draw()
        self.advice.value = "working out what fits"
        self._later.ask()

    @shown
    def settle(self) -> None:
        """Do the real steps that take little, and give advice."""
        setups = self.setups
        found = len(self.measured)
        for setup in setups.values():
            if self._here(setup) and estimate(setup).peak.total < AT_ONCE:
                self._measure(setup)
        if len(self.measured) > found:
            self._draw()
        self.advice.value = advice(self.bytes, setups, rank=self.rank.value)

    @shown
    def measure_now(self, button=None) -> None:
        self.measure.disabled, self.picture.text = True, "measuring: two real steps by each method"
        try:
            for setup in self.setups.values():
                self._measure(setup)
        finally:
            self._draw()

    def _measure(self, setup: Setup) -> None:
        if setup not in self.measured:
            self.measured[setup] = measured(setup, pick_device())

    def _draw(self) -> None:
        setups = self.setups
        found = {method: estimate(setup) for method, setup in setups.items()}
        real = {method: self.measured.get(setup) for method, setup in setups.items()}
        rows = {}
        for method, estimated in found.items():
            rows[f"{method}, estimated"] = of_device(estimated)
            if (step := real[method]) is not None:
                rows[f"{method}, measured"] = of_device(step)
        with self.picture.drawing(blit=True) as ax:
            title = f"{self.model.value} on {DEVICES[self.device.value]}: one training step"
            draw_memory(ax, rows, title=title, totals=True, budget=self.bytes)
        sentences = [describe(method, found[method], real[method]) for method in setups]
        self.picture.text = f"{'. '.join(sentences)}. The budget is {self.budget.value:g} GB."
        self.measure.disabled = not self._measurable(setups)

    def _here(self, setup: Setup) -> bool:
        return setup.device == pick_device().type

    def _measurable(self, setups: dict[str, Setup]) -> bool:
        """Whether there is a method left to measure, and all of them can be."""
        small = count(PRESETS[self.model.value]).total <= count(PRESETS[LARGEST]).total
        return (
            small
            and any(setup not in self.measured for setup in setups.values())
            and all(self._here(setup) for setup in setups.values())
            and max(estimate(setup).device for setup in setups.values()) < free_bytes(pick_device())
        )

    def _cap_length(self) -> None:
        """Offer the lengths that the model reads."""
        longest = PRESETS[self.model.value].max_position_embeddings
        length = min(self.length.value, longest)
        options = [(f"{n:g}", n) for n in sorted({*LENGTHS, length}) if n <= longest]
        if [*self.length.options] != options:
            self.length.unobserve(self.refresh, names="value")
            self.length.options, self.length.value = options, length
            self.length.observe(self.refresh, names="value")

    def close(self) -> None:
        """Take it off the page; nothing is worked out any more."""
        self._later.cancel()
        super().close()


def of_device(step: StepMemory) -> MemoryBreakdown:
    """The peak's parts, and as overhead all else that is gone from the device: they sum to it."""
    beyond = step.device - step.peak.total
    return replace(step.peak, overhead=step.peak.overhead + beyond)
