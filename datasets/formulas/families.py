"""Families of textures: each reads a class's numbers and returns what draws that class.

A drawing is a field of tones, (S, S) float32 from 0 to 1, which a material then colours. The
class's numbers say what all its drawings share; the generator given to the drawing says where
things happen to lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from scipy.spatial import cKDTree

from datasets.formulas.dial import Dial
from datasets.formulas.noise import axes, band_noise, fractal_noise, unit, value_noise

Draw = Callable[[np.random.Generator, int], np.ndarray]
"""(rng, S) -> tones (S, S) float32, 0 to 1."""

Family = Callable[[Dial], Draw]


def plain(dial: Dial) -> Draw:
    """Nearly one tone, with weak clouds."""
    tone, strength, cell = dial.between(0, 1), dial.between(0, 0.08), dial.scale(20, 90)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        return np.clip(tone + strength * value_noise(rng, size, cell), 0, 1)

    return draw


def clouds(dial: Dial) -> Draw:
    """Octaves of noise, stretched or not, soft or with hard edges."""
    cell, fall, octaves = dial.scale(5, 60), dial.between(0.4, 0.95), dial.whole(2, 5)
    stretch, angle = (dial.scale(1.5, 8) if dial.chance(0.4) else 1.0), dial.between(0, math.pi)
    sharp = dial.scale(0.7, 6)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        field = fractal_noise(
            rng, size, cell, octaves=octaves, fall=fall, stretch=stretch, angle=angle
        )
        return unit(sharp * field)

    return draw


def creases(dial: Dial) -> Draw:
    """Folded noise: leather, crumpled paper, marble's veins."""
    cell, fall, octaves = dial.scale(8, 50), dial.between(0.4, 0.8), dial.whole(2, 4)
    power, warp = dial.scale(0.5, 4), dial.between(0, 12)
    stretch, angle = dial.scale(1, 3), dial.between(0, math.pi)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        field = fractal_noise(
            rng,
            size,
            cell,
            octaves=octaves,
            fall=fall,
            stretch=stretch,
            angle=angle,
            folded=True,
        )
        field = _warped(rng, field, warp, 2 * cell)
        return np.clip(0.35 + 0.3 * field, 0, 1) ** np.float32(power)

    return draw


def labyrinth(dial: Dial) -> Draw:
    """Noise of one wavelength: ripples, coral, fingerprints."""
    wavelength, width = dial.scale(5, 32), dial.scale(0.08, 0.5)
    aspect, angle = dial.scale(0.3, 1), dial.between(0, math.pi)
    sharp, level = dial.scale(0.7, 8), dial.between(-0.6, 0.6)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        field = band_noise(rng, size, wavelength, width=width, aspect=aspect, angle=angle)
        return unit(sharp * (field - level))

    return draw


def stripes(dial: Dial) -> Draw:
    """Lines of one profile, straight or wavy, with a finer line between."""
    wavelength, angle = dial.scale(4, 40), dial.between(0, math.pi)
    profile, duty = dial.choose(("sine", "saw", "bar", "pair")), dial.between(0.2, 0.8)
    wave, wave_cell = (dial.between(0.5, 8) if dial.chance(0.6) else 0), dial.scale(16, 90)
    rough = dial.between(0, 0.3)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        x, _ = axes(size, angle=angle, shift=tuple(rng.uniform(-50, 50, 2)))
        x = x + wave * value_noise(rng, size, wave_cell)
        tone = _profile(x / wavelength, profile, duty, soft=1.5 / wavelength)
        return np.clip(tone + rough * value_noise(rng, size, 3), 0, 1)

    return draw


def lattice(dial: Dial) -> Draw:
    """Meshes, dots and checks: two or three sets of lines together."""
    wavelength, angle = dial.scale(6, 36), dial.between(0, math.pi)
    ratio, sets = dial.scale(0.6, 1.6), dial.whole(2, 3)
    how, duty = dial.choose(("most", "least", "product", "parity")), dial.between(0.2, 0.8)
    profile = dial.choose(("sine", "bar"))
    skew, wave = dial.between(-0.3, 0.3), (dial.between(0.5, 4) if dial.chance(0.5) else 0)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        shift = tuple(rng.uniform(-50, 50, 2))
        tones = []
        for index in range(sets):
            turn = angle + index * (math.pi / sets) + (skew if index else 0)
            x, _ = axes(size, angle=turn, shift=shift)
            x = x + wave * value_noise(rng, size, 40)
            length = wavelength * (ratio if index else 1)
            tones.append(_profile(x / length, profile, duty, soft=1.5 / length))
        if how == "most":
            return np.maximum.reduce(tones)
        if how == "least":
            return np.minimum.reduce(tones)
        if how == "product":
            return np.prod(tones, axis=0) ** np.float32(1 / sets)
        return np.abs(tones[0] - tones[1])

    return draw


