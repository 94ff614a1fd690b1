"""How well scores tell defective from good: one descending sort serves every metric.

A metric is NaN where there is nothing to measure (one class only, or no item at all), never 0 or 1
by accident.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

# Points that a drawn curve keeps: more than a figure has pixels.
CURVE_POINTS = 1000


@dataclass(frozen=True)
class Ranking:
    """Labelled items in the order of their scores, one entry for each distinct score.

    Attributes:
        thresholds: (t,) scores, descending. Items of at least this score count as found.
        true_positives: (t,) int64, how many defective items are found.
        false_positives: (t,) int64, how many good items are found.
        region_overlap: (t,) float64 in [0, 1], the mean over defect regions of the share that is
            found; None where items have no regions.
    """

    thresholds: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    region_overlap: np.ndarray | None = None

    @property
    def num_defective(self) -> int:
        """How many items are defective."""
        return int(self.true_positives[-1]) if len(self.true_positives) else 0

    @property
    def num_good(self) -> int:
        """How many items are good."""
        return int(self.false_positives[-1]) if len(self.false_positives) else 0

    @property
    def has_both_classes(self) -> bool:
        """Whether anything can be told apart."""
        return self.num_defective > 0 and self.num_good > 0

    def roc_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the false and the true positive rate at each threshold, from (0, 0) on."""
        return (
            _from_zero(self.false_positives / max(self.num_good, 1)),
            _from_zero(self.true_positives / max(self.num_defective, 1)),
        )

    def pro_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the false positive rate and the region overlap, from (0, 0) on."""
        if self.region_overlap is None:
            raise ValueError("expected a ranking of pixels with regions")
        return (
            _from_zero(self.false_positives / max(self.num_good, 1)),
            _from_zero(self.region_overlap),
        )

    def auroc(self) -> float:
        """Return the area under the ROC curve, ties counted half; in [0, 1]."""
        return _area(*self.roc_curve()) if self.has_both_classes else math.nan

    def average_precision(self) -> float:
        """Return the mean precision, weighted by the recall that each threshold adds."""
        if not self.has_both_classes:
            return math.nan
        gained = np.diff(self.true_positives, prepend=0)
        return float(self._precision() @ gained / self.num_defective)

    def f1_max(self) -> tuple[float, float]:
        """Return the largest F1 over all thresholds, and the (highest) threshold that gives it."""
        if not self.has_both_classes:
            return math.nan, math.nan
        found = self.true_positives + self.false_positives
        f1 = 2 * self.true_positives / (found + self.num_defective)
        best = int(f1.argmax())
        return float(f1[best]), float(self.thresholds[best])

    def aupro(self, fpr_limit: float = 0.3) -> float:
        """Return the area under the PRO curve up to a false positive rate, divided by that rate.

        Bergmann et al., The MVTec Anomaly Detection Dataset (IJCV 2021), section 5.2.
        """
        if not 0 < fpr_limit <= 1:
            raise ValueError(f"expected fpr_limit in (0, 1], found {fpr_limit}")
        if not self.has_both_classes:
            return math.nan
        rates, overlap = self.pro_curve()
        inside = int(np.searchsorted(rates, fpr_limit, side="right"))
        at_limit = np.interp(fpr_limit, rates, overlap)
        return (
            _area(np.append(rates[:inside], fpr_limit), np.append(overlap[:inside], at_limit))
            / fpr_limit
        )

    def _precision(self) -> np.ndarray:
        return self.true_positives / (self.true_positives + self.false_positives)


def rank(scores: np.ndarray, labels: np.ndarray) -> Ranking:
    """Rank items by their scores.

    Args:
        scores: (n,) or any shape, float; higher means more anomalous.
        labels: Of the same shape, True (or not 0) where defective.

    Raises:
        ValueError: the shapes differ, or a score is NaN.
    """
    scores, labels = np.asarray(scores), np.asarray(labels).astype(bool)
    if scores.shape != labels.shape:
        raise ValueError(f"expected labels of shape {scores.shape}, found {labels.shape}")
    order, ordered = _descending(scores.reshape(-1), labels.reshape(-1).astype(np.uint32))
    return _count(order, ordered, None)


def rank_pixels(maps: np.ndarray, masks: np.ndarray) -> Ranking:
    """Rank the pixels of all maps, and follow how much of each defect region is found.

    A region is a set of defective pixels of one image that touch, also by a corner.

    Args:
        maps: (B, H, W) float, higher means more anomalous.
        masks: (B, H, W) bool, True where defective.

    Raises:
        ValueError: the shapes differ, or a score is NaN.
    """
    maps, masks = np.asarray(maps), np.asarray(masks).astype(bool)
    if maps.shape != masks.shape or maps.ndim != 3:
        raise ValueError(
            f"expected maps and masks (B, H, W), found shapes {maps.shape} and {masks.shape}"
        )
    regions, areas = label_regions(masks)
    ordered_scores, ordered_regions = _descending(maps.reshape(-1), regions.reshape(-1))
    return _count(ordered_scores, ordered_regions, areas)


def label_regions(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the defect regions of all masks.

    Args:
        masks: (B, H, W) bool.

    Returns:
        (B, H, W) uint32, 0 where good, else the region's number from 1 on; (r + 1,) int64 area of
        each in pixels, that of number 0 being all good pixels.
    """
    regions = np.zeros(masks.shape, dtype=np.uint32)
    count = 0
    for index in np.flatnonzero(masks.any(axis=(1, 2))):
        found, labels = cv2.connectedComponents(masks[index].astype(np.uint8), connectivity=8)
        np.add(labels, count, out=labels, where=labels > 0)
        regions[index] = labels
        count += found - 1
    return regions, np.bincount(regions.reshape(-1), minlength=count + 1)


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the area under the ROC curve, in [0, 1]; NaN with one class only.

    Args:
        scores: Any shape, float; higher means more anomalous.
        labels: Of the same shape, True where defective.
    """
    return rank(scores, labels).auroc()


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the area under the precision-recall curve as a step function; NaN with one class."""
    return rank(scores, labels).average_precision()


