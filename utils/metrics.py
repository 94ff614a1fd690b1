"""Metrics of anomaly scores: one descending sort, then one pass over the thresholds.

The pass processes the sorted scores in blocks, so that millions of pixels need little memory in
addition to their sorted keys. A metric is NaN if it is not defined (one class, or no items).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from utils.metric_columns import IMAGE, METRICS, PIXEL, Output
from utils.sorted_scores import CPU, SortedScores

FPR_LIMIT = 0.3
# A curve keeps about one point for each of these steps of a rate, finer than a figure's pixels.
CURVE_STEPS = 1000
# Tags that are sorted with the scores. Tags from REGION on are defective: REGION plus the number of
# the defect region, or REGION itself without regions.
NORMAL, NORMAL_IN_DEFECTIVE_IMAGE, REGION = 0, 1, 2


@dataclass(frozen=True)
class Curve:
    """Points of the curves, from the highest threshold to the lowest.

    Attributes:
        false_positive_rate: (p,) fraction of the normal items at or above the threshold; ascending.
        true_positive_rate: (p,) fraction of the defective items at or above the threshold: the
            recall.
        precision: (p,) fraction of the items at or above the threshold that are defective; 1 if
            there is no such item.
        region_overlap: (p,) mean over defect regions of the fraction at or above the threshold; 0
            without regions.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    precision: np.ndarray
    region_overlap: np.ndarray


@dataclass(frozen=True)
class Metrics:
    """Metrics of scores. All NaN, and without a curve, if there is only one class.

    Attributes:
        auroc: Area under the ROC curve, ties counted half; in [0, 1].
        auroc_defective: AUROC over the pixels of defective images only; NaN for images.
        average_precision: Sum of the precisions, each weighted by the recall that its threshold
            adds; in [0, 1].
        f1_max: Largest F1 score over all thresholds; in [0, 1].
        threshold: Highest threshold with that F1; items of at least this score count as defective.
        false_positives: Number of normal items that count as defective at `threshold`.
        false_negatives: Number of defective items that count as normal at `threshold`.
        aupro: Area under the per-region overlap up to `aupro_limit`, divided by this limit; in
            [0, 1], NaN for images. Bergmann et al. 2021, The MVTec Anomaly Detection Dataset,
            section 5.2.
        aupro_limit: False positive rate; NaN for images.
        au_spro: Area under the saturated overlap of `utils.saturated_overlap` up to `spro_limit`,
            divided by this limit; in [0, 1], NaN without saturation thresholds.
        spro_limit: False positive rate; NaN without saturation thresholds.
        curve: Points of the curves.
    """

    auroc: float = math.nan
    auroc_defective: float = math.nan
    average_precision: float = math.nan
    f1_max: float = math.nan
    threshold: float = math.nan
    false_positives: float = math.nan
    false_negatives: float = math.nan
    aupro: float = math.nan
    aupro_limit: float = math.nan
    au_spro: float = math.nan
    spro_limit: float = math.nan
    curve: Curve | None = None


def metrics_record(images: Metrics, pixels: Metrics) -> dict[str, float]:
    """Return the metrics of a category by their columns in ``results.csv``."""
    sources = {IMAGE: images, PIXEL: pixels}
    values = {m: getattr(sources[m.items], m.attribute) for m in METRICS if m.attribute}
    return {m.key: v for m, v in values.items() if not (m.is_optional and math.isnan(v))}


def defect_record(images: Metrics) -> dict[str, float]:
    """Return the metrics of a defect type by their columns in ``results_defects.csv``."""
    return {m.key: getattr(images, m.attribute) for m in METRICS if Output.DEFECTS in m.outputs}


def measure(scores: np.ndarray, labels: np.ndarray) -> Metrics:
    """Measure the scores of items, for example of images.

    Args:
        scores: Any shape, float; higher means more anomalous.
        labels: Same shape, True (or not 0) where defective.

    Raises:
        ValueError: the shapes differ, or a score is NaN.
    """
    if scores.shape != labels.shape:
        raise ValueError(f"expected labels of shape {scores.shape}, found {labels.shape}")
    tags = np.where(labels.reshape(-1), np.uint32(REGION), np.uint32(NORMAL))
    return _sweep(SortedScores(scores.reshape(-1), tags), None, FPR_LIMIT)