def weave(dial: Dial) -> Draw:
    """Threads over and under: cloth, wire, baskets."""
    pitch, ratio, angle = dial.scale(6, 26), dial.scale(0.6, 1.6), dial.between(0, math.pi)
    steps, round_share = dial.whole(1, 3), dial.between(0.3, 1)
    contrast, fray = dial.between(0, 0.6), dial.between(0, 0.25)
    wave = dial.between(0, 2)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        x, y = axes(size, angle=angle, shift=tuple(rng.uniform(-50, 50, 2)))
        x = (x + wave * value_noise(rng, size, 30)) / pitch
        y = (y + wave * value_noise(rng, size, 30)) / (pitch * ratio)
        column, row = np.floor(x), np.floor(y)
        over = np.mod(column + steps * row, steps + 1) < 1
        across_warp, across_weft = np.abs(x - column - 0.5) * 2, np.abs(y - row - 0.5) * 2
        warp = (1 - round_share * across_warp**2) * (1 - 0.5 * across_weft**2)
        weft = (1 - round_share * across_weft**2) * (1 - 0.5 * across_warp**2)
        tone = np.where(over, warp, weft * (1 - contrast))
        tone = cv2.GaussianBlur(tone.astype(np.float32), (0, 0), 0.7)
        return np.clip(tone * 0.9 + fray * value_noise(rng, size, 2), 0, 1)

    return draw


def cells(dial: Dial) -> Draw:
    """Cells about points, from a regular pavement to foam: tiles, scales, grains."""
    pitch, jitter = dial.scale(7, 44), dial.between(0, 0.75)
    aspect, angle = dial.scale(1, 2.2), dial.between(0, math.pi)
    joint, dome, tones = dial.between(0.02, 0.2), dial.between(0, 1), dial.between(0, 0.7)
    stagger = dial.choose((0.0, 0.5))

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        x, y = axes(size, angle=angle, shift=tuple(rng.uniform(-pitch, pitch, 2)))
        places = np.stack([x / (pitch * aspect), y / pitch], -1).reshape(-1, 2)
        points = _jittered_points(rng, places, jitter, stagger)
        near, which = cKDTree(points).query(places, k=2)
        border = ((near[:, 1] - near[:, 0]) * 0.5).astype(np.float32)
        tone = 1 - tones * rng.random(len(points), dtype=np.float32)[which[:, 0]]
        tone *= 1 - dome * np.clip(near[:, 0].astype(np.float32) * 1.4, 0, 1) ** 2
        tone *= np.clip(border / joint, 0, 1)
        return cv2.GaussianBlur(tone.reshape(size, size), (0, 0), 0.6)

    return draw


def leaves(dial: Dial) -> Draw:
    """Overlapping discs, ellipses or bars, large ones and small: gravel, seeds, flakes."""
    largest, spread = dial.scale(4, 26), dial.scale(1, 5)
    aspect, kind = dial.scale(1, 6), dial.choose(("ellipse", "bar", "ring"))
    angle, turning = dial.between(0, math.pi), dial.choose((0.15, 0.6, math.pi))
    dense, low = dial.scale(0.4, 3), dial.between(0, 0.6)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        tone = np.full((size, size), np.float32(rng.uniform(0, 0.3)))
        count = min(int(dense * size**2 * aspect / (largest**2 * 1.5)), 2500)
        radii = largest * spread ** -rng.random(count)
        for radius, (column, row), turn, value in zip(
            radii,
            rng.uniform(-8, size + 8, (count, 2)),
            angle + turning * rng.uniform(-1, 1, count),
            rng.uniform(low, 1, count),
            strict=True,
        ):
            _stamp(tone, kind, (column, row), (radius, radius / aspect), turn, float(value))
        return cv2.GaussianBlur(tone, (0, 0), 0.6)

    return draw


