"""Metrics of a run, computed again by scikit-learn and loops from what ``--save_maps`` wrote."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from sklearn import metrics as sklearn_metrics

from tests.support import read_maps

METRICS = ("auroc", "ap", "f1_max", "threshold")


def check_against_saved_maps(folder: Path, row: dict[str, str]) -> None:
    """Check every metric of a row of ``results.csv``; empty where there is nothing to measure."""
    saved = read_maps(folder, row)
    labels, scores = saved["labels"], saved["scores"]
    expected = {f"image_{name}": value for name, value in measure(labels, scores).items()}
    if len(set(labels.tolist())) == 2:
        found = scores >= np.float32(expected["image_threshold"])
        expected["image_false_positives"] = (found & ~labels).sum()
        expected["image_false_negatives"] = (~found & labels).sum()
    else:
        expected |= dict.fromkeys(("image_false_positives", "image_false_negatives"))
    judged = ~saved.get("ignored", np.zeros(saved["anomaly_maps"].shape[1:], bool))
    if judged.ndim == 3:  # at the size of the images, with one mask for each
        (judged,) = np.unique(judged, axis=0)
    expected |= measure_pixels(saved.get("masks"), saved["anomaly_maps"], judged)
    for name, value in expected.items():
        text = row[name]
        assert (text == "") if value is None else float(text) == pytest.approx(value, rel=1e-6), (
            name
        )


def measure(labels: np.ndarray, scores: np.ndarray) -> dict[str, float | None]:
    """Measure items by scikit-learn.

    Args:
        labels: (n,) bool, True where defective.
        scores: (n,) float32.

    Returns:
        The metrics by name; None with one class only.
    """
    if labels.all() or not labels.any():
        return dict.fromkeys(METRICS)
    precision, recall, thresholds = sklearn_metrics.precision_recall_curve(labels, scores)
    true = np.rint(recall[:-1] * labels.sum())
    found = np.rint(true / precision[:-1])
    f1 = 2 * true / (found + labels.sum())
    return {
        "auroc": sklearn_metrics.roc_auc_score(labels, scores),
        "ap": sklearn_metrics.average_precision_score(labels, scores),
        "f1_max": f1.max(),
        "threshold": thresholds[f1 == f1.max()].max(),
    }


def measure_pixels(
    masks: np.ndarray | None, maps: np.ndarray, judged: np.ndarray
) -> dict[str, float | None]:
    """Measure the judged pixels (H, W) of all maps (B, H, W); None if there is one class only."""
    names = (*METRICS, "aupro", "auroc_defective")
    if masks is None or not masks.any() or masks.all():
        return {f"pixel_{name}": None for name in names}
    masks = masks & judged
    defective = masks.any(axis=(1, 2))
    within = measure(masks[defective][:, judged].ravel(), maps[defective][:, judged].ravel())
    of_all = measure(masks[:, judged].ravel(), maps[:, judged].ravel())
    return {
        **{f"pixel_{name}": value for name, value in of_all.items()},
        "pixel_aupro": aupro_by_loops(maps, masks, judged),
        "pixel_auroc_defective": within["auroc"],
    }


def aupro_by_loops(
    maps: np.ndarray, masks: np.ndarray, judged: np.ndarray, limit: float = 0.3
) -> float:
    """Compute AUPRO of the judged pixels from each distinct threshold and each region."""
    labelled = [ndimage.label(mask, np.ones((3, 3))) for mask in masks]
    regions = [np.flatnonzero(lab == n) for lab, count in labelled for n in range(1, count + 1)]
    images = [i for i, (_, count) in enumerate(labelled) for _ in range(count)]
    good = np.sort(maps[~masks & judged])
    thresholds = np.unique(maps[:, judged])[::-1]
    rates = 1 - np.searchsorted(good, thresholds) / len(good)
    overlaps = np.mean(
        [
            1 - np.searchsorted(values, thresholds) / len(values)
            for values in (
                np.sort(maps[i].reshape(-1)[region])
                for i, region in zip(images, regions, strict=True)
            )
        ],
        axis=0,
    )
    rates, overlaps = np.append(0, rates), np.append(0, overlaps)
    inside = rates <= limit
    at_limit = np.interp(limit, rates, overlaps)
    return (
        np.trapezoid(np.append(overlaps[inside], at_limit), np.append(rates[inside], limit)) / limit
    )
