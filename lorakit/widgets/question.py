"""The controls of one question: they hold an answer, and know nothing of what is right."""

import html
from collections.abc import Sequence

import ipywidgets

from lorakit.quiz import Answer, Item, shuffled, written
from lorakit.widgets.predict import as_number

PLACES = ("first", "second", "third", "fourth", "fifth", "sixth")
WIDE = {"description_width": "initial"}


class Question(ipywidgets.VBox):
    """Buttons for one option, boxes for several, a line for a number, a list for each place."""

    def __init__(self, item: Item):
        self.item = item
        texts = [option.text for option in item.options]
        code = []
        if item.kind == "several":
            self.controls = [
                ipywidgets.Checkbox(description=text, indent=False, style=WIDE) for text in texts
            ]
        elif item.kind == "number":
            self.controls = [
                ipywidgets.Text(
                    description=f"your answer, {item.unit}",
                    placeholder="a number",
                    # A press of Check can overtake the last of many messages, but not a single one.
                    continuous_update=False,
                    style=WIDE,
                )
            ]
        elif item.kind == "order":
            offered = [option.text for option in shuffled(item)]
            self.controls = [
                ipywidgets.Dropdown(
                    options=[("choose one", None), *((text, text) for text in offered)],
                    description=place,
                    layout=ipywidgets.Layout(width="520px"),
                    style={"description_width": "80px"},
                )
                for place, _ in zip(PLACES, texts, strict=False)
            ]
        else:
            labels = texts
            if item.kind == "bug":
                labels = [f"line {number}" for number, _ in enumerate(texts, 1)]
                code = [ipywidgets.HTML(_listing(texts))]
            self.controls = [
                ipywidgets.RadioButtons(
                    options=list(zip(labels, texts, strict=True)),
                    value=None,
                    description="your answer",
                    style=WIDE,
                )
            ]
        super().__init__([*code, *self.controls])

    def answer(self) -> Answer:
        """What the controls say. Raises ValueError if they say nothing yet, or no number."""
        values = [control.value for control in self.controls]
        if self.item.kind == "several":
            return sorted(c.description for c in self.controls if c.value)
        if self.item.kind == "number":
            return as_number(values[0])
        if None in values:
            missing = "one for every place" if self.item.kind == "order" else "one of the options"
            raise ValueError(f"choose {missing}")
        return values if self.item.kind == "order" else values[0]

    def show(self, answer: Answer) -> None:
        """Set the controls to an answer, and let them rest."""
        for number, control in enumerate(self.controls):
            control.disabled = True
            if self.item.kind == "several":
                control.value = control.description in answer
            elif self.item.kind == "number":
                control.value = written(answer)
            else:
                control.value = answer[number] if self.item.kind == "order" else answer

    def focus(self) -> None:
        """Put the keyboard where the answer begins; a page of ipywidgets 7 has no way to."""
        if hasattr(self.controls[0], "focus"):
            self.controls[0].focus()


def _listing(lines: Sequence[str]) -> str:
    """Code with numbered lines, as HTML."""
    numbered = (f"{number:2}  {line}" for number, line in enumerate(lines, 1))
    return f'<pre style="line-height: 1.5">{html.escape(chr(10).join(numbered))}</pre>'
