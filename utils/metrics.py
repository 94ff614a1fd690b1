"""How well scores tell defective from good: one descending sort, one walk, every metric.

The walk goes down the sorted scores in blocks and carries its counts along, so that millions of
pixels need little memory beyond their sorted keys. A metric is NaN where there is nothing to
measure (one class only, or no item at all), never 0 or 1 by accident.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch

FPR_LIMIT = 0.3
CPU = torch.device("cpu")
# Items at a time: a block and what is made of it stay in the processor's cache.
BLOCK = 1 << 17
# A curve keeps a point in each of so many steps of either rate: finer than a figure's pixels.
CURVE_STEPS = 1000
# What the sort carries beside each score: which kind of item it is. Numbers from REGION on are
# defective: all of them where there are no regions, else the number of a region.
GOOD, GOOD_BESIDE_DEFECT, REGION = 0, 1, 2


@dataclass(frozen=True)
class Curve:
    """Points of the walk, from "nothing found" on: what every curve is drawn from.

    Attributes:
        false_positive_rate: (p,) share of the good items that are found; ascending.
        true_positive_rate: (p,) share of the defective items that are found: the recall.
        precision: (p,) share of the found items that are defective; 1 where nothing is found.
        region_overlap: (p,) mean over defect regions of the share that is found; zeros without.
    """

    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray
    precision: np.ndarray
    region_overlap: np.ndarray


@dataclass(frozen=True)
class Metrics:
    """What scores are worth. All NaN, and without a curve, where only one class is there.

    Attributes:
        auroc: Area under the ROC curve, ties counted half; in [0, 1].
        auroc_defective: The same over the pixels of defective images only; NaN for images.
        average_precision: Mean precision, weighted by the recall that each threshold adds.
        f1_max: The largest F1 over all thresholds.
        threshold: The highest one that gives it; items of at least this score count as found.
        false_positives: How many good items are found at that threshold.
        false_negatives: How many defective ones are not.
        aupro: Area under the per-region overlap up to a false positive rate (by default 0.3),
            divided by that rate; NaN for images. Bergmann et al. 2021, The MVTec Anomaly Detection
            Dataset, section 5.2.
        curve: What the curves are drawn from.
    """

    auroc: float = math.nan
    auroc_defective: float = math.nan
    average_precision: float = math.nan
    f1_max: float = math.nan
    threshold: float = math.nan
    false_positives: float = math.nan
    false_negatives: float = math.nan
    aupro: float = math.nan
    curve: Curve | None = None


def measure(scores: np.ndarray, labels: np.ndarray) -> Metrics:
    """Measure scores of items, for example of images.

    Args:
        scores: (n,) or any shape, float; higher means more anomalous.
        labels: Of the same shape, True (or not 0) where defective.

    Raises:
        ValueError: the shapes differ, or a score is NaN.
    """
    scores, labels = np.asarray(scores), np.asarray(labels).astype(bool)
    if scores.shape != labels.shape:
        raise ValueError(f"expected labels of shape {scores.shape}, found {labels.shape}")
    tags = np.where(labels.reshape(-1), np.uint32(REGION), np.uint32(GOOD))
    return _walk(_Descending(scores.reshape(-1), tags), None, FPR_LIMIT)


def measure_pixels(
    maps: np.ndarray,
    masks: np.ndarray,
    fpr_limit: float = FPR_LIMIT,
    device: torch.device = CPU,
) -> Metrics:
    """Measure the pixels of all maps at once.

    A defect region is a set of defective pixels of one image that touch, also by a corner.

    Args:
        maps: (B, H, W) float, higher means more anomalous.
        masks: (B, H, W) bool, True where defective.
        fpr_limit: In (0, 1], how far `Metrics.aupro` goes.
        device: Which one sorts the pixels: a GPU is a hundred times as fast, the copies included.

    Raises:
        ValueError: the shapes differ, a score is NaN, or the limit is outside (0, 1].
    """
    maps, masks = np.asarray(maps), np.asarray(masks).astype(bool, copy=False)
    if maps.shape != masks.shape or maps.ndim != 3:
        raise ValueError(
            f"expected maps and masks (B, H, W), found shapes {maps.shape} and {masks.shape}"
        )
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"expected fpr_limit in (0, 1], found {fpr_limit}")
    tags, areas = tag_regions(masks)
    ordered = _Descending(maps.reshape(-1), tags.reshape(-1), device)
    del tags
    return _walk(ordered, areas, fpr_limit)


def tag_regions(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the defect regions of all masks.

    Args:
        masks: (B, H, W) bool.

    Returns:
        (B, H, W) uint32: GOOD in images without defect, GOOD_BESIDE_DEFECT around defects, else
        the region's number from REGION on; (REGION + regions,) int64 pixels with each number.
    """
    tags = np.zeros(masks.shape, dtype=np.uint32)
    following = REGION
    for index in np.flatnonzero(masks.any(axis=(1, 2))):
        found, labels = cv2.connectedComponents(masks[index].astype(np.uint8), connectivity=8)
        tags[index] = np.where(labels > 0, labels + (following - 1), GOOD_BESIDE_DEFECT)
        following += found - 1
    areas = np.zeros(following, dtype=np.int64)
    for image in tags:  # one at a time: counting turns its input into 8-byte numbers
        areas += np.bincount(image.reshape(-1), minlength=following)
    return tags, areas


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the area under the ROC curve, in [0, 1]; NaN with one class only.

    Args:
        scores: Any shape, float; higher means more anomalous.
        labels: Of the same shape, True where defective.
    """
    return measure(scores, labels).auroc


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the area under the precision-recall curve as a step function; NaN with one class.

    Args:
        scores: Any shape, float; higher means more anomalous.
        labels: Of the same shape, True where defective.
    """
    return measure(scores, labels).average_precision