def measure_pixels(
    maps: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    fpr_limit: float = FPR_LIMIT,
    device: torch.device = CPU,
    ignored: Sequence[np.ndarray] | np.ndarray | None = None,
) -> Metrics:
    """Measure the pixels of all anomaly maps together.

    A defect region is a set of defective pixels of one image that touch, also at corners. Ignored
    pixels belong to no region and are not counted; they may divide a region into several.

    Args:
        maps: (B, H, W) float, or B maps (H, W) of different sizes; higher means more anomalous.
        masks: Of the same shapes, bool, True where defective.
        fpr_limit: Largest false positive rate of the area `Metrics.aupro`, in (0, 1].
        device: Device that sorts the pixels; a GPU is 100 times as fast, including the copies.
        ignored: Pixels that are not measured: (H, W) bool for all images, or one for each; None to
            measure all.

    Raises:
        ValueError: the shapes differ, a score is NaN, or the limit is outside (0, 1].
    """
    shapes = [[np.shape(one) for one in values] for values in (maps, masks)]
    if shapes[0] != shapes[1] or any(len(shape) != 2 for shape in shapes[0]):
        raise ValueError(
            f"expected maps and masks (B, H, W), found shapes {_describe_shapes(maps)} and "
            f"{_describe_shapes(masks)}"
        )
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"expected fpr_limit in (0, 1], found {fpr_limit}")
    masks = [np.asarray(mask).astype(bool, copy=False) for mask in masks]
    if ignored is not None:
        hidden = [ignored] * len(masks) if np.ndim(ignored[0]) == 1 else ignored
        masks = [mask & ~away for mask, away in zip(masks, hidden, strict=True)]
    tags, areas = tag_regions(masks)
    scores = _flat(maps)
    if ignored is not None:
        seen = ~_flat(hidden)
        scores, tags = scores[seen], tags[seen]
        areas = np.bincount(tags, minlength=len(areas))
    ordered = SortedScores(scores, tags, device)
    del tags
    return _sweep(ordered, areas, fpr_limit)


def _flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the values of all arrays one after another, of a single array without a copy."""
    if isinstance(arrays, np.ndarray):
        return arrays.reshape(-1)
    return np.concatenate([array.reshape(-1) for array in arrays]) if len(arrays) else np.empty(0)


def _describe_shapes(arrays: Sequence[np.ndarray]) -> str:
    if isinstance(arrays, np.ndarray):
        return str(arrays.shape)
    return ", ".join(str(np.shape(array)) for array in arrays)


def tag_regions(masks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Number the defect regions of all masks.

    Args:
        masks: (B, H, W) bool, or B masks (H, W) of different sizes.

    Returns:
        (n,) uint32, the tag of each pixel, of one mask after another: NORMAL in images without
        defects, NORMAL_IN_DEFECTIVE_IMAGE around defects, else the number of the region from REGION
        on. (REGION + regions,) int64, the number of pixels with each tag.
    """
    tags = np.zeros(sum(np.size(mask) for mask in masks), dtype=np.uint32)
    following, start = REGION, 0
    of_masks = []
    for mask in masks:
        tag = tags[start : start + mask.size]
        of_masks.append(tag)
        start += mask.size
        if not mask.any():
            continue
        found, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        labels = labels.reshape(-1)
        tag[:] = np.where(labels > 0, labels + (following - 1), NORMAL_IN_DEFECTIVE_IMAGE)
        following += found - 1
    areas = np.zeros(following, dtype=np.int64)
    for tag in of_masks:  # one at a time, since bincount converts its input to 8-byte integers
        areas += np.bincount(tag, minlength=following)
    return tags, areas


