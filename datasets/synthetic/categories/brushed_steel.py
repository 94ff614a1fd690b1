"""Brushed steel: the good surface and its damage."""

from __future__ import annotations

import numpy as np

from datasets.synthetic.category import SyntheticCategory
from datasets.synthetic.defects import (
    blob_distance,
    pick_place,
    with_rust,
    with_scratch,
)
from datasets.synthetic.fields import (
    ramp,
    random_pose,
    smooth_noise,
    streaks,
)
from datasets.synthetic.surface import Surface, batch_hue, linear

STEEL_COLOUR = linear(0.74, 0.76, 0.79)
GREASE_SHADE = linear(0.1, 0.1, 0.09)


def make_surface(rng: np.random.Generator, size: int) -> Surface:
    """Return a sheet of steel brushed from side to side."""
    x, y = random_pose(rng, max_angle=0.07).coordinates(size)
    brush = 0.6 * streaks(rng, x, y, (3, 165)) + 0.6 * streaks(rng, x, y, (10, 150))
    bands = streaks(rng, x, y, (2, 20))
    # Fine grooves spread reflections at right angles to them, into upright bands of sheen.
    sheen = streaks(rng, x, y, (4, 1))
    tone = rng.uniform(0.9, 1.06) * (1 + 0.10 * brush + 0.05 * bands + 0.07 * sheen)
    # The sheet is not quite flat: broad, soft reflections wander over it.
    return Surface(
        x=x,
        y=y,
        height=0.05 * smooth_noise(rng, size, (1, 2)) + 0.0005 * bands,
        colour=(tone[..., None] * STEEL_COLOUR * batch_hue(rng, 0.035)),
        gloss=0.05,
        metal=1.0,
    )


def scratch(surface: Surface, rng: np.random.Generator) -> Surface:
    """Scratch the sheet across its brush marks."""
    colour = linear(0.98, 0.98, 1.0) if rng.random() < 0.6 else linear(0.3, 0.3, 0.32)
    return with_scratch(surface, rng, colour=colour, metal=0.7)


def dent(surface: Surface, rng: np.random.Generator) -> Surface:
    """Knock a smooth dent into the sheet: reflections bend, the brush marks run on."""
    centre, radius = pick_place(rng, surface), rng.uniform(0.10, 0.22)
    distance = blob_distance(surface, rng, centre=centre, radius=radius, ragged=0.08, stretch=1.8)
    depth = rng.uniform(0.10, 0.22) * radius
    return surface.raised(-depth * np.exp(-(((distance + radius) / (0.62 * radius)) ** 2)))


def rust(surface: Surface, rng: np.random.Generator) -> Surface:
    """Let a patch of rust grow."""
    return with_rust(surface, rng, centre=pick_place(rng, surface), radius=rng.uniform(0.06, 0.2))


def fingerprint(surface: Surface, rng: np.random.Generator) -> Surface:
    """Leave a greasy fingerprint: fine arched ridges in an oval."""
    centre, radius = pick_place(rng, surface, reach=0.55), rng.uniform(0.17, 0.24)
    distance = blob_distance(surface, rng, centre=centre, radius=radius, ragged=0.06, stretch=2.2)
    whorl = np.hypot(
        surface.x - centre[0] + rng.uniform(-0.3, 0.3) * radius,
        surface.y - centre[1] + rng.uniform(-0.3, 0.3) * radius,
    )
    whorl += 0.016 * smooth_noise(rng, surface.size, (10, 10))
    ridges = 0.5 + 0.5 * np.sin(2 * np.pi * whorl / 0.036)
    pressed = ramp(distance, 0.02, -0.05) * np.clip(
        0.9 + 0.15 * smooth_noise(rng, surface.size, (12, 12)), 0.4, 1.1
    )
    darkening = rng.uniform(0.25, 0.45) * pressed * (0.35 + 0.65 * ridges)
    return surface.tinted(darkening, GREASE_SHADE)


CATEGORY = SyntheticCategory(
    "brushed_steel",
    make_surface,
    {
        "scratch": scratch,
        "dent": dent,
        "rust": rust,
        "fingerprint": fingerprint,
    },
)