def fibres(dial: Dial) -> Draw:
    """Thin, bent lines: hair, felt, scratches, straw."""
    length, bend = dial.scale(12, 120), dial.between(0, 1.5)
    angle, turning = dial.between(0, math.pi), dial.choose((0.1, 0.5, math.pi))
    thickness, dense, low = dial.whole(1, 3), dial.scale(0.3, 3), dial.between(0, 0.7)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        tone = np.full((size, size), np.float32(0.2))
        count = min(int(dense * size**2 / (length * thickness * 2)), 2000)
        along = np.linspace(-0.5, 0.5, 7)[None, :]
        turn = (angle + turning * rng.uniform(-1, 1, count))[:, None]
        turn = turn + bend * rng.uniform(-1, 1, count)[:, None] * along
        middle = rng.uniform(-10, size + 10, (count, 1, 2))
        lines = middle + length * np.stack([np.cos(turn) * along, np.sin(turn) * along], -1)
        for line, value in zip(np.int32(lines * 8), rng.uniform(low, 1, count), strict=True):
            cv2.polylines(tone, [line], False, float(value), thickness, cv2.LINE_AA, 3)
        return cv2.GaussianBlur(tone, (0, 0), 0.5)

    return draw


def wood(dial: Dial) -> Draw:
    """Rings cut lengthwise, and fine fibre along them."""
    pitch, angle = dial.scale(6, 40), dial.between(0, math.pi)
    wave, stretch, fibre = dial.between(2, 24), dial.scale(3, 14), dial.between(0.05, 0.5)
    early, grain = dial.between(0.3, 0.9), dial.scale(1.2, 4)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        _, y = axes(size, angle=angle, shift=tuple(rng.uniform(-99, 99, 2)))
        rings = y + wave * value_noise(rng, size, 50, stretch=stretch / 2, angle=angle)
        tone = _profile(rings / pitch, "saw", early, soft=2 / pitch)
        streak = value_noise(rng, size, grain, stretch=3 * stretch, angle=angle)
        return np.clip(0.2 + 0.6 * tone + fibre * streak, 0, 1)

    return draw


def brushed(dial: Dial) -> Draw:
    """Strokes in one direction: brushed metal, drawn plaster, bark."""
    fine, stretch, angle = dial.scale(1, 6), dial.scale(8, 60), dial.between(0, math.pi)
    coarse, share = dial.scale(6, 30), dial.between(0, 1)
    strength = dial.scale(0.3, 2)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        strokes = value_noise(rng, size, fine, stretch=stretch, angle=angle)
        wide = value_noise(rng, size, coarse, stretch=stretch / 3, angle=angle)
        return unit(strength * ((1 - share) * strokes + share * wide))

    return draw


def network(dial: Dial) -> Draw:
    """A random network of sines over place, waves and noise: anything between."""
    rng_class = dial.generator()
    inputs, hidden = 12, 12
    first = rng_class.normal(0, 1.9 / math.sqrt(inputs), (inputs, hidden)).astype(np.float32)
    second = rng_class.normal(0, 1.6 / math.sqrt(hidden), (hidden, 3)).astype(np.float32)
    bias = rng_class.normal(0, 0.7, hidden).astype(np.float32)
    lengths, turns = [dial.scale(5, 60) for _ in range(5)], [dial.between(0, 6.3) for _ in range(5)]
    sharp = dial.scale(0.6, 6)
    amounts = [dial.between(0, s) for s in (1.5, 1.2, 0.8, 0.5)]

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        shift = tuple(rng.uniform(-50, 50, 2))
        parts = []
        for length, turn in zip(lengths, turns, strict=True):
            x, _ = axes(size, angle=turn, shift=shift)
            parts.append(np.sin(x * (2 * math.pi / length)))
        parts += [parts[0] * parts[1], parts[2] * parts[3], parts[3] * parts[4]]
        for amount, cell in zip(amounts, (40, 18, 9, 4), strict=True):
            parts.append(amount * value_noise(rng, size, cell))
        values = np.sin(np.stack(parts, -1) @ first + bias)
        return 0.5 + 0.5 * np.tanh((values @ second)[..., 0] * np.float32(sharp))

    return draw


