"""One page to look through all results: numbers, curves and every test image."""

from utils.report.page import render_page
from utils.report.view import ReportImage, ReportView

__all__ = ["ReportImage", "ReportView", "render_page"]
