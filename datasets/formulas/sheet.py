"""One picture that shows what the formulas draw."""

from __future__ import annotations

import cv2
import numpy as np

from datasets.formulas.dial import SIBLINGS
from datasets.formulas.families import FAMILIES
from datasets.formulas.scenes import make_scene
from datasets.formulas.textures import TexturePool

TILE = 48  # pixels of a texture's tile; a scene's is two by two
ROWS = 4  # of textures: a family has one column
SIGHTS = 3  # pictures of a product, side by side
MARK = (255, 40, 40)


def draw_sheet(pool: TexturePool, seed: int) -> np.ndarray:
    """Draw a sheet of textures, a column for each family, and of products below.

    Args:
        pool: The textures.
        seed: Of the products.

    Returns:
        (H, W, 3) uint8 RGB. Products are shown in several pictures each; once more in the last row,
        with their damage outlined.
    """
    columns = [_column(pool, family) for family in range(len(FAMILIES))]
    per_row = len(FAMILIES) // 2
    rows = [
        np.hstack([_scene(pool, seed, index, marked=marked) for index in range(per_row)])
        for marked in (False, True)
    ]
    return np.vstack([np.hstack(columns), *rows])


def _column(pool: TexturePool, family: int) -> np.ndarray:
    """Stack pieces of a family's first classes, one of each group of siblings."""
    groups = np.arange(ROWS) * len(FAMILIES) + family
    indices = groups * SIBLINGS % pool.num_classes
    return np.vstack([pool.pictures[index, 0, : 2 * TILE, : 2 * TILE] for index in indices])[
        ::2, ::2
    ]


def _scene(pool: TexturePool, seed: int, index: int, *, marked: bool) -> np.ndarray:
    product, sight = divmod(index, SIGHTS)
    scene = make_scene(pool, seed, product, 2 * TILE, sight=sight)
    if not marked:
        return scene.image
    mask = cv2.resize(scene.damaged, (2 * TILE, 2 * TILE)) > 0.3
    edge = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return np.where(edge[..., None] > 0, np.uint8(MARK), scene.image)
