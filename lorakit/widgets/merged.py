"""What merges of a real model's adapter lost and kept, measured once; nothing is merged here."""

from lorakit.claims.evidence import real_model
from lorakit.plots import draw_merged
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import dropdown

MEASURES = {
    "share of the delta that is lost": "lost",
    "share of W's numbers that stay as they are": "unchanged",
    "share of 100 orders right, kept": "kept",
    "share of 100 orders right, merged": "merged",
}


class MergedExplorer(Explorable):
    """A measure -> a bar for each dtype that SmolLM2's adapter was merged in, and a line."""

    def __init__(self):
        self.rows = {row["dtype"]: row for row in real_model()["merges"]}
        self.measure = dropdown("measure", MEASURES, "lost")
        self.picture = Picture(860, 300, alt="what merging a real model's adapter lost, by dtype")
        super().__init__(
            [self.measure, self.picture], alt="explorable: merges of a real model's adapter"
        )
        self.measure.observe(self.refresh, names="value")
        self.refresh()

    @shown
    def refresh(self, change=None) -> None:
        shares = {dtype: row[self.measure.value] for dtype, row in self.rows.items()}
        with self.picture.drawing(blit=True) as ax:
            draw_merged(ax, shares, x=self.measure.label)
        told = ", ".join(f"{dtype} {share:.1%}" for dtype, share in shares.items())
        sizes = max(row["size"] for row in self.rows.values())
        self.picture.text = f"{self.measure.label}: {told}. The delta is {sizes:.1%} as large as W"
