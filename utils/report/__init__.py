"""Report page: numbers, curves and every test image of a run in one HTML file."""

from utils.report.page import render_page
from utils.report.view import ReportImage, ReportView

__all__ = ["ReportImage", "ReportView", "render_page"]
