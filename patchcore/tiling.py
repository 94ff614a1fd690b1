"""Overlapping tiles of large images: each tile goes through the network, their maps are joined."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, product

import torch

from patchcore.errors import PatchCoreError


class Tiling:
    """Feature maps of an image from those of its tiles (SuperADD, Roming et al. 2026).

    Tiles are evenly spread and overlap by at least ``overlap`` pixels. Where two overlap, each
    provides the half on its own side, so a feature comes from at least half an overlap inside its
    tile, but for the image's border. The joined maps equal those of the whole image where the
    receptive field is no larger than that. They are joined before the patch embedding, which
    therefore sees no seam.

    Args:
        size: (H, W) in pixels of the images.
        tile: Side of a tile in pixels.
        overlap: Smallest overlap of neighbouring tiles in pixels.
        grids: (h, w) of each layer's map of a tile.

    Attributes:
        grids: (h, w) of each layer's joined map.

    Raises:
        PatchCoreError: the layers' grids do not divide the tile, or the sizes are no multiples of
            all strides.
    """

    def __init__(
        self,
        size: tuple[int, int],
        tile: int,
        overlap: int,
        grids: Sequence[tuple[int, int]],
    ):
        if any(tile % length for grid in grids for length in grid):
            shown = ", ".join(f"{height}x{width}" for height, width in grids)
            raise PatchCoreError(
                f"expected layers with grids that divide a tile of {tile} pixels, found {shown} "
                "(tile, layers)"
            )
        strides = [tile // height for height, _ in grids]
        unit = math.lcm(*strides)
        for name, length in (("size_crop", size[0]), ("size_crop", size[1]), ("overlap", overlap)):
            if length % unit:
                raise PatchCoreError(
                    f"expected {name} to be a multiple of {unit} pixels with tile {tile}, the "
                    f"least common multiple of the layers' strides, found {length} ({name}, tile, "
                    "layers)"
                )
        self._tile, self._unit, self._strides = tile, unit, strides
        self._rows, self._columns = (
            _spread(length // unit, tile // unit, overlap // unit) for length in size
        )
        self.grids = tuple((size[0] // stride, size[1] // stride) for stride in strides)

    def maps(
        self, network: Callable[[torch.Tensor], Sequence[torch.Tensor]], images: torch.Tensor
    ) -> list[torch.Tensor]:
        """Return the joined map (B, C, h, w) of each layer.

        Args:
            network: Maps tiles (B, 3, tile, tile) to the layers' maps.
            images: (B, 3, H, W), normalised.
        """
        rows: list[list[list[torch.Tensor]]] = [[] for _ in self._rows]
        for (number, (top, *kept_rows)), (left, *kept_columns) in product(
            enumerate(self._rows), self._columns
        ):
            y, x = top * self._unit, left * self._unit
            found = network(images[:, :, y : y + self._tile, x : x + self._tile])
            rows[number].append(
                [
                    layer_map[:, :, self._part(kept_rows, stride), self._part(kept_columns, stride)]
                    for layer_map, stride in zip(found, self._strides, strict=True)
                ]
            )
        joined_rows = [
            [torch.cat(parts, dim=3) for parts in zip(*row, strict=True)] for row in rows
        ]
        return [torch.cat(parts, dim=2) for parts in zip(*joined_rows, strict=True)]

    def _part(self, kept: Sequence[int], stride: int) -> slice:
        """Return the positions of a tile's map, of a layer's stride, that are kept."""
        start, stop = (position * self._unit // stride for position in kept)
        return slice(start, stop)


def _spread(length: int, tile: int, overlap: int) -> list[tuple[int, int, int]]:
    """Spread tiles evenly over one axis, in units that all strides divide.

    Returns:
        For each tile its first position, and the range of its own positions that are kept.
    """
    count = -(-(length - tile) // (tile - overlap)) + 1
    starts = [number * (length - tile) // max(count - 1, 1) for number in range(count)]
    cuts = [second + (first + tile - second + 1) // 2 for first, second in pairwise(starts)]
    borders = [0, *cuts, length]
    return [
        (start, first - start, last - start)
        for start, (first, last) in zip(starts, pairwise(borders), strict=True)
    ]
