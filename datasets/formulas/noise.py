"""Random fields, in pixels: (S, S) float32."""

from __future__ import annotations

import math

import cv2
import numpy as np

SMOOTH_CELL = 8
"""OpenCV's warps place samples to 1/32 of a cell: larger cells are drawn small, then enlarged."""


def axes(size: int, *, angle: float = 0.0, shift: tuple[float, float] = (0, 0)):
    """Return x and y of each pixel in axes turned by ``angle`` radians, (S, S) float32 each."""
    row = np.arange(size, dtype=np.float32) - size / 2
    x, y = row[None, :] + np.float32(shift[0]), row[:, None] + np.float32(shift[1])
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def value_noise(
    rng: np.random.Generator, size: int, cell: float, *, stretch: float = 1.0, angle: float = 0.0
) -> np.ndarray:
    """Draw smooth noise, mean 0, deviation about 1.

    Args:
        rng: Where the values come from.
        size: S.
        cell: Distance of independent values, in pixels.
        stretch: How many times longer they are along the axis at ``angle``.
        angle: In radians.
    """
    shrink = max(1, int(cell / SMOOTH_CELL))
    small = -(-size // shrink)
    across, down = shrink / (cell * stretch), shrink / cell  # cells per drawn pixel
    reach = 1.5 * small
    lattice = rng.standard_normal(
        (math.ceil(reach * down) + 4, math.ceil(reach * across) + 4), dtype=np.float32
    )
    cos, sin = math.cos(angle), math.sin(angle)
    rows = np.array([[cos * across, sin * across], [-sin * down, cos * down]])
    middle = np.array([lattice.shape[1] / 2 + rng.random(), lattice.shape[0] / 2 + rng.random()])
    matrix = np.column_stack([rows, middle - 1 - rows @ [small / 2, small / 2]])
    drawn = cv2.warpAffine(
        lattice,
        matrix,
        (small, small),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    if shrink > 1:
        side = small * shrink
        drawn = cv2.resize(drawn, (side, side), interpolation=cv2.INTER_CUBIC)[:size, :size]
    return drawn * np.float32(1.3)


def fractal_noise(
    rng: np.random.Generator,
    size: int,
    cell: float,
    *,
    octaves: int,
    fall: float = 0.5,
    stretch: float = 1.0,
    angle: float = 0.0,
    folded: bool = False,
) -> np.ndarray:
    """Sum octaves of noise, each twice as fine and ``fall`` times as strong; deviation about 1.

    Folded, each octave is replaced by its absolute value: creases instead of hills.
    """
    total = np.zeros((size, size), np.float32)
    power = 0.0
    for octave in range(octaves):
        if octave and cell / 2**octave < 1:
            break
        layer = value_noise(rng, size, cell / 2**octave, stretch=stretch, angle=angle)
        total += np.float32(fall**octave) * ((np.abs(layer) - 0.8) * 1.6 if folded else layer)
        power += fall ** (2 * octave)
    return total / np.float32(math.sqrt(power))


def band_noise(
    rng: np.random.Generator,
    size: int,
    wavelength: float,
    *,
    width: float,
    aspect: float,
    angle: float,
) -> np.ndarray:
    """Draw noise of one wavelength, mean 0 and deviation 1: a labyrinth.

    Args:
        rng: Where the values come from.
        size: S.
        wavelength: In pixels.
        width: Of the band of frequencies, relative to its middle.
        aspect: Below 1, how many times longer the ripples are across ``angle``.
        angle: In radians.
    """
    frequency = np.fft.rfftfreq(size).astype(np.float32)[None, :]
    other = np.fft.fftfreq(size).astype(np.float32)[:, None]
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    along, across = cos * frequency + sin * other, (cos * other - sin * frequency) * aspect
    radius = np.sqrt(along**2 + across**2) * wavelength
    gain = np.exp(-(((radius - 1) / width) ** 2))
    white = np.fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
    field = np.fft.irfft2(white * gain, s=(size, size)).astype(np.float32)
    return field / (field.std() + 1e-6)


def unit(field: np.ndarray) -> np.ndarray:
    """Squeeze a field of mean 0 and deviation 1 into (0, 1)."""
    return 0.5 + 0.5 * np.tanh(0.8 * field)


def thrice(field: np.ndarray) -> np.ndarray:
    """Return a field as three equal channels, (S, S) to (S, S, 3).

    Arithmetic on it is several times as fast as broadcasting over a last axis of three.
    """
    return cv2.merge((field, field, field))
