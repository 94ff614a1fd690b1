"""What is found of images: neighbours of their patches, scores, maps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Neighbours:
    """The nearest coreset patches of each patch of B images.

    Attributes:
        distance: (B, h, w, k) float32 Euclidean distances, ascending.
        nearest: (B, h, w, k) int64 positions in the coreset.
        size: Of the coreset that was searched.
    """

    distance: torch.Tensor
    nearest: torch.Tensor
    size: int


@dataclass(frozen=True)
class Scores:
    """What PatchCore says of B images, still on the device: nothing has waited for it.

    Attributes:
        score: As in `Prediction`, and so are the others.
        anomaly_map: As there.
        distance: As there.
        nearest: As there.
    """

    score: torch.Tensor
    anomaly_map: torch.Tensor
    distance: torch.Tensor
    nearest: torch.Tensor


@dataclass(frozen=True)
class Prediction:
    """What PatchCore says of B images.

    Attributes:
        score: (B,) float32, the anomaly score, >= 0, in units of the embedding's distance.
        anomaly_map: (B, H, W) float32 in the same units, of the cropped image.
        distance: (B, h, w, k) float32, each patch's Euclidean distances to its nearest coreset
            patches, ascending.
        nearest: (B, h, w, k) int64, these coreset patches: positions in `Coreset.indices`.
    """

    score: np.ndarray
    anomaly_map: np.ndarray
    distance: np.ndarray
    nearest: np.ndarray

    def of(self, number: int) -> "Prediction":
        """Return the prediction of one image: B = 1."""
        one = slice(number, number + 1)
        return Prediction(
            self.score[one], self.anomaly_map[one], self.distance[one], self.nearest[one]
        )


def collect(parts: Sequence[Scores]) -> Prediction:
    """Put the scores of one or more batches together, in their order, in the host's memory.

    One copy of each array for all batches: a copy waits until the device has finished.
    """

    def of(name: str) -> np.ndarray:
        return torch.cat([getattr(part, name) for part in parts]).cpu().numpy()

    return Prediction(of("score"), of("anomaly_map"), of("distance"), of("nearest"))
