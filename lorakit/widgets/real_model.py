"""The real model in numbers: three methods over seeds, measured once, and your own runs beside."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from lorakit.claims.evidence import real_model
from lorakit.memory import StepMemory
from lorakit.plots import draw_spread
from lorakit.plots.style import COLORS, log_limits
from lorakit.run import Result
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import dropdown

MATCH, MB = "exact match", 1e6
METHODS = ("full", "lora", "qlora")

Values = dict[str, list[float]]  # by method, one a run


def _of_row(row: Mapping[str, Any]) -> dict[str, float]:
    """What can be compared of a run, as the command wrote it."""
    return {
        MATCH: row["after"],
        "held-out loss": row["loss"],
        "parameters trained": row["trainable"],
        "weights, MB": row["memory"]["peak"]["weights"] / MB,
        "highest instant of a step, MB": row["memory"]["peak"]["total"] / MB,
        "on disk, MB": row["disk"] / MB,
        "seconds a step": row["seconds"] / row["run"]["steps"],
    }


def _of_result(result: Result) -> dict[str, float]:
    assert result.after is not None and isinstance(result.memory, StepMemory)
    told = result.memory.to_json()
    return _of_row(
        {
            "after": result.after.exact_match,
            "loss": result.after.loss,
            "trainable": result.parameters.trainable,
            "memory": told,
            "disk": result.disk,
            "seconds": result.history.seconds,
            "run": {"steps": len(result.history.steps)},
        }
    )


MEASURES = (
    *(MATCH, "held-out loss", "parameters trained", "weights, MB"),
    *("highest instant of a step, MB", "on disk, MB", "seconds a step"),
)


class RealModelExplorer(Explorable):
    """A measure -> every stored run of the three methods, and, as stars, the results given here.

    Stopped results, which were not judged, are left out.
    """

    def __init__(self, *own: Result):
        stored = real_model()
        self.where = stored["made"]["device"]
        self.runs = [(row["run"]["method"], _of_row(row)) for row in stored["runs"]]
        judged = [result for result in own if result.after is not None and result.memory]
        self.own = [(result.run.method, _of_result(result)) for result in judged]
        self.here = " and ".join(dict.fromkeys(result.device for result in judged))
        self.measure = dropdown("measure", MEASURES, MATCH)
        self.picture = Picture(760, 380, alt="full fine-tuning, LoRA and QLoRA on a real model")
        super().__init__(
            [self.measure, self.picture], alt="explorable: three methods on a real model"
        )
        self.measure.observe(self.refresh, names="value")
        self.refresh()

    def values(self, own: bool = False) -> Values:
        """What each method gave by the chosen measure: the stored runs, or one's own."""
        found: Values = {}
        for method, measured in self.own if own else self.runs:
            found.setdefault(method, []).append(measured[self.measure.value])
        return found

    @shown
    def refresh(self, change=None) -> None:
        measure, stored, own = self.measure.value, self.values(), self.values(own=True)
        every = [value for values in (*stored.values(), *own.values()) for value in values]
        with self.picture.drawing() as ax:
            draw_spread(
                ax,
                {method: {method: values} for method, values in stored.items()},
                styles={method: {"color": COLORS[method]} for method in METHODS},
                x="method",
                y=measure,
                places=METHODS,
                bounds=(min(every) - 0.02, 1.005) if measure == MATCH else log_limits(every),
                own={method: {method: values} for method, values in own.items()},
            )
        parts = [f"{method} {_told(values)}" for method, values in stored.items()]
        runs = max(map(len, stored.values()))
        text = f"{measure}: {', '.join(parts)}; {runs} seeds each on {self.where}"
        if own:
            mine = ", ".join(f"{method} {_told(values)}" for method, values in own.items())
            text += f"; yours: {mine}, on {self.here}"
        self.picture.text = text


def _told(values: Sequence[float]) -> str:
    """0.98 (0.97 to 0.99)."""
    low, mean, high = min(values), fmean(values), max(values)
    return _number(mean) + (f" ({_number(low)} to {_number(high)})" if low < high else "")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
