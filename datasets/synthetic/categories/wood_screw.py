"""Wood screw: the good surface and its damage."""

from dataclasses import replace

import numpy as np

from datasets.synthetic.defects import blob_distance, with_bite
from datasets.synthetic.fields import coverage, fractal_noise, mix, ramp, random_pose, smooth_noise
from datasets.synthetic.surface import Surface, batch_hue, linear, paper_backdrop

SCREW_HEAD, SCREW_TIP = -0.74, 0.74
THREAD_START, TAPER_START = -0.26, 0.44
SCREW_PITCH = 0.082
SCREW_CORE, SCREW_CREST = 0.062, 0.108
SCREW_COLOUR = linear(0.84, 0.72, 0.44)


def make_surface(rng: np.random.Generator, size: int) -> Surface:
    """Return a yellow-zinc countersunk screw at any angle on light grey card."""
    x, y = random_pose(rng, max_angle=np.pi, max_shift=0.05).coordinates(size)
    cover, height = _screw_body(x, y, thread=1.0)
    plating = fractal_noise(rng, size, (10, 10), octaves=4)
    colour = (1 + 0.05 * plating)[..., None] * SCREW_COLOUR
    card = paper_backdrop(rng, size, linear(0.74, 0.77, 0.80))
    return Surface(
        x=x,
        y=y,
        height=height,
        colour=colour * batch_hue(rng, 0.05),
        gloss=0.25,
        metal=1.0,
        cover=cover,
        backdrop=card,
    )


def _screw_body(
    x: np.ndarray, y: np.ndarray, *, thread: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Return cover and height of a screw along x; `thread` (0 to 1) scales the thread's depth."""
    # A helix seen from the side: its ridges are slanted, half a turn between the silhouettes.
    turns = x / SCREW_PITCH + 0.25 * np.clip(y / SCREW_CREST, -1, 1)
    crest = (0.5 + 0.5 * np.cos(2 * np.pi * turns)) ** 2
    threaded = ramp(x, THREAD_START, THREAD_START + 0.06)
    taper = np.sqrt(np.clip((SCREW_TIP - x) / (SCREW_TIP - TAPER_START), 0, 1))
    shank = mix(0.086, SCREW_CORE + (SCREW_CREST - SCREW_CORE) * crest * thread, threaded)
    cone = np.interp(x, [SCREW_HEAD, SCREW_HEAD + 0.035, -0.54, -0.50], [0.20, 0.205, 0.092, 0.086])
    radius = np.where(x < -0.50, cone, shank * taper)
    distance = np.maximum(np.abs(y) - radius, np.maximum(SCREW_HEAD - x, x - SCREW_TIP + 0.012))
    height = np.sqrt(np.clip(radius**2 - y**2, 0.0004, None))
    return coverage(distance), height


def broken_tip(surface: Surface, rng: np.random.Generator) -> Surface:
    """Break the point off."""
    at = rng.uniform(0.36, 0.64)
    jagged = 0.02 * smooth_noise(rng, surface.size, (30, 30)) + rng.normal(0, 0.4) * surface.y
    distance = at + jagged - surface.x
    return with_bite(surface, rng, distance, colour=linear(0.50, 0.49, 0.48))


def stripped_thread(surface: Surface, rng: np.random.Generator) -> Surface:
    """Wear the thread down over some turns: flattened ridges, bare steel."""
    middle, half = rng.uniform(-0.1, 0.38), rng.uniform(0.07, 0.17)
    worn = ramp(np.abs(surface.x - middle), half + 0.03, half - 0.03) * rng.uniform(0.65, 1)
    cover, height = _screw_body(surface.x, surface.y, thread=1 - worn)
    rough = fractal_noise(rng, surface.size, (40, 40), octaves=2)
    stripped = replace(surface, cover=cover, height=height + 0.003 * rough * worn)
    bare = (1 + 0.15 * rough)[..., None] * linear(0.62, 0.60, 0.57)
    return stripped.painted(0.6 * worn, bare, gloss=0.2, metal=1.0)


def rust(surface: Surface, rng: np.random.Generator) -> Surface:
    """Add one to three spots of rust."""
    for _ in range(rng.integers(1, 4)):
        along = rng.uniform(-0.66, 0.5)
        place = along, rng.uniform(-0.05, 0.05)
        surface = _with_rust_spot(surface, rng, place, rng.uniform(0.06, 0.14))
    return surface


def _with_rust_spot(
    surface: Surface, rng: np.random.Generator, centre: tuple[float, float], radius: float
) -> Surface:
    """Corrode a speckled spot: dull, rough and brown, densest in the middle."""
    size = surface.size
    distance = blob_distance(surface, rng, centre=centre, radius=radius, ragged=0.35)
    speckle = fractal_noise(rng, size, (28, 28), octaves=3)
    corroded = ramp(0.42 * speckle - distance / radius, -0.15, 0.45) * ramp(
        distance, 0.5 * radius, 0.25 * radius
    )
    tone = np.clip(1 + 0.45 * fractal_noise(rng, size, (40, 40), octaves=2), 0.3, 2.2)
    rough = surface.raised(0.004 * speckle * corroded)
    return rough.painted(0.92 * corroded, tone[..., None] * linear(0.47, 0.24, 0.10))


DEFECTS = (broken_tip, stripped_thread, rust)
