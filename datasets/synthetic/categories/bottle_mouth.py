"""Bottle mouth: the good surface and its damage."""

from dataclasses import replace

import numpy as np

from datasets.synthetic.defects import blob_distance, bow, strip, with_crack
from datasets.synthetic.fields import coverage, fractal_noise, mix, ramp, random_pose, smooth_noise
from datasets.synthetic.surface import Surface, batch_hue, linear, paper_backdrop

BODY_RADIUS = 0.80
LIP_OUTER, LIP_INNER = 0.50, 0.35
LIP_MIDDLE = (LIP_OUTER + LIP_INNER) / 2
# Colour of the glass from the centre outwards, lit from behind: radius, display colour.
GLASS_PROFILE = (
    (0.00, (0.62, 0.76, 0.58)),
    (0.10, (0.58, 0.73, 0.55)),
    (0.13, (0.42, 0.60, 0.42)),
    (0.16, (0.56, 0.72, 0.54)),
    (0.25, (0.46, 0.63, 0.45)),
    (0.29, (0.22, 0.37, 0.24)),
    (0.34, (0.12, 0.22, 0.14)),
    (0.37, (0.24, 0.42, 0.28)),
    (0.425, (0.44, 0.64, 0.44)),
    (0.48, (0.22, 0.40, 0.26)),
    (0.505, (0.06, 0.12, 0.08)),
    (0.535, (0.14, 0.27, 0.17)),
    (0.60, (0.24, 0.44, 0.27)),
    (0.625, (0.12, 0.24, 0.15)),
    (0.65, (0.22, 0.41, 0.25)),
    (0.74, (0.16, 0.32, 0.19)),
    (0.785, (0.05, 0.11, 0.07)),
    (0.80, (0.04, 0.08, 0.05)),
)


def make_surface(rng: np.random.Generator, size: int) -> Surface:
    """Return a green glass bottle seen from above on a light table."""
    pose = random_pose(rng, max_angle=np.pi, max_shift=0.05)
    x, y = pose.coordinates(size)
    # Seen slightly from the side, lower parts are shifted against the mouth.
    lean_x, lean_y = rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)
    radius = np.hypot(x, y)
    depth = ramp(np.abs(radius - LIP_MIDDLE), 0.05, 0.35)
    radius = np.hypot(x - lean_x * depth, y - lean_y * depth)
    uneven = 0.006 * smooth_noise(rng, size, (4, 4))

    knots = np.array([r for r, _ in GLASS_PROFILE])
    colours = np.stack([linear(*colour) for _, colour in GLASS_PROFILE])
    wavy = radius + uneven
    glass = np.stack([np.interp(wavy, knots, colours[:, c]) for c in range(3)], axis=-1)
    glass = glass * batch_hue(rng, 0.12) * _glow(x, y, radius, pose.angle)[..., None]

    lip_half = (LIP_OUTER - LIP_INNER) / 2
    lip = ramp(np.abs(radius - LIP_MIDDLE), lip_half, 0.0)
    bead = np.exp(-(((radius - 0.60) / 0.02) ** 2))
    shoulder = 0.22 * np.sqrt(np.clip(1 - (radius / BODY_RADIUS) ** 2, 0.02, 1))
    on_lip = ramp(radius, LIP_INNER - 0.05, LIP_INNER + 0.03)
    height = 0.10 * lip + 0.02 * bead + shoulder * on_lip + 0.004 * smooth_noise(rng, size, (6, 6))
    table = paper_backdrop(rng, size, linear(0.95, 0.96, 0.96))
    return Surface(
        x=x,
        y=y,
        height=height,
        colour=glass * rng.uniform(0.9, 1.12),
        gloss=0.15 + 0.75 * on_lip,
        metal=0.0,
        cover=coverage(radius - BODY_RADIUS + uneven),
        backdrop=table,
    )


def _glow(x: np.ndarray, y: np.ndarray, radius: np.ndarray, angle: float) -> np.ndarray:
    """Return the brightness of the glass: light gathers on the far side and at two mould seams."""
    away = np.pi / 4 - angle  # The light comes from the image's upper left.
    far_side = ramp((x * np.cos(away) + y * np.sin(away)) / (radius + 0.05), -0.2, 1.0)
    on_shoulder = ramp(radius, 0.52, 0.56)
    seams = np.exp(-((y / 0.009) ** 2)) * on_shoulder
    return 0.85 + far_side * (0.35 + 0.75 * on_shoulder) + 0.35 * seams


def _place_on_ring(rng: np.random.Generator, radius: float) -> tuple[float, float, float]:
    """Draw a position on a ring around the centre: x, y and direction from the centre."""
    way = rng.uniform(0, 2 * np.pi)
    return radius * np.cos(way), radius * np.sin(way), way


def chipped_rim(surface: Surface, rng: np.random.Generator) -> Surface:
    """Chip the lip: shell-shaped, bright facets instead of the smooth ring."""
    x, y, _ = _place_on_ring(rng, rng.choice([LIP_OUTER - 0.02, LIP_INNER + 0.03]))
    distance = blob_distance(
        surface, rng, centre=(x, y), radius=rng.uniform(0.05, 0.12), ragged=0.35
    )
    chipped = coverage(distance)
    # Glass breaks in shells: ripples around the point of impact.
    struck = 1.2 * x, 1.2 * y
    ripples = np.sin(2 * np.pi * np.hypot(surface.x - struck[0], surface.y - struck[1]) / 0.045)
    facets = fractal_noise(rng, surface.size, (22, 22), octaves=2)
    tone = np.clip(1 + 0.45 * facets + 0.10 * ripples, 0.25, 2)
    broken = replace(
        surface, height=mix(surface.height, 0.2 + 0.012 * facets + 0.0015 * ripples, chipped)
    )
    return broken.painted(chipped, tone[..., None] * linear(0.58, 0.74, 0.62), gloss=0.9)


def crack(surface: Surface, rng: np.random.Generator) -> Surface:
    """Crack the glass from the lip outwards: a bright, jagged line."""
    x, y, way = _place_on_ring(rng, rng.uniform(0.46, 0.60))
    return with_crack(
        surface,
        rng,
        centre=(x, y),
        angle=way + rng.normal(0, 0.35),
        length=rng.uniform(0.25, 0.45),
        width=rng.uniform(0.012, 0.024),
        colour=linear(0.82, 0.92, 0.84),
    )


def contamination(surface: Surface, rng: np.random.Generator) -> Surface:
    """Drop dirt into the bottle: dark crumbs, or a fibre across the opening."""
    x, y, _ = _place_on_ring(rng, rng.uniform(0.02, 0.16))
    dirt = linear(0.16, 0.11, 0.08)
    if rng.random() < 0.4:
        fibre = bow(
            rng,
            centre=(x, y),
            length=rng.uniform(0.25, 0.42),
            angle=rng.uniform(0, np.pi),
            bend=rng.uniform(0.1, 0.45),
        )
        return surface.painted(0.9 * strip(*fibre.coordinates(surface), width=0.02), dirt)
    for _ in range(rng.integers(1, 5)):
        place = x + rng.normal(0, 0.06), y + rng.normal(0, 0.06)
        crumb = blob_distance(
            surface, rng, centre=place, radius=rng.uniform(0.022, 0.06), ragged=0.4
        )
        surface = surface.painted(0.93 * coverage(crumb, softness=0.015), dirt)
    return surface


DEFECTS = (chipped_rim, crack, contamination)
