"""A claim of the literature and what came of it here: the committed curves, drawn; nothing runs."""

from typing import Any

from lorakit.claims.evidence import claims
from lorakit.plots import draw_claim
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import choice


class ClaimExplorer(Explorable):
    """A claim's name and the model it was judged on -> its evidence and its verdict.

    `name` is that of a row of data/results/claims.json, `model` "mini" or "smollm2". Without
    `verdict` the words are of what was measured alone: where another question is asked of it.
    Raises ValueError for a claim or a model that is not there.
    """

    def __init__(self, name: str, model: str = "mini", *, verdict: bool = True):
        found = {claim["name"]: claim for claim in claims()}
        if name not in found:
            raise ValueError(f"no claim is named {name!r}: choose one of {', '.join(found)}")
        self.claim, self._verdict = found[name], verdict
        models = [key for key in ("mini", "smollm2") if self.claim[key]]
        if model not in models:
            known = " and ".join(models)
            raise ValueError(f"claim {name!r} was not judged on {model!r}: choose {known}")
        self.model = choice("model", models, model)
        self.picture = Picture(860, 430, alt=f"the evidence of claim {name!r}")
        controls = [self.model] if len(models) > 1 else []
        super().__init__([*controls, self.picture], alt=f"explorable: the claim {name!r}")
        self.model.observe(self.refresh, names="value")
        self.refresh()

    @property
    def judged(self) -> dict[str, Any]:
        """The row's part for the chosen model: measured, verdict, seeds, curves."""
        return self.claim[self.model.value]

    @shown
    def refresh(self, change=None) -> None:
        with self.picture.drawing() as ax:
            draw_claim(ax, self.judged["curves"])
        seeds = self.judged["seeds"]  # none where nothing was drawn by chance
        judged = f"{self.claim['claim']}. " if self._verdict else ""
        judged += f"{self.model.value}: "
        judged += f"{self.judged['verdict']}: " if self._verdict else ""
        self.picture.text = (
            f"{judged}{self.judged['measured']}{f' ({seeds} seeds)' if seeds else ''}"
        )
