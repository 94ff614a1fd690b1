"""Figures of the results: NumPy arrays in, RGB uint8 arrays out. Callers write the files."""

from utils.plots.curves import draw_precision_recall_curves, draw_pro_curves, draw_roc_curves
from utils.plots.distribution import draw_score_distribution
from utils.plots.explanation import draw_explanation
from utils.plots.localization import draw_localization
from utils.plots.thumbnail import draw_thumbnail

__all__ = [
    "draw_explanation",
    "draw_localization",
    "draw_precision_recall_curves",
    "draw_pro_curves",
    "draw_roc_curves",
    "draw_score_distribution",
    "draw_thumbnail",
]
