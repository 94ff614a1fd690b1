"""What the most anomalous patches of a judged picture were compared with."""

from pathlib import Path

import numpy as np

from patchcore import PatchCore, Prediction, explain
from utils.pipeline.explanations import (
    CoresetOrigins,
    ImagePatches,
    describe_patches,
    explained_patches,
)
from utils.pipeline.training_images import read_training_image
from utils.plots import draw_explanation


class Explanations:
    """Explains pictures by a trained model.

    Args:
        model: Trained.
        top: How many patches of a picture are explained.
    """

    def __init__(self, model: PatchCore, top: int):
        self._model = model
        self._top = top
        self._origins = _coreset_origins(model)

    def describe(self, crop: np.ndarray, prediction: Prediction) -> list[dict[str, object]]:
        """Return a record of each of the most anomalous patches, for JSON.

        Args:
            crop: (H, W, 3) uint8 RGB, in whose pixels the records' boxes are.
            prediction: Of this picture alone.
        """
        patches = ImagePatches.of(prediction, 0)
        return describe_patches(patches, self._origins, crop.shape[:2], self._top)

    def draw(
        self,
        crop: np.ndarray,
        records: list[dict[str, object]],
        name: Path,
        coreset_patches: np.ndarray,
    ) -> np.ndarray:
        """Draw what the records say.

        Training images are shown whole where their files are still at hand.

        Args:
            crop: (H, W, 3) uint8 RGB.
            records: As `describe` returns them.
            name: Of the picture.
            coreset_patches: (M, ph, pw, 3) uint8, what each coreset patch looks like.

        Returns:
            (H', W', 3) uint8 RGB.
        """
        preprocess = self._model.preprocess
        explained = explained_patches(
            crop,
            self._model.grid,
            records,
            crops=lambda near: coreset_patches[near["coreset_index"]],
            whole_image=lambda file, flip: read_training_image(Path(file), flip, preprocess),
        )
        return draw_explanation(crop, explained, title=name.name, file_name=str(name.parent))


def _coreset_origins(model: PatchCore) -> CoresetOrigins:
    """Return which training image and place each coreset patch is from."""
    trained = model.trained
    origins, flips = trained.origins, ("", *model.flip)
    names = trained.names or [f"image {number}" for number in range(max(origins.images) + 1)]
    sources = tuple(
        (names[image], flips[flip])
        for image, flip in zip(origins.images, origins.flips, strict=True)
    )
    return CoresetOrigins(sources, explain.locate(trained.coreset.indices, model.grid))