def julia(dial: Dial) -> Draw:
    """Escape times of a quadratic map: self-similar spirals and filaments."""
    turn, radius = dial.between(0, 2 * math.pi), dial.between(0.95, 1.08)
    # Just outside the main cardioid, where the sets are richest.
    c = radius * (0.5 * np.exp(1j * turn) - 0.25 * np.exp(2j * turn))
    zoom, rate = dial.scale(0.15, 0.8), dial.scale(1, 5)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        # Going backwards from anywhere ends on the set's border, where there is most to see.
        middle = 0j
        for sign in rng.choice((-1, 1), 30):
            middle = sign * np.sqrt(middle - c)
        x, y = axes(size, angle=rng.uniform(-0.3, 0.3))
        scale = 2 * zoom * rng.uniform(0.8, 1.25) / size
        z = (x * scale + 1j * (y * scale) + middle).astype(np.complex64)
        count = np.zeros((size, size), np.float32)
        inside = np.ones((size, size), bool)
        for _ in range(28):
            z = np.where(inside, z * z + np.complex64(c), z)
            inside &= (z.real**2 + z.imag**2) < 16
            count += inside
        smooth = count + np.where(inside, 0, 1 - np.log2(np.log(np.abs(z) + 1.01) + 1e-3))
        return 0.5 + 0.5 * np.sin(np.float32(0.5 * rate) * smooth.astype(np.float32))

    return draw


def interference(dial: Dial) -> Draw:
    """Plane waves of one length in several directions: quasicrystals, moire."""
    wavelength, count, turn = dial.scale(6, 30), dial.whole(3, 7), dial.between(0, math.pi)
    spread, sharp = dial.choose((1.0, 1.0, 0.3, 0.12)), dial.scale(0.5, 5)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        total = np.zeros((size, size), np.float32)
        for index, phase in enumerate(rng.uniform(0, 2 * math.pi, count)):
            x, _ = axes(size, angle=turn + spread * math.pi * index / count)
            total += np.sin(x * (2 * math.pi / wavelength) + np.float32(phase))
        return unit(total * np.float32(1.4 * sharp / math.sqrt(count)))

    return draw


def rings(dial: Dial) -> Draw:
    """Circles about a few centres: turned metal, ripples, records."""
    pitch, centres, far = dial.scale(4, 24), dial.whole(1, 3), dial.scale(0.3, 2)
    profile, duty = dial.choose(("sine", "saw", "bar")), dial.between(0.25, 0.75)
    wave, rough = dial.between(0, 4), dial.between(0, 0.25)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        x, y = axes(size)
        distance = np.full((size, size), np.float32(1e9))
        for column, row in rng.uniform(-far * size / 2, far * size / 2, (centres, 2)):
            distance = np.minimum(distance, np.hypot(x - np.float32(column), y - np.float32(row)))
        distance = distance + wave * value_noise(rng, size, 36)
        tone = _profile(distance / pitch, profile, duty, soft=1.5 / pitch)
        return np.clip(tone + rough * value_noise(rng, size, 2.5), 0, 1)

    return draw


def truchet(dial: Dial) -> Draw:
    """Tiles of arcs or diagonals, turned at random: knots, mazes, circuits."""
    tile, width = dial.scale(8, 36), dial.between(0.12, 0.4)
    kind, angle, even = dial.choose(("arc", "diagonal")), dial.between(0, math.pi), dial.chance(0.3)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        x, y = axes(size, angle=angle, shift=tuple(rng.uniform(-50, 50, 2)))
        x, y = x / tile, y / tile
        column, row = np.floor(x).astype(int), np.floor(y).astype(int)
        x, y = (x - column).astype(np.float32), (y - row).astype(np.float32)
        flips = rng.random((97, 89)) < (0.85 if even else 0.5)
        x = np.where(flips[row % 97, column % 89], x, 1 - x)
        if kind == "arc":
            distance = np.minimum(
                np.abs(np.hypot(x, y) - 0.5), np.abs(np.hypot(1 - x, 1 - y) - 0.5)
            )
        else:
            distance = np.abs(x - y) * np.float32(0.7)
        return np.clip((width / 2 - distance) * tile / 1.5 + 0.5, 0, 1).astype(np.float32)

    return draw


