"""Metrics at the size of the images, against scikit-learn on the files themselves."""

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.support import evaluate, make_category, read_maps, read_table
from utils.pipeline.ground_truth import (
    GroundTruth,
    JudgedPixels,
    OriginalTruth,
    without_pixels,
)
from utils.saturated_overlap import SaturatedRegion

FLAGS = "--size_resize 72 --size_crop 64 --save_maps --percentage_coreset 0.1 --map_size original"


@pytest.fixture
def data(tmp_path):
    make_category(tmp_path / "data", "widget")
    return tmp_path / "data"


def enlarge(file, size):
    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(file), cv2.resize(image, size, interpolation=cv2.INTER_NEAREST))


def window(length):
    """Return the pixels with their centres in the middle 64 of 72 parts of a length."""
    centres = (np.arange(length) + 0.5) * 72 / length
    inside = np.flatnonzero((centres >= 4) & (centres <= 68))
    return slice(inside[0], inside[-1] + 1)


def test_metrics_are_those_of_the_images_own_pixels(data, tmp_path):
    folder = data / "widget"
    first = sorted(p for p in (folder / "test").glob("*/*.png") if p.parent.name != "good")[0]
    mask = folder / "ground_truth" / first.parent.name / f"{first.stem}_mask.png"
    for file in (first, mask):
        enlarge(file, (150, 91))
    result = evaluate(data, tmp_path / "result", FLAGS)
    (row,) = read_table(result)
    saved = read_maps(result, row)
    assert "has_ground_truth" not in saved  # it is known of all images
    files = saved["files"].tolist()
    scores, labels = [], []
    for index, file in enumerate(files):
        defect, name = file.split("/")
        image = cv2.imread(str(folder / "test" / file))
        found = saved[f"anomaly_maps_{index:04d}"]
        mask = np.zeros(image.shape[:2], np.uint8)
        if defect != "good":
            path = folder / "ground_truth" / defect / f"{name[:-4]}_mask.png"
            mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        expected = mask[window(image.shape[0]), window(image.shape[1])] > 0
        np.testing.assert_array_equal(saved[f"masks_{index:04d}"], expected)
        assert found.shape == expected.shape
        scores.append(found.ravel())
        labels.append(expected.ravel())
    scores, labels = np.concatenate(scores), np.concatenate(labels)
    assert float(row["pixel_auroc"]) == pytest.approx(roc_auc_score(labels, scores), abs=1e-8)
    expected = average_precision_score(labels, scores)
    assert float(row["pixel_ap"]) == pytest.approx(expected, abs=1e-8)


def test_images_of_one_size_give_stacks(data, tmp_path):
    (data / "widget/ground_truth").rename(tmp_path / "moved")
    result = evaluate(data, tmp_path / "result", FLAGS)
    (row,) = read_table(result)
    saved = read_maps(result, row)
    size = cv2.imread(str(next((data / "widget/test/good").iterdir()))).shape[:2]
    windows = [window(length) for length in size]
    assert saved["anomaly_maps"].shape[1:] == tuple(w.stop - w.start for w in windows)
    assert not {"masks", "has_ground_truth"} & saved.keys()


@pytest.mark.parametrize("mask", [np.eye(24, 40, dtype=bool), None])
def test_maps_masks_and_ignored_pixels_keep_their_places(mask):
    """A map that tells its own row, in an image twice as large as the crop with its border."""
    size, box = (24, 40), (4.0, 2.0, 36.0, 22.0)
    truth = GroundTruth(
        np.zeros((1, 10, 16), bool),
        originals=(OriginalTruth.of(size, box, mask, []),),
    )
    rows = np.repeat(np.arange(10, dtype=np.float32)[:, None], 16, axis=1)
    ignored = rows == 3
    pixels = truth.pixels(rows[None], ignored)
    assert pixels.maps[0].shape == pixels.masks[0].shape == pixels.hidden[0].shape == (20, 32)
    np.testing.assert_allclose(pixels.maps[0][:, 0], ((np.arange(20) + 0.5) / 2 - 0.5).clip(0, 9))
    expected = np.zeros((20, 32), bool) if mask is None else mask[2:22, 4:36]
    np.testing.assert_array_equal(pixels.masks[0], expected)
    assert np.flatnonzero(pixels.hidden[0].any(1)).tolist() == [6, 7]


@pytest.mark.parametrize(
    ("hidden", "shapes"),
    [
        (np.eye(4, 6, dtype=bool), [(4, 6), (4, 6)]),
        ([np.eye(4, 6, dtype=bool), np.eye(3, 5, dtype=bool)], [(4, 6), (3, 5)]),
        (np.eye(4, 6, dtype=bool), [(4, 6)]),
        ([np.eye(4, 6, dtype=bool)], [(4, 6)]),
    ],
)
def test_what_is_measured_without_the_hidden_pixels(hidden, shapes):
    """One mask for all maps, and one for each of maps of two sizes; also of a single image."""
    rng = np.random.default_rng(0)
    maps = [rng.random(shape, dtype=np.float32) for shape in shapes]
    masks = [one > 0.5 for one in maps]
    last = len(maps) - 1
    regions = (SaturatedRegion(last, masks[last], 0.5),)
    found = without_pixels(JudgedPixels(maps, masks, regions, hidden))
    for index, shape in enumerate(shapes):
        seen = [at for at in np.ndindex(shape) if at[0] != at[1]]
        assert found.maps[index].tolist() == [maps[index][at] for at in seen]
        assert found.masks[index].tolist() == [masks[index][at] for at in seen]
    (region,) = found.regions
    assert (region.image, region.share) == (last, 0.5)
    np.testing.assert_array_equal(region.mask, found.masks[last])
    assert found.hidden is None
