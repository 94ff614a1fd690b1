"""A surface with its material, and the light and camera that turn it into an image."""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from datasets.synthetic.fields import gaussian, image_axes, mix, ramp, smooth_noise

AMBIENT_LIGHT = 0.42
SHININESS = 48
LENS_BLUR = 0.0045
SHOT_NOISE = 0.008
READ_NOISE = 0.004


def linear(red: float, green: float, blue: float) -> np.ndarray:
    """Convert a colour from display values (0 to 1) to linear light.

    A gamma of 2 is close to that of displays, and needs a square root instead of a power.
    """
    return np.array([red, green, blue], dtype=np.float32) ** 2


@dataclass(frozen=True)
class Surface:
    """Shape and material of each pixel in front of the camera.

    Attributes:
        x: (S, S) float32, coordinate to the right in the frame of the part, in half image widths.
        y: (S, S) float32, coordinate downwards.
        height: (S, S) float32, elevation towards the camera, in half image widths.
        colour: (S, S, 3) float32, reflected share of red, green and blue in linear light.
        gloss: (S, S) float32 or a scalar, strength of highlights from 0 (matte) to 1 (glazed).
        metal: (S, S) float32 or a scalar, 1 where the surface reflects the studio like metal.
        cover: (S, S) float32, 1 on the part, 0 outside; None if the part fills the image.
        backdrop: (S, S, 3) float32, colour outside the part; None if `cover` is None.
    """

    x: np.ndarray
    y: np.ndarray
    height: np.ndarray
    colour: np.ndarray
    gloss: np.ndarray | float
    metal: np.ndarray | float
    cover: np.ndarray | None = None
    backdrop: np.ndarray | None = None

    def __post_init__(self) -> None:
        # Scalars drawn from a generator are float64 and turn the arrays into float64.
        for name in ("x", "y", "height", "colour", "cover", "backdrop"):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, values.astype(np.float32, copy=False))
        for name in ("gloss", "metal"):
            values = np.asarray(getattr(self, name), dtype=np.float32)
            object.__setattr__(self, name, np.broadcast_to(values, self.height.shape))

    @property
    def size(self) -> int:
        """Side of the image in pixels."""
        return self.height.shape[0]

    def raised(self, by: np.ndarray) -> "Surface":
        """Return the surface with `by` added to its height."""
        return replace(self, height=self.height + by)

    def tinted(self, share: np.ndarray | float, hue: np.ndarray) -> "Surface":
        """Return the surface with its colour multiplied by `hue` in a `share` (0 to 1) of a pixel.

        `hue` is (3,) for the whole surface or (S, S, 3).
        """
        return replace(self, colour=self.colour * mix(1.0, hue, np.asarray(share)[..., None]))

    def painted(
        self, share: np.ndarray, colour: np.ndarray, *, gloss: float = 0.0, metal: float = 0.0
    ) -> "Surface":
        """Return the surface with another material on a `share` (0 to 1) of each pixel.

        `colour` is (3,) for the whole surface or (S, S, 3).
        """
        return replace(
            self,
            colour=mix(self.colour, colour, share[..., None]),
            gloss=mix(self.gloss, gloss, share),
            metal=mix(self.metal, metal, share),
        )

    def without(self, share: np.ndarray) -> "Surface":
        """Return the part with a `share` (0 to 1) of each pixel removed."""
        return replace(self, cover=self.cover * (1 - share))


@dataclass(frozen=True)
class Studio:
    """Light and camera settings of one image."""

    light: tuple[float, float, float]
    exposure: float
    white_balance: tuple[float, float, float]
    falloff: tuple[float, float]


def random_studio(rng: np.random.Generator) -> Studio:
    """Draw the settings: soft light from the upper left, and variations of the camera."""
    azimuth = np.deg2rad(rng.uniform(215, 245))
    elevation = np.deg2rad(rng.uniform(48, 60))
    return Studio(
        light=(
            float(np.cos(azimuth) * np.cos(elevation)),
            float(np.sin(azimuth) * np.cos(elevation)),
            float(np.sin(elevation)),
        ),
        exposure=rng.uniform(0.9, 1.08),
        white_balance=tuple(rng.uniform(0.98, 1.02, 3)),
        falloff=tuple(rng.uniform(-0.05, 0.05, 2)),
    )


def expose(surface: Surface, studio: Studio) -> np.ndarray:
    """Return the noise-free image of a surface: (S, S, 3) float32 display values, 0 to 1."""
    image = _lit(surface, studio)
    if surface.cover is not None:
        scenery = surface.backdrop * (1 - _shadow(surface.cover, studio))[..., None]
        image = mix(scenery, image, surface.cover[..., None])
    image *= _illumination(surface.size, studio)[..., None]
    image *= np.array(studio.white_balance, dtype=np.float32) * studio.exposure
    return gaussian(np.sqrt(_shoulder(image)), LENS_BLUR)


