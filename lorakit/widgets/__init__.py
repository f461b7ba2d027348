"""Explorables for notebooks: controls -> plain function -> drawing -> picture, one to a file."""

from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.picture import Picture

__all__ = ["Explorable", "Picture", "shown"]
