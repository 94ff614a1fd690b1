"""The results of one category at one percentage, for the report and the figures."""

import math
from dataclasses import dataclass, field

import numpy as np

from datasets.base import Sample
from datasets.depth import Decoding
from patchcore import Prediction
from patchcore.ignored import Ignored
from patchcore.origins import Origins
from utils.results import ResultRow


@dataclass(frozen=True)
class CategoryView:
    """The results of one category at one percentage.

    Attributes:
        row: The metrics.
        samples: The B test images.
        prediction: The prediction for these images.
        images: (B, H, W, 3) uint8, their crops; None to draw no images.
        masks: (B, H, W) bool, all False for images without ground truth; None if there is none.
        origins: The origins of the M coreset patches; None to draw no images.
        patches: (M, ph, pw, 3) uint8, the crops of the coreset patches; None to draw no images.
        decoding: How the training images were decoded.
        ignored: Positions that are not judged; None if all are.
    """

    row: ResultRow
    samples: tuple[Sample, ...]
    prediction: Prediction
    images: np.ndarray | None = None
    masks: np.ndarray | None = None
    origins: Origins | None = None
    patches: np.ndarray | None = None
    decoding: Decoding = field(default_factory=Decoding)
    ignored: Ignored | None = None

    def threshold(self, kind: str) -> float | None:
        """Return the F1-max threshold of an ``image`` or a ``pixel``; None if there is none."""
        value = self.row.metrics[f"{kind}_threshold"]
        return None if math.isnan(value) else float(value)
