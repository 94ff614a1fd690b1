"""Predictions of PatchCore: scores, maps, and nearest coreset patches."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from patchcore.errors import PatchCoreError

# Predictions that are kept on the device: about 300 images with maps of 224x224.
BYTES_ON_DEVICE = 1 << 26


@dataclass(frozen=True)
class Prediction:
    """The prediction for B images: NumPy arrays, or tensors on the device.

    Attributes:
        score: (B,) float32, the anomaly score, >= 0, in the unit of the setting ``distance``. The
            score of an ensemble is in standard deviations of normal patches; it may be negative,
            and so may the score with a context, for copies of training images.
        anomaly_map: (B, H, W) float32 in the same unit, of the cropped image. Ignored pixels are
            0, in an ensemble the value that it gives to distances of 0.
        distance: (B, h, w, k) float32, distances of each patch to its nearest coreset patches,
            ascending for each bank; 0 for patches of the background.
        nearest: (B, h, w, k) int64, these coreset patches, as positions in `Coreset.indices`.
    """

    score: np.ndarray
    anomaly_map: np.ndarray
    distance: np.ndarray
    nearest: np.ndarray

    def of(self, number: int) -> "Prediction":
        """Return the prediction of one image, with B = 1; -1 is the last image.

        Raises:
            PatchCoreError: there is no such image.
        """
        count = len(self.score)
        if not -count <= number < count:
            raise PatchCoreError(f"expected the number of one of {count} images, found {number}")
        one = slice(number % count, number % count + 1)
        return Prediction(*(getattr(self, name)[one] for name in _ARRAYS))


_ARRAYS = tuple(field.name for field in fields(Prediction))


class Collector:
    """Joins the predictions of batches, in their order, in the host's memory.

    Predictions are copied in large parts, since each copy waits until the device has finished. They
    are not all kept until the end, since they may exceed the device's memory.
    """

    def __init__(self) -> None:
        self._on_device: list[Prediction] = []
        self._bytes = 0
        self._on_host: list[Prediction] = []

    def add(self, prediction: Prediction) -> None:
        """Add the next batch, on the device."""
        self._on_device.append(prediction)
        self._bytes += sum(getattr(prediction, name).nbytes for name in _ARRAYS)
        if self._bytes >= BYTES_ON_DEVICE:
            self._copy()

    def finish(self) -> Prediction:
        """Return the prediction for all batches as NumPy arrays, and release them.

        Raises:
            PatchCoreError: there was no batch, or a score is infinite or undefined.
        """
        self._copy()
        parts, self._on_host = self._on_host, []
        return join_on_host(parts)

    def _copy(self) -> None:
        if self._on_device:
            joined = _join(self._on_device, torch.cat)
            prediction = Prediction(*(getattr(joined, name).cpu().numpy() for name in _ARRAYS))
            _check_finite(prediction.score)
            self._on_host.append(prediction)
            self._on_device.clear()
            self._bytes = 0


def join_on_host(parts: Sequence[Prediction]) -> Prediction:
    """Join predictions with NumPy arrays.

    Raises:
        PatchCoreError: there is none.
    """
    if not parts:
        raise PatchCoreError("expected at least one image to predict, found none")
    return _join(parts, np.concatenate)


def _join(parts: Sequence[Prediction], concatenate) -> Prediction:
    return Prediction(*(concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS))


def _check_finite(scores: np.ndarray) -> None:
    """Check scores (B,); those of images with infinite or undefined features are not finite."""
    num_wrong = int((~np.isfinite(scores)).sum())
    if num_wrong:
        raise PatchCoreError(
            f"expected finite anomaly scores, found infinite or undefined ones for {num_wrong} of "
            f"{len(scores)} images: the backbone gives features that are not finite "
            "(backbone, weights, precision)"
        )
