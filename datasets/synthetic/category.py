"""Definition of a procedural category."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from datasets.synthetic.surface import Surface

MakeSurface = Callable[[np.random.Generator, int], Surface]
"""(rng, size in pixels) -> a good part in front of the camera."""

Damage = Callable[[Surface, np.random.Generator], Surface]
"""(good surface, rng) -> the same part with a defect."""


@dataclass(frozen=True)
class SyntheticCategory:
    """A product: a function that makes a good part, and one for each defect."""

    name: str
    make_surface: MakeSurface
    defects: Mapping[str, Damage]

    @property
    def defect_types(self) -> tuple[str, ...]:
        """Names of the defects, in the order of the tables."""
        return tuple(self.defects)
