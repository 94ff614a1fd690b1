"""Made-up product pictures with exact masks: a data set for whoever has none.

Eight categories, none of them named as one of MVTec AD's, drawn from numbers alone.
"""

from datasets.synthetic.categories import CATEGORIES
from datasets.synthetic.category import SyntheticCategory
from datasets.synthetic.rendering import render
from datasets.synthetic.writing import GENERATOR_VERSION, write_dataset

__all__ = ["CATEGORIES", "GENERATOR_VERSION", "SyntheticCategory", "render", "write_dataset"]
