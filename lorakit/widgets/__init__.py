"""Explorables for notebooks: controls -> plain function -> drawing -> picture, one to a file."""

from lorakit.widgets.adapter_file import AdapterFileExplorer
from lorakit.widgets.budget import BudgetExplorer
from lorakit.widgets.claim import ClaimExplorer
from lorakit.widgets.explorable import Explorable, shown
from lorakit.widgets.finetune import FinetuneExplorer
from lorakit.widgets.glossary import Glossary
from lorakit.widgets.handshake import Handshake
from lorakit.widgets.job import Job
from lorakit.widgets.keeping import Keeping
from lorakit.widgets.live_memory import LiveMemoryExplorer
from lorakit.widgets.memory import MemoryExplorer
from lorakit.widgets.merge import MergeExplorer
from lorakit.widgets.merged import MergedExplorer
from lorakit.widgets.overlap import OverlapExplorer
from lorakit.widgets.pace import PaceExplorer
from lorakit.widgets.parameters import ParametersExplorer
from lorakit.widgets.picture import Picture
from lorakit.widgets.predict import Choice, Number, Sketch
from lorakit.widgets.quantize import QuantizeExplorer
from lorakit.widgets.quiz import QuizExplorer
from lorakit.widgets.race import RaceExplorer
from lorakit.widgets.rank_alpha import RankAlphaExplorer
from lorakit.widgets.real_model import RealModelExplorer
from lorakit.widgets.replay import Predictions
from lorakit.widgets.scrubber import SweepExplorer
from lorakit.widgets.shelf import ShelfExplorer
from lorakit.widgets.spectrum import SpectrumExplorer
from lorakit.widgets.starts import StartsExplorer
from lorakit.widgets.step import StepExplorer
from lorakit.widgets.step_times import StepTimesExplorer
from lorakit.widgets.truncation import TruncationExplorer
from lorakit.widgets.when_full_wins import WhenFullWinsExplorer

__all__ = [
    "AdapterFileExplorer",
    "BudgetExplorer",
    "Choice",
    "ClaimExplorer",
    "Explorable",
    "FinetuneExplorer",
    "Glossary",
    "Handshake",
    "Job",
    "Keeping",
    "LiveMemoryExplorer",
    "MemoryExplorer",
    "MergeExplorer",
    "MergedExplorer",
    "Number",
    "OverlapExplorer",
    "PaceExplorer",
    "ParametersExplorer",
    "Picture",
    "Predictions",
    "QuantizeExplorer",
    "QuizExplorer",
    "RaceExplorer",
    "RankAlphaExplorer",
    "RealModelExplorer",
    "ShelfExplorer",
    "Sketch",
    "SpectrumExplorer",
    "StartsExplorer",
    "StepExplorer",
    "StepTimesExplorer",
    "SweepExplorer",
    "TruncationExplorer",
    "WhenFullWinsExplorer",
    "shown",
]
