"""Procedural product images with exact masks: a dataset that needs no download.

Six categories. None has the name of a category of MVTec AD.
"""

from datasets.synthetic.categories import CATEGORIES
from datasets.synthetic.category import SyntheticCategory
from datasets.synthetic.rendering import render
from datasets.synthetic.writing import GENERATOR_VERSION, write_dataset

__all__ = ["CATEGORIES", "GENERATOR_VERSION", "SyntheticCategory", "render", "write_dataset"]
