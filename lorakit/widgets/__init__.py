"""Explorables for notebooks: controls -> plain function -> drawing -> picture, one to a file."""

from lorakit.widgets.cost import CostExplorer
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.finetune import FinetuneExplorer
from lorakit.widgets.picture import Picture
from lorakit.widgets.spectrum import SpectrumExplorer

__all__ = [
    "CostExplorer",
    "Explorable",
    "FinetuneExplorer",
    "Picture",
    "SpectrumExplorer",
    "shown",
]