def glyphs(dial: Dial) -> Draw:
    """One small random sign, printed again and again: type, stampings, circuit boards."""
    rng_class = dial.generator()
    sign = (rng_class.random((7, 5)) < 0.5).astype(np.float32)
    if dial.chance(0.5):
        sign = np.maximum(sign, sign[:, ::-1])
    pixel, angle = dial.scale(2, 7), dial.between(-0.5, 0.5) + math.pi * dial.whole(0, 1) / 2
    gap, drop, stagger = dial.scale(1, 4), dial.between(0, 0.4), dial.between(0, 3)
    soft = dial.between(0.5, 1.5)

    def draw(rng: np.random.Generator, size: int) -> np.ndarray:
        x, y = axes(size, angle=angle, shift=tuple(rng.uniform(-50, 50, 2)))
        height, width = sign.shape[0] + gap, sign.shape[1] + gap
        row = np.floor(y / (pixel * height)).astype(int)
        x = x / pixel + stagger * row
        column = np.floor(x / width).astype(int)
        across, down = x - column * width, y / pixel - row * height
        inside = (across < sign.shape[1]) & (down < sign.shape[0])
        tone = sign[
            np.minimum(down.astype(int), sign.shape[0] - 1),
            np.minimum(across.astype(int), sign.shape[1] - 1),
        ]
        kept = rng.random((97, 89)) >= drop
        tone = np.where(inside & kept[row % 97, column % 89], tone, 0).astype(np.float32)
        return cv2.GaussianBlur(tone, (0, 0), soft)

    return draw


FAMILIES: tuple[Family, ...] = (
    clouds,
    creases,
    labyrinth,
    stripes,
    lattice,
    weave,
    cells,
    leaves,
    fibres,
    wood,
    brushed,
    network,
    julia,
    interference,
    rings,
    truchet,
    glyphs,
    plain,
)


def _profile(phase: np.ndarray, profile: str, duty: float, *, soft: float) -> np.ndarray:
    """Return the tone along lines that repeat with every whole number of ``phase``."""
    if profile == "sine":
        return 0.5 + 0.5 * np.sin(2 * math.pi * phase)
    t = phase - np.floor(phase)
    if profile == "saw":
        return np.where(t < duty, t / duty, (1 - t) / (1 - duty)) ** np.float32(1.5)
    bar = np.clip((duty / 2 - np.abs(t - 0.5)) / soft + 0.5, 0, 1)
    if profile == "bar":
        return bar
    return np.maximum(bar, 0.6 * np.clip((0.08 - np.minimum(t, 1 - t)) / soft + 0.5, 0, 1))


def _warped(rng: np.random.Generator, field: np.ndarray, by: float, cell: float) -> np.ndarray:
    """Fetch each pixel from up to about ``by`` pixels beside it."""
    size = field.shape[0]
    pixels = np.arange(size, dtype=np.float32)
    dx, dy = (np.float32(by) * value_noise(rng, size, cell) for _ in range(2))
    return cv2.remap(
        field,
        pixels[None, :] + dx,
        pixels[:, None] + dy,
        cv2.INTER_LINEAR,
        None,
        cv2.BORDER_REFLECT,
    )


def _jittered_points(
    rng: np.random.Generator, places: np.ndarray, jitter: float, stagger: float
) -> np.ndarray:
    """Return one point for each unit cell that the places (P, 2) reach, and a margin."""
    low, high = np.floor(places.min(0)) - 2, np.ceil(places.max(0)) + 2
    columns, rows = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
    columns = columns + stagger * np.mod(rows, 2)
    points = np.stack([columns, rows], -1).reshape(-1, 2)
    return points + jitter * rng.uniform(-0.5, 0.5, points.shape)


def _stamp(tone: np.ndarray, kind: str, middle, radii, turn: float, value: float) -> None:
    """Draw one leaf into the tones."""
    box = (
        tuple(map(float, middle)),
        (2 * float(radii[0]), 2 * float(radii[1])),
        math.degrees(turn),
    )
    if kind == "bar":
        cv2.fillConvexPoly(tone, np.int32(cv2.boxPoints(box) * 8), value, cv2.LINE_AA, 3)
    else:
        cv2.ellipse(tone, box, value, -1 if kind == "ellipse" else 2, cv2.LINE_AA)
