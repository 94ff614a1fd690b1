"""The procedural categories, one module each; the module has the name of its category.

Each module has a function ``make_surface`` for good parts, and ``DEFECTS``, one function for each
defect type, with its name.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from datasets.synthetic import NAMES
from datasets.synthetic.surface import Surface


@dataclass(frozen=True)
class SyntheticCategory:
    """A product.

    Attributes:
        make_surface: (rng, size in pixels) -> a good part in front of the camera.
        defects: By defect type, in the order of the tables: (good surface, rng) -> the same part
            with a defect.
    """

    make_surface: Callable[[np.random.Generator, int], Surface]
    defects: Mapping[str, Callable[[Surface, np.random.Generator], Surface]]

    @property
    def defect_types(self) -> tuple[str, ...]:
        """Names of the defect types."""
        return tuple(self.defects)


def _load(name: str) -> SyntheticCategory:
    module = importlib.import_module(f"{__name__}.{name}")
    return SyntheticCategory(module.make_surface, {d.__name__: d for d in module.DEFECTS})


CATEGORIES: Mapping[str, SyntheticCategory] = MappingProxyType({n: _load(n) for n in NAMES})
"""The categories by name."""
