"""The procedural categories, one module each. Add a new module to the tuples below."""

from collections.abc import Mapping
from types import MappingProxyType

from datasets.synthetic.categories import (
    bottle_mouth,
    hex_nut,
    mosaic,
    weave,
    wood_grain,
    wood_screw,
)
from datasets.synthetic.category import SyntheticCategory

_TEXTURES = (weave, wood_grain, mosaic)
_OBJECTS = (bottle_mouth, hex_nut, wood_screw)

CATEGORIES: Mapping[str, SyntheticCategory] = MappingProxyType(
    {module.CATEGORY.name: module.CATEGORY for module in (*_TEXTURES, *_OBJECTS)}
)
"""The categories by name: textures, then objects."""
