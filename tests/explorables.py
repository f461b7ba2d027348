"""What is asked of every explorable: its controls do something, come back, and keep nothing."""

import gc
from collections.abc import Callable, Collection

import ipywidgets
from live_bytes import LiveBytes
from torch import nn

from lorakit.widgets import Explorable, Picture

CONTROLS = (
    ipywidgets.Checkbox,
    ipywidgets.Dropdown,
    ipywidgets.IntSlider,
    ipywidgets.SelectionSlider,
    ipywidgets.ToggleButtons,
)


def look(explorer: Explorable) -> list[tuple[bytes, str]]:
    """The PNG and the words of every picture on show."""
    return [(picture.value, picture.text) for picture in explorer.pictures]


def controls(widget: ipywidgets.Widget) -> list[ipywidgets.Widget]:
    """Every control in the box, boxes within it included."""
    if isinstance(widget, CONTROLS):
        return [widget]
    return [found for child in getattr(widget, "children", ()) for found in controls(child)]


def values(control: ipywidgets.Widget) -> list:
    """What the control can be set to."""
    if isinstance(control, ipywidgets.Checkbox):
        return [False, True]
    if isinstance(control, ipywidgets.IntSlider):
        return list(range(control.min, control.max + 1))
    options = control.options.values() if hasattr(control.options, "values") else control.options
    return [
        option[1] if isinstance(control, ipywidgets.SelectionSlider) else option
        for option in options
    ]


def assert_moves(
    explorer: Explorable,
    control: ipywidgets.Widget,
    value: object,
    moving: Collection[Picture],
) -> None:
    """The pictures in `moving` change, and so do their words; the others do not; all come back."""
    before = look(explorer)
    old, control.value = control.value, value
    for picture, (png, text), now in zip(explorer.pictures, before, look(explorer), strict=True):
        changed = (now[0] != png, now[1] != text)
        expected = (picture in moving,) * 2
        assert changed == expected, f"{picture.alt!r}: (PNG, words) changed are {changed}"
    control.value = old
    assert look(explorer) == before, "back at the old value it does not look as it did"


def assert_keeps_nothing(act: Callable[[], object], times: int) -> None:
    """After `times` acts as many bytes of tensors are alive as after the first one."""
    with LiveBytes(nn.Identity()) as live:
        act()
        gc.collect()
        before = live.now
        for _ in range(times):
            act()
        gc.collect()
        assert live.now == before, f"{live.now - before:,} bytes stay after {times} more"
