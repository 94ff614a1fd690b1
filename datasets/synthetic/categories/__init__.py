"""The procedural categories, one module each; the module has the name of its category."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType

from datasets.synthetic import NAMES
from datasets.synthetic.category import SyntheticCategory

CATEGORIES: Mapping[str, SyntheticCategory] = MappingProxyType(
    {name: importlib.import_module(f"{__name__}.{name}").CATEGORY for name in NAMES}
)
"""The categories by name."""