def _sweep(ordered: SortedScores, areas: np.ndarray | None, fpr_limit: float) -> Metrics:
    """Lower the threshold from above all scores to below all, and accumulate all metrics.

    Args:
        ordered: The scores with their tags.
        areas: (REGION + regions,) number of items with each tag; None without regions.
        fpr_limit: False positive rate up to which the region overlap is integrated.
    """
    num_defective, num_in_defective_images = _count_classes(ordered, areas)
    num_normal = len(ordered) - num_defective
    if not num_defective or not num_normal:
        return Metrics()
    gain = _overlap_gain(areas)
    area_roc = area_in_defective_images = area_pro = precision_sum = 0.0
    best = (-1.0, math.nan, 0, 0)  # F1, threshold, true and false positives
    # Counts above the threshold: defective, normal, normal in defective images; then mean overlap.
    state = np.zeros(4)
    sampled = [np.zeros((1, 4))]
    for scores, tags, ends in ordered.blocks():
        defective = tags >= REGION
        found = np.cumsum(defective)
        in_defective = np.cumsum(tags == NORMAL_IN_DEFECTIVE_IMAGE)
        overlap = np.cumsum(np.append(0.0, gain[np.minimum(tags[defective], len(gain) - 1)]))
        at = _decisive_thresholds(ends, found, sampled[-1][-1, 0] - state[0])
        shown = np.append(at, len(tags) - 1)  # the counts at the last item start the next block
        known = found[shown]
        counted = np.stack([known, shown + 1 - known, in_defective[shown], overlap[known]])
        counted += state[:, None]
        state = counted[:, -1].copy()
        if not len(at):
            continue
        points = np.concatenate([sampled[-1][-1:].T, counted[:, :-1]], axis=1)  # (4, m + 1)
        true, false, in_defective, overlap = points
        area_roc += float(np.trapezoid(true, false))
        area_in_defective_images += float(np.trapezoid(true, in_defective))
        area_pro += area_up_to(false / num_normal, overlap, fpr_limit)
        precision_sum += float(np.diff(true) @ (true[1:] / (true[1:] + false[1:])))
        f1 = 2 * true[1:] / (true[1:] + false[1:] + num_defective)
        top = int(f1.argmax())
        if f1[top] > best[0]:
            best = float(f1[top]), float(scores[at[top]]), int(true[1 + top]), int(false[1 + top])
        rates = points[[1, 0, 3]].T / (num_normal, num_defective, 1)
        sampled.append(points.T[_curve_points(rates)])
    f1_best, threshold, true_positives, false_positives = best
    has_regions = areas is not None
    pairs = num_defective * num_in_defective_images
    return Metrics(
        auroc=area_roc / (num_defective * num_normal),
        auroc_defective=area_in_defective_images / pairs if pairs else math.nan,
        average_precision=precision_sum / num_defective,
        f1_max=f1_best,
        threshold=threshold,
        false_positives=false_positives,
        false_negatives=num_defective - true_positives,
        aupro=area_pro / fpr_limit if has_regions else math.nan,
        aupro_limit=fpr_limit if has_regions else math.nan,
        curve=_curve(np.concatenate(sampled), num_defective, num_normal),
    )


def _decisive_thresholds(ends: np.ndarray, found: np.ndarray, found_before: float) -> np.ndarray:
    """Return the thresholds at which defective items are found, and those just before.

    At all others only normal items are found: every curve is straight there, and the area does not
    depend on them. These are most thresholds, since most pixels are normal.

    Args:
        ends: (m,) bool, the last of equal scores.
        found: (m,) number of defective items of this block up to each item.
        found_before: This number at the last end before this block, 0 or less.

    Returns:
        Indices into the block, ascending; the last end is always one of them.
    """
    at = np.flatnonzero(ends)
    if not len(at):
        return at
    kept = np.diff(found[at], prepend=found_before) > 0
    kept[:-1] |= kept[1:]
    kept[-1] = True
    return at[kept]


def _count_classes(ordered: SortedScores, areas: np.ndarray | None) -> tuple[int, int]:
    """Return the numbers of defective items and of normal items in defective images."""
    if areas is not None:
        return int(areas[REGION:].sum()), int(areas[NORMAL_IN_DEFECTIVE_IMAGE])
    return sum(int((tags >= REGION).sum()) for _, tags, _ in ordered.blocks()), 0


def _overlap_gain(areas: np.ndarray | None) -> np.ndarray:
    """Return what a found item of each tag adds to the mean overlap of the regions."""
    if areas is None:
        return np.zeros(REGION + 1)
    gain = np.zeros(len(areas))
    gain[REGION:] = 1 / (areas[REGION:] * max(len(areas) - REGION, 1))
    return gain


def area_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Return the area under a curve through points, ascending in x, up to x = limit."""
    if x[0] >= limit:
        return 0.0
    if x[-1] > limit:
        inside = int(np.searchsorted(x, limit, side="right"))
        # Interpolate within the segment that crosses the limit.
        fraction = (limit - x[inside - 1]) / (x[inside] - x[inside - 1])
        at_limit = y[inside - 1] + fraction * (y[inside] - y[inside - 1])
        x, y = np.append(x[:inside], limit), np.append(y[:inside], at_limit)
    return float(np.trapezoid(y, x))


def _curve_points(rates: np.ndarray) -> np.ndarray:
    """Choose the points at which any rate, (m + 1, 3), reaches the next step of the curve.

    The first point belongs to the block before. The last point is always chosen, since the next
    block starts from it.
    """
    steps = np.floor(rates * CURVE_STEPS)
    kept = (steps[1:] != steps[:-1]).any(axis=1)
    # Keep the point just before a step as well, or a flat part would be drawn as a slope.
    kept[:-1] |= kept[1:]
    kept[-1] = True
    return 1 + np.flatnonzero(kept)


def _curve(points: np.ndarray, num_defective: int, num_normal: int) -> Curve:
    true, false, _, overlap = points.T
    found = true + false
    return Curve(
        false_positive_rate=false / num_normal,
        true_positive_rate=true / num_defective,
        precision=np.divide(true, found, out=np.ones(len(found)), where=found > 0),
        region_overlap=overlap,
    )