def f1_max(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the largest F1 score over all thresholds, in [0, 1]; NaN with one class only.

    Args:
        scores: Any shape, float; higher means more anomalous.
        labels: Of the same shape, True where defective.
    """
    return measure(scores, labels).f1_max


def aupro(maps: np.ndarray, masks: np.ndarray, fpr_limit: float = FPR_LIMIT) -> float:
    """Return the normalised area under the per-region overlap, in [0, 1]; NaN with one class.

    Args:
        maps: (B, H, W) float, higher means more anomalous.
        masks: (B, H, W) bool, True where defective.
        fpr_limit: In (0, 1], the false positive rate up to which it is measured.
    """
    return measure_pixels(maps, masks, fpr_limit).aupro


class _Descending:
    """Scores in descending order, each with its tag.

    float32 scores are sorted together with their tags, as one integer each: NumPy sorts plain
    integers many times as fast as it finds an order and gathers by it.

    Args:
        scores: (n,) float.
        tags: (n,) uint32.
        device: Which one sorts float32 scores.

    Raises:
        ValueError: a score is NaN.
    """

    def __init__(self, scores: np.ndarray, tags: np.ndarray, device: torch.device = CPU):
        if any(np.isnan(scores[start : start + BLOCK]).any() for start in _starts(len(scores))):
            raise ValueError("expected scores without NaN")
        self._keys = self._scores = self._tags = None
        if scores.dtype == np.float32:
            self._keys = np.empty(len(scores), dtype=np.uint64)
            for start in _starts(len(scores)):
                block = slice(start, start + BLOCK)
                self._keys[block] = _pack(scores[block], tags[block])
            self._keys = _sorted(self._keys, device)
        else:
            order = np.argsort(-scores.astype(np.float64), kind="stable")
            self._scores, self._tags = scores[order], tags[order]

    def __len__(self) -> int:
        return len(self._scores if self._keys is None else self._keys)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield each block's scores (m,), tags (m,), and whether a score ends there (m,).

        It ends where the next item has another score, so that equal ones count as one threshold.
        """
        for start in _starts(len(self)):
            stop = min(start + BLOCK, len(self))
            scores, tags = self._read(start, min(stop + 1, len(self)))
            ends = np.ones(stop - start, dtype=bool)
            ends[: len(scores) - 1] = scores[1:] != scores[:-1]
            yield scores[: stop - start], tags[: stop - start], ends

    def _read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        if self._keys is None:
            return self._scores[start:stop], self._tags[start:stop]
        return _unpack(self._keys[start:stop])


def _sorted(keys: np.ndarray, device: torch.device) -> np.ndarray:
    """Return (n,) uint64 in ascending order; the given array may be the one."""
    if device.type != "cpu":
        return _sorted_by_torch(keys, device)
    keys.sort()
    return keys


def _sorted_by_torch(keys: np.ndarray, device: torch.device) -> np.ndarray:
    # torch sorts no uint64: with the highest bit flipped, int64 has the same order.
    flip = np.uint64(1 << 63)
    keys ^= flip
    try:
        ordered = torch.from_numpy(keys.view(np.int64)).to(device).sort().values.cpu().numpy()
    except torch.OutOfMemoryError:  # the device holds other things: here it takes a second more
        keys.view(np.int64).sort()
        ordered = keys
    ordered = ordered.view(np.uint64)
    ordered ^= flip
    return ordered


def _starts(count: int) -> range:
    return range(0, count, BLOCK)


def _pack(scores: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """Return (n,) uint64 that ascend where float32 scores descend, the tag in the lower half."""
    # The bits of floats ascend like integers once negative ones are inverted and the sign bit is
    # flipped; all inverted, they descend.
    bits = scores.view(np.uint32)  # -0 comes right behind 0, which equals it: one threshold
    descending = np.where(bits >> 31, bits, ~(bits | np.uint32(1 << 31)))
    return (descending.astype(np.uint64) << np.uint64(32)) | tags


def _unpack(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    descending = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(descending >> 31, descending, ~(descending | np.uint32(1 << 31)))
    return bits.view(np.float32), keys.astype(np.uint32)


def _walk(ordered: _Descending, areas: np.ndarray | None, fpr_limit: float) -> Metrics:
    """Lower the threshold from above all scores to below, and measure on the way.

    Args:
        ordered: The scores with their tags.
        areas: (REGION + regions,) items with each tag; None where defective items have no regions.
        fpr_limit: How far the area under the region overlap goes.
    """
    num_defective, num_beside = _count_classes(ordered, areas)
    num_good = len(ordered) - num_defective
    if not num_defective or not num_good:
        return Metrics()
    gain = _overlap_gain(areas)
    area_roc = area_beside = area_pro = precision_sum = 0.0
    best = (-1.0, math.nan, 0, 0)  # F1, threshold, true and false positives
    # Found so far: defective, good, good beside defects; mean overlap.
    state = np.zeros(4)
    sampled = [np.zeros((1, 4))]
    for scores, tags, ends in ordered.blocks():
        defective = tags >= REGION
        found = np.cumsum(defective)
        beside = np.cumsum(tags == GOOD_BESIDE_DEFECT)
        overlap = np.cumsum(np.append(0.0, gain[np.minimum(tags[defective], len(gain) - 1)]))
        at = _turns(ends, found, sampled[-1][-1, 0] - state[0])
        shown = np.append(at, len(tags) - 1)  # the last item carries the counts on
        known = found[shown]
        counted = np.stack([known, shown + 1 - known, beside[shown], overlap[known]])
        counted += state[:, None]
        state = counted[:, -1].copy()
        if not len(at):
            continue
        points = np.concatenate([sampled[-1][-1:].T, counted[:, :-1]], axis=1)  # (4, m + 1)
        true, false, beside, overlap = points
        area_roc += float(np.trapezoid(true, false))
        area_beside += float(np.trapezoid(true, beside))
        area_pro += _area_up_to(false / num_good, overlap, fpr_limit)
        precision_sum += float(np.diff(true) @ (true[1:] / (true[1:] + false[1:])))
        f1 = 2 * true[1:] / (true[1:] + false[1:] + num_defective)
        top = int(f1.argmax())
        if f1[top] > best[0]:
            best = float(f1[top]), float(scores[at[top]]), int(true[1 + top]), int(false[1 + top])
        rates = points[[1, 0, 3]].T / (num_good, num_defective, 1)
        sampled.append(points.T[_worth_drawing(rates)])
    f1_best, threshold, true_positives, false_positives = best
    has_regions = areas is not None
    return Metrics(
        auroc=area_roc / (num_defective * num_good),
        auroc_defective=area_beside / (num_defective * num_beside) if num_beside else math.nan,
        average_precision=precision_sum / num_defective,
        f1_max=f1_best,
        threshold=threshold,
        false_positives=false_positives,
        false_negatives=num_defective - true_positives,
        aupro=area_pro / fpr_limit if has_regions else math.nan,
        curve=_curve(np.concatenate(sampled), num_defective, num_good),
    )


def _turns(ends: np.ndarray, found: np.ndarray, found_before: float) -> np.ndarray:
    """Return the thresholds that decide: where defective items are found, and just before.

    Between them only good items are found and every curve is straight, so that the others add
    nothing to an area; and most pixels are good.

    Args:
        ends: (m,) bool, whether a score ends at an item.
        found: (m,) how many defective items of this block are found up to it.
        found_before: The same at the last end before this block, 0 or less.

    Returns:
        Indices into the block, ascending: the last end is always among them.
    """
    at = np.flatnonzero(ends)
    if not len(at):
        return at
    kept = np.diff(found[at], prepend=found_before) > 0
    kept[:-1] |= kept[1:]
    kept[-1] = True
    return at[kept]


def _count_classes(ordered: _Descending, areas: np.ndarray | None) -> tuple[int, int]:
    """Return how many items are defective, and how many are good beside defects."""
    if areas is not None:
        return int(areas[REGION:].sum()), int(areas[GOOD_BESIDE_DEFECT])
    return sum(int((tags >= REGION).sum()) for _, tags, _ in ordered.blocks()), 0


def _overlap_gain(areas: np.ndarray | None) -> np.ndarray:
    """Return for each tag what finding an item of it adds to the mean overlap of regions."""
    if areas is None:
        return np.zeros(REGION + 1)
    gain = np.zeros(len(areas))
    gain[REGION:] = 1 / (areas[REGION:] * max(len(areas) - REGION, 1))
    return gain


def _area_up_to(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Return the area under the points (ascending in x) left of a limit."""
    if x[0] >= limit:
        return 0.0
    if x[-1] > limit:
        inside = int(np.searchsorted(x, limit, side="right"))
        # Only the part up to the limit of the stretch that crosses it.
        share = (limit - x[inside - 1]) / (x[inside] - x[inside - 1])
        at_limit = y[inside - 1] + share * (y[inside] - y[inside - 1])
        x, y = np.append(x[:inside], limit), np.append(y[:inside], at_limit)
    return float(np.trapezoid(y, x))


def _worth_drawing(rates: np.ndarray) -> np.ndarray:
    """Return which points (m + 1, 3) after the first reach another step of any rate; the last does.

    The last one stays in any case, as the next block's first.
    """
    steps = np.floor(rates * CURVE_STEPS)
    kept = (steps[1:] != steps[:-1]).any(axis=1)
    # The point just before a step too, or a long flat stretch would be drawn as a slope.
    kept[:-1] |= kept[1:]
    kept[-1] = True
    return 1 + np.flatnonzero(kept)


def _curve(points: np.ndarray, num_defective: int, num_good: int) -> Curve:
    true, false, _, overlap = points.T
    found = true + false
    return Curve(
        false_positive_rate=false / num_good,
        true_positive_rate=true / num_defective,
        precision=np.divide(true, found, out=np.ones(len(found)), where=found > 0),
        region_overlap=overlap,
    )
