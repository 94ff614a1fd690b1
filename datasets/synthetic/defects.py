"""Shapes and defects of several categories.

A defect is a function (surface, rng) -> surface. It changes the shape and material of the good
surface; light, shadow and camera are applied afterwards.
"""

from dataclasses import dataclass

import numpy as np

from datasets.synthetic.fields import coverage, fractal_noise, rotated
from datasets.synthetic.surface import Surface

WIDEST_PLACE = 0.62
"""Largest distance of a defect from the image centre along each axis, since images are cropped."""

MAX_STRETCH = 1.3
"""Largest ratio of length to width of a blob."""


def pick_place(
    rng: np.random.Generator,
    surface: Surface,
    allowed: np.ndarray | None = None,
    *,
    reach: float = WIDEST_PLACE,
) -> tuple[float, float]:
    """Draw a position in the frame of the part, only where `allowed` (S, S) bool is True."""
    size = surface.size
    tries = ((rng.uniform(-reach, reach, (200, 2)) + 1) * (size / 2)).astype(np.int64)
    if allowed is not None:
        hits = tries[allowed[tries[:, 0], tries[:, 1]]]
        tries = hits if len(hits) else np.argwhere(allowed)

    row, column = tries[0]
    return float(surface.x[row, column]), float(surface.y[row, column])


def blob_distance(
    surface: Surface,
    rng: np.random.Generator,
    *,
    centre: tuple[float, float],
    radius: float,
    ragged: float,
) -> np.ndarray:
    """Return the approximate signed distance from an irregular closed outline, negative inside.

    `ragged` is the roughness of the outline as a share of the radius.
    """
    longer = float(np.sqrt(rng.uniform(1, MAX_STRETCH)))
    dx, dy = rotated(surface.x - centre[0], surface.y - centre[1], angle=rng.uniform(0, np.pi))
    cells = int(np.clip(1.3 / radius, 2, 48))
    stray = fractal_noise(rng, surface.size, (cells, cells), octaves=3)
    return np.hypot(dx / longer, dy * longer) - radius * (1 + ragged * np.clip(stray, -2, 2))


