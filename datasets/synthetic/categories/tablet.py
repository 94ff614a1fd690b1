"""Tablet: the good surface and its damage."""

from __future__ import annotations

import numpy as np

from datasets.synthetic.category import SyntheticCategory
from datasets.synthetic.defects import (
    blob_distance,
    pick_place,
    with_bite,
    with_crack,
)
from datasets.synthetic.fields import (
    coverage,
    fractal_noise,
    ramp,
    random_pose,
    segment_distance,
    smooth_noise,
)
from datasets.synthetic.surface import Surface, batch_hue, linear, paper_backdrop

TABLET_LENGTH, TABLET_WIDTH = 0.66, 0.44
TABLET_ROUNDNESS = 2.3
TABLET_COLOUR = linear(0.93, 0.91, 0.86)
# The mark's strokes either side of the score line, as straight lines between two points.
MARK_LEFT = (((-0.37, -0.14), (-0.21, 0.14)), ((-0.21, -0.14), (-0.37, 0.14)))
MARK_RIGHT = (((0.20, -0.14), (0.37, -0.14)), ((0.37, -0.14), (0.26, 0.14)))


def make_surface(rng: np.random.Generator, size: int) -> Surface:
    """Return an off-white oval tablet, scored and embossed with a mark, on blue-green card."""
    x, y = random_pose(rng, max_angle=np.pi, max_shift=0.06).coordinates(size)
    distance = _tablet_distance(x, y)
    dome = 0.10 * np.sqrt(np.clip(1 - (x / 0.9) ** 2 - (y / 0.62) ** 2, 0.02, 1))
    bevel = -0.10 * ramp(distance, -0.10, 0.0) ** 2
    powder = fractal_noise(rng, size, (36, 36), octaves=3)
    speckle = np.maximum(smooth_noise(rng, size, (90, 90)) - 1.7, 0)
    tone = rng.uniform(0.95, 1.03) * (1 + 0.012 * powder - 0.07 * speckle)
    card = paper_backdrop(rng, size, linear(0.24, 0.42, 0.47))
    height = dome + bevel + 0.0012 * powder - _score(x, y) - _mark(x, y, MARK_LEFT + MARK_RIGHT)
    return Surface(
        x=x,
        y=y,
        height=height,
        colour=tone[..., None] * TABLET_COLOUR * batch_hue(rng, 0.03),
        gloss=0.06,
        metal=0.0,
        cover=coverage(distance),
        backdrop=card,
    )


def _tablet_distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the signed distance (nearly) from the tablet's outline, a superellipse."""
    level = (np.abs(x) / TABLET_LENGTH) ** TABLET_ROUNDNESS
    level += (np.abs(y) / TABLET_WIDTH) ** TABLET_ROUNDNESS
    return (level ** (1 / TABLET_ROUNDNESS) - 1) * TABLET_WIDTH


def _score(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the depth of the groove along which the tablet is broken in two."""
    return 0.022 * ramp(np.abs(x), 0.028, 0.0) * ramp(np.abs(y), 0.44, 0.36)


def _mark(x: np.ndarray, y: np.ndarray, strokes: tuple) -> np.ndarray:
    """Return the depth of embossed strokes."""
    nearest = np.min([segment_distance(x, y, *stroke) for stroke in strokes], axis=0)
    return 0.018 * ramp(nearest, 0.034, 0.012)


def chipped_edge(surface: Surface, rng: np.random.Generator) -> Surface:
    """Chip a piece off the edge: a powdery face inside."""
    way = rng.uniform(0, 2 * np.pi)
    place = TABLET_LENGTH * 1.04 * np.cos(way), TABLET_WIDTH * 1.04 * np.sin(way)
    distance = blob_distance(surface, rng, centre=place, radius=rng.uniform(0.10, 0.19), ragged=0.5)
    return with_bite(surface, rng, distance, colour=linear(0.90, 0.87, 0.80))


def crack(surface: Surface, rng: np.random.Generator) -> Surface:
    """Crack the tablet."""
    inside = _tablet_distance(surface.x, surface.y) < -0.14
    return with_crack(
        surface,
        rng,
        centre=pick_place(rng, surface, inside),
        angle=rng.uniform(0, np.pi),
        length=rng.uniform(0.25, 0.5),
        width=rng.uniform(0.012, 0.024),
        colour=linear(0.45, 0.42, 0.38),
    )


def contamination(surface: Surface, rng: np.random.Generator) -> Surface:
    """Press foreign specks into the tablet."""
    inside = _tablet_distance(surface.x, surface.y) < -0.07
    colour = (linear(0.25, 0.18, 0.14), linear(0.70, 0.25, 0.20), linear(0.25, 0.33, 0.55))[
        rng.integers(0, 3)
    ]
    for _ in range(rng.integers(1, 5)):
        speck = blob_distance(
            surface,
            rng,
            centre=pick_place(rng, surface, inside),
            radius=rng.uniform(0.016, 0.05),
            ragged=0.35,
        )
        surface = surface.painted(rng.uniform(0.55, 0.95) * coverage(speck, softness=0.02), colour)
    return surface


def missing_mark(surface: Surface, rng: np.random.Generator) -> Surface:
    """Leave half of the embossed mark out, or press it only faintly."""
    strokes = MARK_LEFT if rng.random() < 0.5 else MARK_RIGHT
    return surface.raised(rng.uniform(0.7, 1) * _mark(surface.x, surface.y, strokes))


CATEGORY = SyntheticCategory(
    "tablet",
    make_surface,
    {
        "chipped_edge": chipped_edge,
        "crack": crack,
        "contamination": contamination,
        "missing_mark": missing_mark,
    },
)
