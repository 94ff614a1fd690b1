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
    expected |= measure_pixels(saved.get("masks"), saved["anomaly_maps"])
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


def measure_pixels(masks: np.ndarray | None, maps: np.ndarray) -> dict[str, float | None]:
    """Measure the pixels of all maps (B, H, W); None for what the masks do not allow."""
    names = (*METRICS, "aupro", "auroc_defective")
    if masks is None or not masks.any() or masks.all():
        return {f"pixel_{name}": None for name in names}
    defective = masks.any(axis=(1, 2))
    within = measure(masks[defective].reshape(-1), maps[defective].reshape(-1))
    return {
        **{f"pixel_{n}": v for n, v in measure(masks.reshape(-1), maps.reshape(-1)).items()},
        "pixel_aupro": aupro_by_loops(maps, masks),
        "pixel_auroc_defective": within["auroc"],
    }


def aupro_by_loops(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """Compute AUPRO from each distinct threshold and each region."""
    labelled = [ndimage.label(mask, np.ones((3, 3))) for mask in masks]
    regions = [np.flatnonzero(lab == n) for lab, count in labelled for n in range(1, count + 1)]
    images = [i for i, (_, count) in enumerate(labelled) for _ in range(count)]
    good = np.sort(maps[~masks])
    thresholds = np.unique(maps)[::-1]
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
