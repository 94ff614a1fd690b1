"""Feature maps of an image at several sizes, for details and their surroundings."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from patchcore.backbone import Backbone, trial_images
from patchcore.errors import PatchCoreError, first_line
from patchcore.layout import TOKENS


class Scales:
    """Runs a backbone on images at several sizes.

    The receptive field of a layer is fixed in pixels: in a larger image it shows finer details and
    less of the surroundings. Together with the maps of a smaller image, a patch embedding
    holds both.

    Args:
        sizes: (H, W) in pixels of each scale, the crop itself first.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]]):
        self.sizes = tuple(sizes)

    @classmethod
    def of(cls, size: tuple[int, int], factors: Sequence[float], backbone: Backbone) -> "Scales":
        """Return the scales of a crop (H, W) by factors, the largest, 1, first.

        Raises:
            PatchCoreError: the backbone takes only one size of images.
        """
        height, width = size
        scales = cls([(round(height * factor), round(width * factor)) for factor in factors])
        scales._check(backbone)
        return scales

    def maps(
        self, network: Callable[[torch.Tensor], Sequence[torch.Tensor]], images: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return the layers' maps (B, C, h, w) at the first scale, then those at each other.

        Args:
            network: Maps images to the layers' maps.
            images: (B, 3, H, W), normalised.
        """
        maps = []
        for size in self.sizes:
            maps += network(_resized(images, size))
        return maps

    def _check(self, backbone: Backbone) -> None:
        if any(layer.axes == TOKENS for layer in backbone.layouts):
            raise PatchCoreError(
                "expected scales 1 with a vision transformer, which is built for one size of "
                f"images, found {len(self.sizes)} scales (scales, backbone)"
            )
        for size in self.sizes[1:]:
            try:
                with torch.inference_mode():
                    backbone.for_trials()(trial_images(backbone, size))
            # A user's network may raise any exception.
            except Exception as error:
                raise PatchCoreError(
                    f"the backbone cannot take images of {size[0]}x{size[1]} pixels: "
                    f"{first_line(error)} (scales, size_crop)"
                ) from error


def _resized(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if images.shape[2:] == size:
        return images
    # In float32: torch has no such filter for half precision on a CPU.
    small = F.interpolate(
        images.float(), size, mode="bilinear", antialias=True, align_corners=False
    )
    return small.to(images.dtype, memory_format=torch.channels_last)