@dataclass(frozen=True)
class Stroke:
    """An open line, defined by its chord and its offsets from the chord.

    Attributes:
        centre: Centre of the chord.
        angle: Direction of the chord in radians.
        length: Length of the chord.
        knots: Positions from -1 to 1 along the chord.
        offsets: Distance of the line from the chord at each knot.
    """

    centre: tuple[float, float]
    angle: float
    length: float
    knots: np.ndarray
    offsets: np.ndarray

    def coordinates(self, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
        """Return the position along the line (-1 to 1 between its ends) and the offset from it."""
        along, across = rotated(
            surface.x - self.centre[0], surface.y - self.centre[1], angle=self.angle
        )
        along = along * (2 / self.length)
        return along, across - np.interp(along, self.knots, self.offsets).astype(np.float32)

    def point(self, along: float) -> tuple[float, float]:
        """Return the point at position `along` (-1 to 1)."""
        forward, aside = along * self.length / 2, np.interp(along, self.knots, self.offsets)
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return (
            float(self.centre[0] + forward * cos - aside * sin),
            float(self.centre[1] + forward * sin + aside * cos),
        )


def bow(
    rng: np.random.Generator,
    *,
    centre: tuple[float, float],
    length: float,
    angle: float,
    bend: float,
) -> Stroke:
    """Draw a smooth line; `bend` is its largest offset from the chord as a share of the length."""
    knots = np.linspace(-1, 1, 81)
    offsets = rng.choice([-1, 1]) * bend * length * (1 - knots**2) * (1 + 0.4 * knots)
    return Stroke(centre, angle, length, knots, offsets)


def jagged_line(
    rng: np.random.Generator, *, start: tuple[float, float], length: float, angle: float
) -> Stroke:
    """Draw a line of short straight segments from `start`, like a crack in brittle material."""
    knots = np.linspace(-1, 1, 2 + int(np.clip(length / 0.045, 4, 40)))
    walk = np.cumsum(rng.normal(0, 0.014, len(knots))) + rng.normal(0, 0.009, len(knots))
    # Subtracting the chord fixes both ends, so that a branch starts at its crack.
    walk -= np.interp(knots, [-1, 1], walk[[0, -1]])
    middle = start[0] + length / 2 * np.cos(angle), start[1] + length / 2 * np.sin(angle)
    return Stroke(middle, angle, length, knots, walk)


def strip(along: np.ndarray, across: np.ndarray, *, width: float) -> np.ndarray:
    """Return the share of each pixel covered by a line that tapers towards both ends."""
    half = width / 2 * np.sqrt(np.clip(1 - along**2, 0, 1))
    pixel = 2 / across.shape[0]
    # Lines thinner than a pixel stay one pixel wide but become fainter, as in a camera image.
    thickness = np.clip(2 * half / pixel, 0, 1)
    return coverage(np.abs(across) - np.maximum(half, pixel / 2)) * thickness


def with_scratch(
    surface: Surface, rng: np.random.Generator, *, colour: np.ndarray, metal: float = 0.0
) -> Surface:
    """Draw one to three thin grooves that expose `colour` below the surface."""
    on_part = None if surface.cover is None else surface.cover > 0.9
    centre = pick_place(rng, surface, on_part, reach=0.5)
    angle, length = rng.uniform(0, np.pi), rng.uniform(0.4, 1.0)
    strength = rng.uniform(0.55, 1)
    for _ in range(rng.integers(1, 4)):
        line = bow(
            rng,
            centre=(centre[0] + rng.normal(0, 0.02), centre[1] + rng.normal(0, 0.02)),
            length=length * rng.uniform(0.6, 1),
            angle=angle + rng.normal(0, 0.07),
            bend=rng.uniform(0, 0.08),
        )
        groove = strip(*line.coordinates(surface), width=rng.uniform(0.012, 0.026)) * strength
        surface = surface.raised(-0.006 * groove).painted(
            0.75 * groove, colour, gloss=0.4, metal=metal
        )
    return surface


def with_crack(
    surface: Surface,
    rng: np.random.Generator,
    *,
    centre: tuple[float, float],
    angle: float,
    length: float,
    width: float,
    colour: np.ndarray,
) -> Surface:
    """Crack the surface along a jagged line near `centre`, sometimes with a branch."""
    half = length / 2
    start = centre[0] - half * np.cos(angle), centre[1] - half * np.sin(angle)
    lines = [jagged_line(rng, start=start, length=length, angle=angle)]
    if rng.random() < 0.6:
        lines.append(
            jagged_line(
                rng,
                start=lines[0].point(rng.uniform(-0.3, 0.5)),
                length=rng.uniform(0.25, 0.45) * length,
                angle=angle + rng.choice([-1, 1]) * rng.uniform(0.5, 1.0),
            )
        )
    gap = np.max([strip(*line.coordinates(surface), width=width) for line in lines], axis=0)
    return surface.raised(-0.015 * gap).painted(0.95 * gap, colour)


def with_bite(
    surface: Surface, rng: np.random.Generator, distance: np.ndarray, *, colour: np.ndarray
) -> Surface:
    """Break a piece off the part and leave a rough face around it.

    `distance` is the signed distance from the outline of the break, negative inside; `colour` is
    the colour of the rough face.
    """
    rough = fractal_noise(rng, surface.size, (36, 36), octaves=2)
    # The face slopes from the surface down to the broken edge.
    face = coverage(distance)
    depth = np.clip(-distance, 0, 0.06)
    tone = np.clip(1 + 0.16 * rough, 0.4, 1.6)
    broken = surface.raised(face * (0.010 * rough - 1.3 * depth)).painted(
        face, tone[..., None] * colour, gloss=0.1
    )
    return broken.without(coverage(distance + 0.05 + 0.008 * rough))
