"""Every figure of the lab: axes in, nothing out; made here are shares, means and medians alone."""

from lorakit.plots.claims import draw_claim
from lorakit.plots.curves import draw_by_rank, draw_curves
from lorakit.plots.files import draw_adapter_file
from lorakit.plots.matrices import draw_matrices, draw_share
from lorakit.plots.memory import draw_memory
from lorakit.plots.merge import draw_merge, draw_merged
from lorakit.plots.overlap import draw_overlap
from lorakit.plots.quantize import draw_errors, draw_levels
from lorakit.plots.shelf import draw_answer, draw_disk
from lorakit.plots.spectrum import draw_layers, draw_spectrum
from lorakit.plots.spread import draw_spread
from lorakit.plots.step_times import draw_step_times
from lorakit.plots.style import COLORS, PARTS, figure, png, save_picture
from lorakit.plots.surface import draw_surface
from lorakit.plots.tensors import draw_tensors
from lorakit.plots.timeline import draw_timeline
from lorakit.plots.topics import draw_topics
from lorakit.plots.training import draw_loss, draw_pace
from lorakit.plots.truncation import draw_cut, draw_scores

__all__ = [
    "COLORS",
    "PARTS",
    "draw_adapter_file",
    "draw_answer",
    "draw_by_rank",
    "draw_claim",
    "draw_curves",
    "draw_cut",
    "draw_disk",
    "draw_errors",
    "draw_layers",
    "draw_levels",
    "draw_loss",
    "draw_matrices",
    "draw_memory",
    "draw_merge",
    "draw_merged",
    "draw_overlap",
    "draw_pace",
    "draw_scores",
    "draw_share",
    "draw_spectrum",
    "draw_spread",
    "draw_step_times",
    "draw_surface",
    "draw_tensors",
    "draw_timeline",
    "draw_topics",
    "figure",
    "png",
    "save_picture",
]
