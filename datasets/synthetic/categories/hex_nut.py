"""Hex nut: the good surface and its damage."""

import numpy as np

from datasets.synthetic.defects import blob_distance, pick_place, with_bite, with_scratch
from datasets.synthetic.fields import coverage, fractal_noise, mix, ramp, random_pose, smooth_noise
from datasets.synthetic.surface import Surface, linear, paper_backdrop

NUT_INRADIUS, NUT_CHAMFER = 0.56, 0.605
THREAD_OUTER, THREAD_INNER = 0.345, 0.265
NUT_COLOUR = linear(0.72, 0.73, 0.75)


def make_surface(rng: np.random.Generator, size: int) -> Surface:
    """Return a zinc-plated hexagon nut lying flat on dark blue-grey card."""
    x, y = random_pose(rng, max_angle=np.pi, max_shift=0.06).coordinates(size)
    radius, around = np.hypot(x, y), np.arctan2(y, x)
    sides = np.pi / 3
    lean = rng.uniform(-0.07, 0.07) * x + rng.uniform(-0.07, 0.07) * y
    to_side = np.mod(around, sides) - sides / 2
    corner = 0.02
    hexagon = radius * np.cos(to_side) - NUT_INRADIUS
    hexagon = np.maximum(hexagon, radius - NUT_INRADIUS / np.cos(sides / 2) + corner)

    # The corners are chamfered, the hole is countersunk and threaded.
    chamfer = -0.55 * np.maximum(radius - NUT_CHAMFER + 0.035, 0)
    edge = -0.03 * np.exp(np.minimum(hexagon, 0) / 0.012)
    sunk = -0.8 * np.maximum(THREAD_OUTER + 0.03 - radius, 0)
    turns = (THREAD_OUTER - radius) / 0.0265 + around / (2 * np.pi)
    winding = 0.009 * np.cos(2 * np.pi * turns) * ramp(radius, THREAD_OUTER, THREAD_OUTER - 0.01)
    turning = np.interp(radius, np.linspace(0, 1, 220), rng.standard_normal(220))
    tone = 1 + 0.045 * turning + 0.05 * fractal_noise(rng, size, (8, 8), octaves=4)
    in_hole = ramp(radius, THREAD_OUTER, THREAD_INNER)
    tone = tone * mix(1.0, 0.45, in_hole)

    card = paper_backdrop(rng, size, linear(0.33, 0.38, 0.44))
    return Surface(
        x=x,
        y=y,
        height=lean + chamfer + edge + sunk + winding + 0.012 * smooth_noise(rng, size, (2, 2)),
        colour=tone[..., None] * NUT_COLOUR,
        gloss=0.12,
        metal=1.0,
        cover=coverage(np.maximum(hexagon, THREAD_INNER - radius)),
        backdrop=card,
    )


def _nut_face(surface: Surface) -> np.ndarray:
    """Return the mask of the flat face of the nut: (S, S) bool."""
    radius = np.hypot(surface.x, surface.y)
    return (radius > THREAD_OUTER + 0.04) & (radius < NUT_INRADIUS - 0.03)


def chipped(surface: Surface, rng: np.random.Generator) -> Surface:
    """Break a piece out of a corner or a side."""
    way = rng.integers(0, 6) * np.pi / 3 + rng.normal(0, 0.25)
    place = 0.74 * np.cos(way), 0.74 * np.sin(way)
    distance = blob_distance(
        surface, rng, centre=place, radius=rng.uniform(0.17, 0.29), ragged=0.35
    )
    return with_bite(surface, rng, distance, colour=linear(0.46, 0.46, 0.47))


def scratch(surface: Surface, rng: np.random.Generator) -> Surface:
    """Scratch the face."""
    return with_scratch(surface, rng, colour=linear(0.30, 0.30, 0.31), metal=0.5)


def discolored(surface: Surface, rng: np.random.Generator) -> Surface:
    """Heat the metal: straw, brown and blue temper colours on part of the face."""
    centre = pick_place(rng, surface, _nut_face(surface))
    radius = rng.uniform(0.10, 0.24)
    distance = blob_distance(surface, rng, centre=centre, radius=radius, ragged=0.35)
    patchy = distance / radius + 0.12 * fractal_noise(rng, surface.size, (9, 9), octaves=3)
    stops = np.array([-1.2, -0.6, -0.25, 0.05])
    tempers = np.stack(
        [linear(0.55, 0.60, 0.82), linear(0.66, 0.50, 0.58), linear(0.88, 0.68, 0.42), np.ones(3)]
    )
    hue = np.stack([np.interp(patchy, stops, tempers[:, c]) for c in range(3)], axis=-1)
    return surface.tinted(rng.uniform(0.6, 1), hue)


DEFECTS = (chipped, scratch, discolored)
