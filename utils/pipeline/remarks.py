"""Remarks about a category in the log: assumptions, skipped files, missing metrics."""

import logging

from datasets.base import Category

log = logging.getLogger(__name__)


def log_remarks(category: Category) -> None:
    """Log each remark about a category once."""
    for remark in category.remarks():
        log.warning("%s: %s", category.name, remark)
