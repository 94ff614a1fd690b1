"""Pages: the report of an evaluation, and the predictions of an inference, each one HTML file."""

from utils.report.page import render_page
from utils.report.predictions import PredictionImage, PredictionView, render_predictions
from utils.report.view import ReportImage, ReportView

__all__ = [
    "PredictionImage",
    "PredictionView",
    "ReportImage",
    "ReportView",
    "render_page",
    "render_predictions",
]
