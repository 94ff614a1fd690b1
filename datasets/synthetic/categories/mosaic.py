"""Mosaic: the good surface and its damage."""

from dataclasses import replace

import numpy as np

from datasets.synthetic.defects import blob_distance, pick_place, with_crack
from datasets.synthetic.fields import (
    coverage,
    fractal_noise,
    mix,
    per_item,
    random_phase,
    random_pose,
    rotated,
    rounded_box_distance,
    smooth_noise,
)
from datasets.synthetic.surface import Surface, linear

TILE_PITCH = 0.27
TILE_HALF = 0.119
TILE_CORNER = 0.022
TILE_COLOURS = np.stack(
    [
        linear(0.16, 0.45, 0.52),
        linear(0.27, 0.58, 0.62),
        linear(0.55, 0.75, 0.74),
        linear(0.85, 0.87, 0.82),
        linear(0.12, 0.33, 0.43),
    ]
)
# Standard normal values divided at these bounds select the five colours equally often.
EQUAL_SHARES = (-0.84, -0.25, 0.25, 0.84)
GROUT_COLOUR = linear(0.72, 0.70, 0.66)
MORTAR_COLOUR = linear(0.53, 0.50, 0.46)
BISQUE_COLOUR = linear(0.80, 0.56, 0.42)


def make_surface(rng: np.random.Generator, size: int) -> Surface:
    """Return a wall of glazed square tiles in blue-green tones, set by hand in grey grout."""
    x, y = random_pose(rng, max_angle=0.10).coordinates(size)
    start_x, start_y = random_phase(rng, TILE_PITCH)
    x, y = x + start_x, y + start_y
    number = _tile_number(x, y)
    in_x = np.mod(x, TILE_PITCH) - TILE_PITCH / 2 + 0.003 * per_item(rng, number)
    in_y = np.mod(y, TILE_PITCH) - TILE_PITCH / 2 + 0.003 * per_item(rng, number)
    distance = rounded_box_distance(in_x, in_y, half=TILE_HALF, corner=TILE_CORNER)
    on_tile = coverage(distance)

    glaze = TILE_COLOURS[np.digitize(per_item(rng, number), EQUAL_SHARES)]
    mottle = 1 + 0.06 * per_item(rng, number) + 0.05 * fractal_noise(rng, size, (9, 9), octaves=3)
    sand = smooth_noise(rng, size, (110, 110))
    grout = (1 + 0.09 * sand)[..., None] * GROUT_COLOUR
    # Hand-set tiles are tilted slightly in different directions; their edges are rounded.
    lean = 0.05 * (in_x * per_item(rng, number) + in_y * per_item(rng, number))
    pillow = 0.02 * (1 - np.exp(np.minimum(distance, 0) / 0.012))
    return Surface(
        x=x,
        y=y,
        height=mix(0.0015 * sand - 0.004, pillow + lean, on_tile),
        colour=mix(grout, glaze * mottle[..., None], on_tile[..., None]),
        gloss=0.55 * on_tile,
        metal=0.0,
    )


def _tile_number(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Number the tiles row by row; an image has fewer than 32 rows and columns of tiles."""
    return np.floor(x / TILE_PITCH) + 32 * np.floor(y / TILE_PITCH)


def _tile_middle(place: tuple[float, float]) -> tuple[float, float]:
    """Return the centre of the tile at a position."""
    column, row = (np.floor(p / TILE_PITCH) for p in place)
    return (column + 0.5) * TILE_PITCH, (row + 0.5) * TILE_PITCH


def _tile_distance(surface: Surface, middle: tuple[float, float]) -> np.ndarray:
    """Return the signed distance from the outline of the tile with this centre."""
    return rounded_box_distance(
        surface.x - middle[0], surface.y - middle[1], half=TILE_HALF, corner=TILE_CORNER
    )


def missing_tile(surface: Surface, rng: np.random.Generator) -> Surface:
    """Remove one tile, sometimes only most of it: the mortar bed is visible."""
    middle = _tile_middle(pick_place(rng, surface))
    distance = _tile_distance(surface, middle) - 0.006
    if rng.random() < 0.5:
        away = rng.uniform(0, 2 * np.pi)
        broken_edge, _ = rotated(surface.x - middle[0], surface.y - middle[1], angle=away)
        jagged = 0.012 * fractal_noise(rng, surface.size, (14, 14), octaves=2)
        distance = np.maximum(distance, broken_edge - 0.05 + jagged)
    size = surface.size
    bed = fractal_noise(rng, size, (24, 24), octaves=3)
    ridges = np.sin(2 * np.pi * surface.x / 0.055 + 0.6 * bed)
    gone = coverage(distance)
    mortar = (1 + 0.12 * bed)[..., None] * MORTAR_COLOUR
    bared = replace(surface, height=mix(surface.height, 0.004 * (ridges + bed) - 0.03, gone))
    return bared.painted(gone, mortar)


def crack(surface: Surface, rng: np.random.Generator) -> Surface:
    """Crack the tiles along a jagged line."""
    return with_crack(
        surface,
        rng,
        centre=pick_place(rng, surface, reach=0.45),
        angle=rng.uniform(0, np.pi),
        length=rng.uniform(0.35, 0.95),
        width=rng.uniform(0.012, 0.022),
        colour=linear(0.13, 0.11, 0.10),
    )


def chip(surface: Surface, rng: np.random.Generator) -> Surface:
    """Chip glaze off the corner or edge of a tile: the clay body is visible."""
    middle = _tile_middle(pick_place(rng, surface))
    corner = rng.uniform(-1, 1, 2)
    corner = corner / np.abs(corner).max() * TILE_HALF
    place = middle[0] + corner[0], middle[1] + corner[1]
    distance = blob_distance(surface, rng, centre=place, radius=rng.uniform(0.06, 0.14), ragged=0.3)
    distance = np.maximum(distance, _tile_distance(surface, middle))
    rough = fractal_noise(rng, surface.size, (40, 40), octaves=2)
    chipped = coverage(distance)
    clay = (1 + 0.08 * rough)[..., None] * BISQUE_COLOUR
    lowered = surface.raised(chipped * (0.002 * rough - 0.5 * np.clip(-distance, 0, 0.03)))
    return lowered.painted(chipped, clay)


DEFECTS = (missing_tile, crack, chip)
