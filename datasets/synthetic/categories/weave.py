"""Weave: the good surface and its damage."""

from dataclasses import replace

import numpy as np

from datasets.synthetic.defects import blob_distance, bow, pick_place, strip
from datasets.synthetic.fields import (
    coverage,
    fractal_noise,
    mix,
    per_item,
    ramp,
    random_phase,
    random_pose,
    smooth_noise,
)
from datasets.synthetic.surface import Surface, linear

THREAD_PITCH = 0.082
WARP_COLOUR = linear(0.29, 0.40, 0.53)
WEFT_COLOUR = linear(0.87, 0.83, 0.74)
BACKING_COLOUR = linear(0.14, 0.12, 0.12)


def make_surface(rng: np.random.Generator, size: int) -> Surface:
    """Return plain-woven cloth: slate blue warp (vertical) and ecru weft (horizontal) threads."""
    x, y = random_pose(rng, max_angle=0.10).coordinates(size)
    start_x, start_y = random_phase(rng, THREAD_PITCH)
    x = x + start_x + 0.007 * smooth_noise(rng, size, (4, 3))
    y = y + start_y + 0.007 * smooth_noise(rng, size, (3, 4))
    column, row = x / THREAD_PITCH, y / THREAD_PITCH
    warp, weft = np.floor(column), np.floor(row)
    warp_tone, weft_tone = per_item(rng, warp), per_item(rng, weft)

    # Each thread has a round profile and runs in waves over and under its neighbours.
    warp_lift = np.cos(np.pi * (row - 0.5 + warp))
    weft_lift = -np.cos(np.pi * (column - 0.5 + weft))
    warp_crown = np.cos(np.pi * (column - warp - 0.5))
    weft_crown = np.cos(np.pi * (row - weft - 0.5))
    warp_height = 0.016 * warp_crown + 0.011 * warp_lift
    weft_height = 0.016 * weft_crown + 0.011 * weft_lift
    weft_on_top = ramp(weft_height - warp_height, -0.0015, 0.0015)

    # Twisted yarn: fine slanting fibres.
    twist = 2 * np.pi * mix(2.0 * row + 1.6 * column, 2.0 * column + 1.6 * row, weft_on_top)
    fuzz = smooth_noise(rng, size, (90, 90))
    tone = 1 + 0.07 * np.sin(twist) + 0.06 * fuzz + 0.06 * mix(warp_tone, weft_tone, weft_on_top)
    colour = mix(WARP_COLOUR, WEFT_COLOUR, weft_on_top[..., None]) * tone[..., None]
    return Surface(
        x=x,
        y=y,
        height=np.maximum(warp_height, weft_height) + 0.006 * smooth_noise(rng, size, (4, 4)),
        colour=colour * rng.uniform(0.92, 1.06),
        gloss=0.02,
        metal=0.0,
    )


def hole(surface: Surface, rng: np.random.Generator) -> Surface:
    """Tear a hole: the dark table is visible, frayed threads reach into the hole."""
    centre, radius = pick_place(rng, surface), rng.uniform(0.07, 0.19)
    distance = blob_distance(surface, rng, centre=centre, radius=radius, ragged=0.45)
    distance += 0.011 * smooth_noise(rng, surface.size, (60, 60))
    open_share = coverage(distance)
    torn = surface.raised(0.012 * ramp(distance, 0.05, 0.0) - 0.05 * open_share)
    torn = torn.painted(open_share, BACKING_COLOUR)
    for _ in range(rng.integers(4, 9)):
        toward = rng.uniform(0, 2 * np.pi)
        edge = (
            centre[0] + 0.75 * radius * np.cos(toward),
            centre[1] + 0.75 * radius * np.sin(toward),
        )
        thread = bow(
            rng,
            centre=edge,
            length=rng.uniform(0.6, 1.3) * radius,
            angle=toward + rng.normal(0, 0.5),
            bend=rng.uniform(0, 0.3),
        )
        colour = WEFT_COLOUR if rng.random() < 0.5 else WARP_COLOUR
        fibre = strip(*thread.coordinates(torn), width=0.018)
        torn = torn.raised(0.03 * fibre).painted(0.85 * fibre, colour)
    return torn


def pulled_thread(surface: Surface, rng: np.random.Generator) -> Surface:
    """Pull a weft thread out over some length: a gap in its row, and a loop above the cloth."""
    centre = pick_place(rng, surface, reach=0.45)
    row_middle = (np.floor(centre[1] / THREAD_PITCH) + 0.5) * THREAD_PITCH
    half = rng.uniform(0.2, 0.42)
    along = (surface.x - centre[0]) / half
    off_row = surface.y - row_middle
    gap = coverage(np.abs(off_row) - 0.36 * THREAD_PITCH) * ramp(np.abs(along), 1.0, 0.8)
    # Without the weft the warp is visible, lower and shaded.
    pulled = surface.raised(-0.022 * gap).painted(0.7 * gap, 0.35 * WARP_COLOUR)

    rise = rng.uniform(0.06, 0.17) * rng.choice([-1, 1])
    lean = rng.uniform(-0.3, 0.3)
    arch = np.clip(1 - along**2, 0, 1)
    offset = off_row - rise * arch * (1 + lean * along)
    # The distance from a steep curve is shorter than the offset along y.
    slope = rise / half * (-2 * along + lean * (1 - 3 * along**2))
    offset = offset / np.sqrt(1 + slope**2)
    radius = 0.34 * THREAD_PITCH
    inside = coverage(np.abs(offset) - radius) * (np.abs(along) < 1)
    twist = 1 + 0.12 * np.sin(2 * np.pi * (2.2 * surface.x + 1.5 * surface.y) / THREAD_PITCH)
    crown = np.sqrt(np.clip(radius**2 - offset**2, 0, None)) + 0.035 * arch
    loop = replace(pulled, height=mix(pulled.height, crown, inside))
    return loop.painted(inside, twist[..., None] * WEFT_COLOUR)


def stain(surface: Surface, rng: np.random.Generator) -> Surface:
    """Spill coffee or ink on the cloth, darkest at the rim."""
    tint = linear(0.62, 0.45, 0.28) if rng.random() < 0.7 else linear(0.35, 0.38, 0.55)
    radius, strength = rng.uniform(0.12, 0.32), rng.uniform(0.6, 1)
    centre = pick_place(rng, surface)
    distance = blob_distance(surface, rng, centre=centre, radius=radius, ragged=0.5)
    distance += 0.05 * radius * fractal_noise(rng, surface.size, (12, 12), octaves=2)
    inside = coverage(distance, softness=0.12 * radius)
    rim = np.exp(-((distance / (0.10 * radius) + 0.6) ** 2))
    patchy = 0.75 + 0.10 * fractal_noise(rng, surface.size, (5, 5), octaves=2)
    soaked = np.clip(strength * inside * (patchy + 0.45 * rim), 0, 1)
    return surface.tinted(soaked, tint)


DEFECTS = (hole, pulled_thread, stain)
