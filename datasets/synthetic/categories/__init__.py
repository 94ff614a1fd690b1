"""One module a category; a new one needs its module and its name in the list below."""

from collections.abc import Mapping
from types import MappingProxyType

from datasets.synthetic.categories import (
    bottle_mouth,
    brushed_steel,
    hex_nut,
    mosaic,
    tablet,
    weave,
    wood_grain,
    wood_screw,
)
from datasets.synthetic.category import SyntheticCategory

_TEXTURES = (weave, wood_grain, mosaic, brushed_steel)
_OBJECTS = (bottle_mouth, hex_nut, wood_screw, tablet)

CATEGORIES: Mapping[str, SyntheticCategory] = MappingProxyType(
    {module.CATEGORY.name: module.CATEGORY for module in (*_TEXTURES, *_OBJECTS)}
)
"""The categories by name: textures, then objects."""
