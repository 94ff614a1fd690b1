"""What is found of images: neighbours of their patches, scores, maps."""

from dataclasses import dataclass, fields

import numpy as np
import torch

from patchcore.errors import PatchCoreError

# Of scores that wait on the device: with maps of 224x224, those of about 300 images.
BYTES_ON_DEVICE = 1 << 26


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
        score: (B,) float32, the anomaly score, >= 0, in units of the embedding's distance; an
            ensemble's is in deviations of normal patches, of any sign.
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


class Collector:
    """Puts the scores of batches together, in their order, in the host's memory.

    Copies come seldom, since each one waits until the device has finished; and not only at the end,
    since a device's memory is small beside what may be judged.
    """

    def __init__(self):
        self._on_device: list[Scores] = []
        self._bytes = 0
        self._on_host: list[Prediction] = []

    def add(self, scores: Scores) -> None:
        """Take the next batch."""
        self._on_device.append(scores)
        self._bytes += sum(getattr(scores, name).nbytes for name in _ARRAYS)
        if self._bytes >= BYTES_ON_DEVICE:
            self._copy()

    def finish(self) -> Prediction:
        """Return all batches' prediction, and keep nothing of it.

        Raises:
            PatchCoreError: there was none.
        """
        self._copy()
        if not self._on_host:
            raise PatchCoreError("expected at least one image to judge, found none")
        parts, self._on_host = self._on_host, []
        return Prediction(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS)
        )

    def _copy(self) -> None:
        if self._on_device:
            joined = (
                torch.cat([getattr(scores, name) for scores in self._on_device]) for name in _ARRAYS
            )
            self._on_host.append(Prediction(*(array.cpu().numpy() for array in joined)))
            self._on_device.clear()
            self._bytes = 0


_ARRAYS = tuple(field.name for field in fields(Prediction))