def add_sensor_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add shot and read noise to display values; return (S, S, 3) uint8.

    Shot noise grows with the square root of the light. After the square root of the display values
    its standard deviation is the same at every brightness.
    """
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    shared = rng.standard_normal(image.shape[:2], dtype=np.float32)[..., None]
    noisy = image + READ_NOISE * grain + SHOT_NOISE * shared
    return (np.clip(noisy, 0, 1) * 255 + 0.5).astype(np.uint8)


def _lit(surface: Surface, studio: Studio) -> np.ndarray:
    slope_x, slope_y = slopes(surface.height)
    steepness = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    normal = (-slope_x * steepness, -slope_y * steepness, steepness)

    light_x, light_y, light_z = studio.light
    diffuse = _toward(normal, studio.light) / light_z
    brightness = AMBIENT_LIGHT * _openness(surface.height) + (1 - AMBIENT_LIGHT) * diffuse
    brightness = mix(brightness, _reflected_studio(normal, studio), surface.metal)

    # The camera looks straight down: all pixels have the same half-way direction.
    length = math.hypot(light_x, light_y, light_z + 1)
    half_way = light_x / length, light_y / length, (light_z + 1) / length
    highlight = _toward(normal, half_way) ** SHININESS
    return surface.colour * brightness[..., None] + (surface.gloss * highlight)[..., None]


def slopes(height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivatives of the height along x and y (no unit)."""
    scale = height.shape[0] / 2 / 32  # Scharr weighs 32; a pixel is 2 / S wide.
    return (
        cv2.Scharr(height, cv2.CV_32F, 1, 0, scale=scale),
        cv2.Scharr(height, cv2.CV_32F, 0, 1, scale=scale),
    )


def _toward(
    normal: tuple[np.ndarray, np.ndarray, np.ndarray], direction: tuple[float, float, float]
) -> np.ndarray:
    """Return the cosine between normal and direction; 0 if it is negative."""
    cosine = sum(n * d for n, d in zip(normal, direction, strict=True))
    return np.maximum(cosine, 0)


def _openness(height: np.ndarray) -> np.ndarray:
    """Return the share of ambient light at each pixel: less in grooves than on ridges."""
    return np.clip(1 + 9 * (height - gaussian(height, 0.035)), 0.25, 1.25)


def _reflected_studio(
    normal: tuple[np.ndarray, np.ndarray, np.ndarray], studio: Studio
) -> np.ndarray:
    """Return the brightness that a mirror reflects: a bright softbox, a dim room, a dark floor."""
    light_x, light_y, _ = studio.light
    length = math.hypot(light_x, light_y)
    lean = (light_x * normal[0] + light_y * normal[1]) / length
    side = (light_x * normal[1] - light_y * normal[0]) / length
    room = 0.28 + 0.62 * ramp(lean + 0.25 * side, -0.75, 0.5)
    softbox = 0.75 * ramp(lean, 0.12, 0.34) * ramp(lean, 0.8, 0.5)
    window = 0.35 * ramp(side, 0.3, 0.5) * ramp(side, 0.85, 0.6)
    return room + softbox + window


def _shadow(cover: np.ndarray, studio: Studio) -> np.ndarray:
    """Return the share of light that the part blocks from the backdrop."""
    size = cover.shape[0]
    dx, dy = (-0.055 * size / 2 * d / studio.light[2] for d in studio.light[:2])
    shifted = cv2.warpAffine(cover, np.float32([[1, 0, dx], [0, 1, dy]]), (size, size))
    return 0.38 * gaussian(shifted, 0.05) + 0.3 * gaussian(cover, 0.018)


def _illumination(size: int, studio: Studio) -> np.ndarray:
    """Return the fall-off of the light and the vignette of the lens."""
    across, down = image_axes(size)
    vignette = 1 - 0.07 * (across**2 + down**2)
    return vignette * (1 + studio.falloff[0] * across + studio.falloff[1] * down)


def _shoulder(light: np.ndarray) -> np.ndarray:
    """Compress the brightest values so that highlights fade softly instead of clipping."""
    excess = np.maximum(light - 0.7, 0)
    return np.minimum(light, 0.7) + excess / (1 + excess * (1 / 0.3))


def batch_hue(rng: np.random.Generator, spread: float) -> np.ndarray:
    """Draw the hue of a batch of material: RGB factors (3,) around 1."""
    return np.array([1 + rng.uniform(-spread, spread), 1, 1 + rng.uniform(-spread, spread)])


def paper_backdrop(rng: np.random.Generator, size: int, colour: np.ndarray) -> np.ndarray:
    """Return matte, finely grained paper of one colour: (S, S, 3) linear light.

    The brightness of the sheet varies between images.
    """
    grain = smooth_noise(rng, size, (120, 120))
    tone = rng.uniform(0.93, 1.07) * (1 + 0.014 * grain)
    return tone[..., None] * colour
