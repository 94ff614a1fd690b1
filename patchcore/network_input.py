"""How a network expects its images."""

from dataclasses import dataclass

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class NetworkInput:
    """Preprocessing that a network was trained with.

    Attributes:
        mean: Mean of each RGB channel, in [0, 1].
        std: Standard deviation of each RGB channel, in [0, 1].
        interpolation: Interpolation of the resizing, ``bilinear`` or ``bicubic``.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"
