"""Swap adapters over one base and see what it answers, and what many of them take on disk."""

import html
from dataclasses import replace
from pathlib import Path

import ipywidgets

from lorakit.checkpoint import load_base
from lorakit.family import FOLDER, disk_bill, form, members, question
from lorakit.generation import ask
from lorakit.model import Llama
from lorakit.plots import draw_answer, draw_disk
from lorakit.plots.style import size
from lorakit.shelf import Shelf
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture
from lorakit.widgets.settings import dropdown, slider

NONE = "none"
PROMPTS = 4


class ShelfExplorer(Explorable):
    """An adapter of the family, or none, and a prompt -> the answer, and what it should be.

    `answers` keeps what was answered, by adapter and prompt. `tasks` is how many adapters the disk
    bill counts; its bytes are those of the files in `folder` and of the base's own.
    """

    def __init__(self, base: str = "mini", folder: Path | str = FOLDER):
        folder = Path(folder)
        self.names = members(folder)
        if not self.names:
            raise ValueError(
                f"{folder} has no adapter of the family: python -m lorakit.family {folder} "
                "trains them"
            )
        model, self.tokenizer = load_base(base)
        self.model: Llama | None = model
        self.shelf: Shelf | None = Shelf(model)
        for name in self.names:
            self.shelf.add(name, folder / name)
        self.bill = disk_bill(base, folder)
        self.answers: dict[tuple[str, int], str] = {}
        forms = {f"{name}: {form(name)}": name for name in self.names}
        self.adapter = dropdown("adapter", {NONE: NONE, **forms}, self.names[0])
        asked = {question(self.names[0], i).prompt.rpartition(" . ")[2]: i for i in range(PROMPTS)}
        self.prompt = dropdown("prompt", asked, 0)
        self.tasks = slider("tasks", range(1, len(self.names) + 1), len(self.names))
        self.controls = (self.adapter, self.prompt, self.tasks)
        # As high with an adapter as with none: a swap moves nothing on the page.
        self.status = ipywidgets.HTML(layout=ipywidgets.Layout(min_height="72px"))
        self.answer = Picture(860, 230, alt="the answer of the active adapter to a prompt")
        self.disk = Picture(860, 190, alt="bytes on disk of adapters and of full copies")
        super().__init__(
            [self.adapter, self.prompt, self.status, self.answer, self.tasks, self.disk],
            alt="explorable: a shelf of adapters over one base",
        )
        for control in (self.adapter, self.prompt):
            control.observe(self.refresh, names="value")
        self.tasks.observe(self.count, names="value")
        self.refresh()
        self.count()

    @shown
    def refresh(self, change=None) -> None:
        """Make the chosen adapter the active one, and ask it."""
        assert self.shelf is not None
        name, number = self.adapter.value, self.prompt.value
        self.shelf.disable() if name == NONE else self.shelf.switch(name)
        self.status.value = f"<pre>{html.escape(self._status())}</pre>"
        example = question(self.names[0] if name == NONE else name, number)
        said = self._ask(example.prompt)
        right = None if name == NONE else said == example.response
        wanted = "in any form: the base cannot know which" if right is None else example.response
        whose = {None: "the base", True: f"{name}, right", False: f"{name}, wrong"}[right]
        texts = {"prompt": example.prompt, "as it should be": wanted, f"answer of {whose}": said}
        with self.answer.drawing() as ax:
            draw_answer(ax, texts, whose="base" if name == NONE else "lora")
        self.answer.text = f"{whose}: {said}"

    @shown
    def count(self, change=None) -> None:
        """Draw the disk bill of as many tasks as the slider says."""
        tasks, bill = self.tasks.value, self.bill
        adapters, copies = sum(bill.adapters[:tasks]), bill.copies(tasks)
        most = max(bill.copies(len(self.names)), bill.base + sum(bill.adapters))
        with self.disk.drawing(blit=True) as ax:
            draw_disk(ax, bill.base, adapters, copies, most=most)
        self.disk.text = (
            f"{tasks} task{'s' if tasks > 1 else ''}: one base and {size(adapters)} of adapters, "
            f"{size(bill.base + adapters)} in all; full copies {size(copies)}, "
            f"{copies / (bill.base + adapters):.3g} times as much"
        )

    def _ask(self, prompt: str) -> str:
        """The answer of what is active, asked once."""
        assert self.model is not None
        key = self.adapter.value, self.prompt.value
        if key not in self.answers:
            self.answers[key] = ask(self.model, self.tokenizer, prompt, max_new_tokens=32)
        return self.answers[key]

    def _status(self) -> str:
        """The head of the shelf's status and the active adapter's row."""
        assert self.shelf is not None
        status = self.shelf.status()
        rows = [row for row in status.rows if row.active]
        held = sum(row.bytes for row in status.rows)
        told = f"{len(status.rows)} adapters in memory, {size(held)}, over one base"
        return f"{told}\n{replace(status, rows=tuple(rows))}" if rows else f"{told}\nnone is active"

    def close(self) -> None:
        """Take it off the page, and let go of the model and its adapters."""
        super().close()
        self.model = self.shelf = None
