"""Wood grain: the good surface and its damage."""

from dataclasses import replace

import numpy as np

from datasets.synthetic.defects import blob_distance, pick_place, with_scratch
from datasets.synthetic.fields import (
    coverage,
    displaced,
    mix,
    per_item,
    ramp,
    random_pose,
    smooth_noise,
    streaks,
)
from datasets.synthetic.surface import Surface, batch_hue, linear

EARLY_WOOD = linear(0.84, 0.67, 0.46)
LATE_WOOD = linear(0.58, 0.38, 0.22)


def make_surface(rng: np.random.Generator, size: int) -> Surface:
    """Return a planed, satin-varnished board with vertical grain."""
    x, y = random_pose(rng, max_angle=0.09).coordinates(size)
    # Growth rings cut lengthwise: long parabolas around the heart, straight lines far from it.
    heart_x, heart_y = rng.uniform(-0.9, 0.9), rng.uniform(1.2, 3.0) * rng.choice([-1, 1])
    waviness = 0.055 * smooth_noise(rng, size, (3, 1)) + 0.014 * smooth_noise(rng, size, (7, 3))
    ring = rng.uniform(7, 10) * np.hypot(x - heart_x + waviness, 0.13 * (y - heart_y))
    year = np.floor(ring)
    within = ring - year
    late = within**2.2 * ramp(within, 1.0, 0.86)
    late *= np.clip(0.8 + 0.22 * per_item(rng, year), 0.3, 1.2)

    fibre = streaks(rng, x, y, (170, 7))
    pores = np.maximum(streaks(rng, x, y, (170, 16)) - 1.35, 0)
    tone = 1 + 0.07 * fibre + 0.05 * streaks(rng, x, y, (30, 3)) - 0.35 * np.minimum(pores, 1)
    colour = mix(EARLY_WOOD, LATE_WOOD, (0.85 * late)[..., None]) * tone[..., None]
    return Surface(
        x=x,
        y=y,
        height=0.0012 * late - 0.003 * pores + 0.012 * smooth_noise(rng, size, (3, 3)),
        colour=colour * batch_hue(rng, 0.07) * rng.uniform(0.85, 1.1),
        gloss=0.07,
        metal=0.0,
    )


def scratch(surface: Surface, rng: np.random.Generator) -> Surface:
    """Scratch the varnish through to pale bare wood."""
    return with_scratch(surface, rng, colour=linear(0.95, 0.84, 0.68))


def knot_hole(surface: Surface, rng: np.random.Generator) -> Surface:
    """Add a dead knot: a dark disc with a hole, with the grain bent around it."""
    centre, radius = pick_place(rng, surface), rng.uniform(0.06, 0.19)
    distance = blob_distance(surface, rng, centre=centre, radius=radius, ragged=0.12)
    surface = _parted_grain(surface, centre, 2.2 * radius)

    rings = 1 + 0.18 * np.sin(2 * np.pi * distance / 0.03)
    rings += 0.08 * smooth_noise(rng, surface.size, (40, 40))
    dark = rings[..., None] * linear(0.40, 0.24, 0.14)
    halo = 0.55 * ramp(distance, 0.6 * radius, 0.0)
    surface = surface.tinted(halo, linear(0.8, 0.66, 0.5))
    surface = surface.painted(coverage(distance, softness=0.03), dark)

    hole = blob_distance(
        surface, rng, centre=centre, radius=rng.uniform(0.4, 0.75) * radius, ragged=0.4
    )
    bored = coverage(hole, softness=0.012)
    return surface.raised(-0.06 * bored).painted(bored, linear(0.10, 0.06, 0.04))


def _parted_grain(surface: Surface, centre: tuple[float, float], reach: float) -> Surface:
    """Bend the vertical grain around a position, up to a distance of `reach`."""
    dx, dy = surface.x - centre[0], surface.y - centre[1]
    nearness = ramp(np.hypot(dx, 0.7 * dy), reach, 0.0)
    shift = -0.7 * dx * nearness, np.zeros_like(dx)
    return replace(
        surface,
        colour=displaced(surface.colour, *shift),
        height=displaced(surface.height, *shift),
    )


def liquid(surface: Surface, rng: np.random.Generator) -> Surface:
    """Spill drops of water: darkened wood under glossy domes."""
    centre, radius = pick_place(rng, surface, reach=0.5), rng.uniform(0.07, 0.22)
    distance = blob_distance(surface, rng, centre=centre, radius=radius, ragged=0.2)
    for _ in range(rng.integers(0, 5)):
        way, drop = rng.uniform(0, 2 * np.pi), rng.uniform(0.018, 0.04)
        away = radius + rng.uniform(0.05, 0.13)
        place = centre[0] + away * np.cos(way), centre[1] + away * np.sin(way)
        distance = np.minimum(
            distance, blob_distance(surface, rng, centre=place, radius=drop, ragged=0.1)
        )
    wet = coverage(distance)
    # Surface tension: steep at the edge, flat on top.
    dome = 0.03 * (1 - np.exp(np.minimum(distance, 0) / 0.022))
    soaked = surface.tinted(wet, linear(0.76, 0.68, 0.60))
    return replace(
        soaked,
        height=mix(soaked.height, 0.3 * soaked.height + dome, wet),
        gloss=mix(soaked.gloss, 0.8, wet),
    )


DEFECTS = (scratch, knot_hole, liquid)