def f1_max(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the largest F1 score over all thresholds, in [0, 1]; NaN with one class only."""
    return rank(scores, labels).f1_max()[0]


def aupro(maps: np.ndarray, masks: np.ndarray, fpr_limit: float = 0.3) -> float:
    """Return the normalised area under the per-region overlap up to a false positive rate.

    Args:
        maps: (B, H, W) float, higher means more anomalous.
        masks: (B, H, W) bool, True where defective.
        fpr_limit: In (0, 1].
    """
    return rank_pixels(maps, masks).aupro(fpr_limit)


def thin_curve(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keep at most `CURVE_POINTS` points of a rising curve, evenly spread along its way."""
    if len(x) <= CURVE_POINTS:
        return x, y
    way = x + y  # of a curve that only rises, the length in city blocks
    wanted = np.linspace(way[0], way[-1], CURVE_POINTS)
    kept = np.unique(np.clip(np.searchsorted(way, wanted), 0, len(x) - 1))
    return x[kept], y[kept]


def _descending(scores: np.ndarray, tags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort scores in descending order, their tags along with them.

    Args:
        scores: (n,) float.
        tags: (n,) uint32.
    """
    if np.isnan(scores).any():
        raise ValueError("expected scores without NaN")
    if scores.dtype != np.float32:
        order = np.argsort(-scores.astype(np.float64), kind="stable")
        return scores[order], tags[order]
    # Score and tag in one integer: NumPy sorts plain integers many times as fast as it finds an
    # order and gathers by it. Bits of floats order like integers once negative ones are inverted
    # and the sign is flipped; inverted once more, the largest score comes first.
    bits = (scores + np.float32(0)).view(np.uint32)  # + 0 turns -0 into 0
    ascending = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    keys = (~ascending).astype(np.uint64) << np.uint64(32)
    del bits, ascending
    keys |= tags
    keys.sort()
    ordered_tags = keys.astype(np.uint32)  # the lower half
    keys >>= np.uint64(32)
    ascending = ~keys.astype(np.uint32)
    bits = np.where(ascending >> 31, ascending & np.uint32(0x7FFFFFFF), ~ascending)
    return bits.view(np.float32), ordered_tags


def _count(scores: np.ndarray, tags: np.ndarray, areas: np.ndarray | None) -> Ranking:
    """Count what is found down to each distinct score.

    Args:
        scores: (n,) descending.
        tags: (n,) uint32, 0 for good items; for others 1, or the number of their region.
        areas: (r + 1,) of the regions; None without.
    """
    if not len(scores):
        empty = np.zeros(0, dtype=np.int64)
        return Ranking(scores, empty, empty, None if areas is None else np.zeros(0))
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # of equal scores
    true_positives = np.cumsum(tags > 0, dtype=np.int64)[last]
    overlap = None
    if areas is not None:
        num_regions = max(len(areas) - 1, 1)
        share = np.zeros(len(areas))  # what a pixel adds to the mean overlap
        share[1:] = 1 / (areas[1:] * num_regions)
        overlap = np.cumsum(share[tags])[last]
    return Ranking(scores[last], true_positives, last + 1 - true_positives, overlap)


def _from_zero(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], values])


def _area(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.trapezoid(y, x))
