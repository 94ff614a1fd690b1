import math
import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn import metrics as sklearn_metrics

from utils import metrics, sorted_scores
from utils.metrics import measure, measure_pixels


def make_pixels(seed=0, images=6, size=(40, 50), regions=4, levels=None, dtype=np.float32):
    """Maps and masks with overlapping scores; ``levels`` rounds them, so that many are equal."""
    generator = np.random.default_rng(seed)
    maps = generator.gamma(2.0, 1.0, (images, *size))
    masks = np.zeros(maps.shape, dtype=bool)
    for image in range(1, images):  # the first is good
        for _ in range(regions):
            row, column = generator.integers(0, size[0] - 3), generator.integers(0, size[1] - 3)
            height, width = generator.integers(1, 9, 2)
            masks[image, row : row + height, column : column + width] = True
    maps[masks] += generator.gamma(2.0, 1.0, masks.sum())
    if levels:
        maps = np.round(maps * levels) / levels
    return maps.astype(dtype), masks


def aupro_by_loops(maps, masks, fpr_limit):
    """The slow twin: each distinct threshold, each region, counted anew."""
    labelled = [ndimage.label(mask, np.ones((3, 3))) for mask in masks]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        overlaps = [
            found[i][labels == number].mean()
            for i, (labels, count) in enumerate(labelled)
            for number in range(1, count + 1)
        ]
        points.append((found[~masks].mean(), np.mean(overlaps)))
    rates, overlap = np.array(points).T
    # At a rate that several thresholds share the curve jumps: integrate stretch by stretch.
    area = 0.0
    for i in range(1, len(rates)):
        left, right = rates[i - 1], min(rates[i], fpr_limit)
        if right <= left:
            continue
        at_right = np.interp(right, rates[i - 1 : i + 1], overlap[i - 1 : i + 1])
        area += (right - left) * (overlap[i - 1] + at_right) / 2
    return area / fpr_limit


scored_items = st.lists(
    st.tuples(
        st.floats(-100, 100, width=32) | st.sampled_from([0.0, -0.0, 1.0, 2.0]), st.booleans()
    ),
    min_size=2,
    max_size=60,
).filter(lambda items: len({label for _, label in items}) == 2)


@settings(max_examples=200, deadline=None)
@given(items=scored_items, dtype=st.sampled_from([np.float32, np.float64]))
def test_equal_scikit_learn(items, dtype):
    scores = np.array([score for score, _ in items], dtype=dtype)
    labels = np.array([label for _, label in items])
    found = measure(scores, labels)
    assert found.auroc == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert found.average_precision == pytest.approx(
        sklearn_metrics.average_precision_score(labels, scores), abs=1e-12
    )
    f1_of = {t: sklearn_metrics.f1_score(labels, scores >= t) for t in scores}
    assert found.f1_max == pytest.approx(max(f1_of.values()), abs=1e-12)
    assert f1_of[found.threshold] == pytest.approx(found.f1_max, abs=1e-12)
    assert found.false_positives == (scores[~labels] >= found.threshold).sum()
    assert found.false_negatives == (scores[labels] < found.threshold).sum()


@settings(max_examples=50, deadline=None)
@given(items=scored_items, block=st.integers(1, 9))
@example(items=[(4, True), (3, False), (2, False), (1, True)], block=2)  # the same F1 twice
def test_blocks_do_not_change_the_result(items, block):
    scores = np.array([score for score, _ in items], dtype=np.float32)
    labels = np.array([label for _, label in items])
    whole = measure(scores, labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_scores, "BLOCK", block)
        parts = measure(scores, labels)
    for name in ("auroc", "average_precision", "f1_max", "threshold"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=40))
def test_torch_sorts_as_numpy_does(keys):
    keys = np.array(keys, dtype=np.uint64)
    expected = np.sort(keys)
    found = sorted_scores._sorted_by_torch(keys, torch.device("cpu"))
    assert found.dtype == np.uint64
    assert found.tolist() == expected.tolist()


def test_without_memory_on_the_device_the_host_sorts(monkeypatch):
    class Full:
        def sort(self):
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.Tensor, "to", lambda *_: Full())
    keys = np.array([2**63, 3, 2**64 - 1, 0, 2**63 - 1], dtype=np.uint64)
    found = sorted_scores._sorted_by_torch(keys, torch.device("cuda"))
    assert found.dtype == np.uint64
    assert found.tolist() == [0, 3, 2**63 - 1, 2**63, 2**64 - 1]


@pytest.mark.gpu
def test_pixels_sorted_on_a_gpu_measure_the_same():
    maps, masks = make_pixels(levels=20)
    on_gpu = measure_pixels(maps, masks, device=torch.device("cuda"))
    expected = measure_pixels(maps, masks)
    for name in ("auroc", "aupro", "average_precision", "f1_max", "threshold"):
        assert getattr(on_gpu, name) == getattr(expected, name)


def test_normal_items_between_defective_ones_add_no_threshold():
    """Areas depend only on thresholds at which defective items are found, and those before."""
    scores = np.arange(1000, 0, -1, dtype=np.float32)
    labels = np.zeros(1000, bool)
    labels[[10, 500]] = True
    ends = np.ones(1000, bool)
    found = metrics._decisive_thresholds(ends, np.cumsum(labels), 0)
    assert found.tolist() == [9, 10, 499, 500, 999]
    # 989 good ones lie below the first defect, 500 below the second.
    assert measure(scores, labels).auroc == (988 + 499) / (2 * 998)


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [997, 1 << 17])
def test_pixels_equal_scikit_learn(monkeypatch, levels, dtype, block):
    monkeypatch.setattr(sorted_scores, "BLOCK", block)
    maps, masks = make_pixels(levels=levels, dtype=dtype)
    found = measure_pixels(maps, masks)
    labels, scores = masks.reshape(-1), maps.reshape(-1)
    assert found.auroc == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)
    assert found.average_precision == pytest.approx(
        sklearn_metrics.average_precision_score(labels, scores), abs=1e-12
    )
    defective = masks.any(axis=(1, 2))
    assert found.auroc_defective == pytest.approx(
        sklearn_metrics.roc_auc_score(masks[defective].ravel(), maps[defective].ravel()), abs=1e-12
    )


@pytest.mark.parametrize("fpr_limit", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("levels", [2, 20])
def test_aupro_equals_its_slow_twin(levels, fpr_limit):
    maps, masks = make_pixels(levels=levels)
    expected = aupro_by_loops(maps, masks, fpr_limit)
    assert measure_pixels(maps, masks, fpr_limit).aupro == pytest.approx(expected, abs=1e-9)


def test_aupro_equals_its_slow_twin_with_hundreds_of_regions(monkeypatch):
    monkeypatch.setattr(sorted_scores, "BLOCK", 1000)
    generator = np.random.default_rng(0)
    masks = generator.random((5, 60, 60)) < 0.08
    masks = np.stack(
        [ndimage.binary_dilation(mask) & (generator.random((60, 60)) < 0.7) for mask in masks]
    )
    assert sum(ndimage.label(mask, np.ones((3, 3)))[1] for mask in masks) > 300
    maps = generator.random(masks.shape).astype(np.float32) + 0.5 * masks
    maps = np.round(maps * 50) / 50
    assert measure_pixels(maps, masks).aupro == pytest.approx(
        aupro_by_loops(maps, masks, 0.3), abs=1e-9
    )


def test_aupro_worked_out_by_hand():
    """Two regions of 1 and 2 pixels, five good pixels, one of which scores second."""
    masks = np.array([[[1, 0, 0, 1, 1, 0, 0, 0]]], dtype=bool)
    maps = np.array([[[9, 8, 1, 7, 2, 1, 1, 1]]], dtype=np.float32)
    # Found in turn: region 1 (overlap 1/2), a good pixel (rate 1/5), half of region 2 (3/4), the
    # other half (1), the rest. Up to rate 1/5 the curve rises straight from (0, 1/2) to (1/5, 1/2).
    assert measure_pixels(maps, masks, 0.2).aupro == pytest.approx(0.5)
    # Beyond it the overlap is 1: at rate 0.3 the area is 0.1 + 0.1.
    assert measure_pixels(maps, masks, 0.3).aupro == pytest.approx(0.2 / 0.3)


def test_diagonal_neighbours_are_one_region():
    masks = np.zeros((1, 4, 4), dtype=bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 3, 3] = True
    _, areas = metrics.tag_regions(masks)
    assert areas.tolist() == [0, 13, 2, 1]


def test_a_region_of_one_pixel_weighs_as_much_as_a_large_one():
    masks = np.zeros((1, 20, 20), dtype=bool)
    masks[0, :10] = True
    masks[0, 15, 15] = True
    maps = np.where(masks, 2.0, 0.0).astype(np.float32)
    maps[0, 15, 15] = -1  # the small one is found last of all
    assert measure_pixels(maps, masks).aupro == pytest.approx(0.5)


@pytest.mark.parametrize("where", [np.s_[0, :], np.s_[:, -1], np.s_[-1, -1]])
def test_regions_that_touch_the_border_count(where):
    masks = np.zeros((1, 12, 12), dtype=bool)
    masks[0][where] = True
    maps = masks.astype(np.float32)
    assert measure_pixels(maps, masks).aupro == pytest.approx(1.0)
    assert measure(maps, masks).auroc == 1.0


def test_a_region_that_covers_its_image_is_measured_against_the_other_images():
    masks = np.zeros((2, 6, 6), dtype=bool)
    masks[1] = True
    found = measure_pixels(np.where(masks, 2.0, 1.0).astype(np.float32), masks)
    assert found.auroc == found.average_precision == 1.0
    assert found.aupro == pytest.approx(1.0)
    assert math.isnan(found.auroc_defective)  # a defective image without a good pixel


@pytest.mark.parametrize(
    ("scores", "labels"),
    [([], []), ([1.0, 2.0], [True, True]), ([1.0, 2.0], [False, False])],
)
def test_nothing_is_measured_without_both_classes(scores, labels):
    scores, labels = np.array(scores, dtype=np.float32), np.array(labels, dtype=bool)
    found = measure(scores, labels)
    assert np.isnan([found.auroc, found.average_precision, found.f1_max]).all()
    assert found.curve is None


@pytest.mark.parametrize("fill", [False, True])
def test_no_pixel_is_measured_without_both_classes(fill):
    found = measure_pixels(np.random.rand(2, 3, 4), np.full((2, 3, 4), fill))
    assert math.isnan(found.auroc)
    assert math.isnan(found.aupro)
    assert math.isnan(measure_pixels(np.zeros((0, 3, 4)), np.zeros((0, 3, 4))).aupro)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_scores_tell_nothing(dtype):
    labels = np.array([True, False, False, False])
    found = measure(np.full(4, 3.5, dtype=dtype), labels)
    assert found.auroc == 0.5
    assert found.average_precision == 0.25
    assert (found.f1_max, found.threshold) == (0.4, 3.5)
    assert (found.false_positives, found.false_negatives) == (3, 0)


def test_infinite_scores_are_the_highest():
    assert (
        measure(np.array([np.inf, 1, -np.inf], dtype=np.float32), np.array([1, 0, 0])).auroc == 1.0
    )


def test_zero_and_minus_zero_are_equal():
    assert measure(np.array([0.0, -0.0], dtype=np.float32), np.array([True, False])).auroc == 0.5


@settings(max_examples=50, deadline=None)
@given(items=scored_items)
def test_turning_the_scores_around_turns_the_auroc_around(items):
    scores = np.array([score for score, _ in items], dtype=np.float32)
    labels = np.array([label for _, label in items])
    assert measure(-scores, labels).auroc == pytest.approx(
        1 - measure(scores, labels).auroc, abs=1e-12
    )
    assert measure(scores, ~labels).auroc == pytest.approx(
        1 - measure(scores, labels).auroc, abs=1e-12
    )
    assert measure(scores * 2, labels).auroc == measure(scores, labels).auroc


def test_curves_run_from_nothing_to_everything_and_keep_the_areas():
    maps, masks = make_pixels(images=8)
    found = measure_pixels(maps, masks)
    curve = found.curve
    assert len(curve.precision) < 3.2 * 2 * metrics.CURVE_STEPS < maps.size
    for rate in (curve.false_positive_rate, curve.true_positive_rate, curve.region_overlap):
        assert rate[0] == 0
        assert rate[-1] == pytest.approx(1)
        assert (np.diff(rate) >= -1e-12).all()
    drawn = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert drawn == pytest.approx(found.auroc, abs=1e-4)


@pytest.mark.parametrize(("rows", "images"), [(20, 1), (150, 2)])
def test_no_curve_has_a_gap_of_more_than_a_thousandth(rows, images):
    """Of two regions, one has few pixels; or most normal pixels are in a good image."""
    generator = np.random.default_rng(0)
    maps = generator.random((images, 400, 500)).astype(np.float32)
    masks = np.zeros(maps.shape, dtype=bool)
    masks[0, :200], masks[0, 250 : 250 + rows] = True, True
    maps[0, :250] += 0.3
    curve = measure_pixels(maps, masks).curve
    for rate in (curve.false_positive_rate, curve.true_positive_rate, curve.region_overlap):
        assert np.diff(rate).max() < 1 / metrics.CURVE_STEPS
        assert len(rate) < 3.2 * 2 * metrics.CURVE_STEPS < maps.size


def test_images_have_no_metrics_of_regions():
    found = measure(np.array([4.0, 3, 2, 1]), np.array([1, 0, 1, 0]))
    names = ("auroc_defective", "aupro", "aupro_limit", "au_spro", "spro_limit")
    assert all(math.isnan(getattr(found, name)) for name in names)
    assert found.auroc == 0.75


def test_curves_of_few_items_keep_every_point():
    curve = measure(np.array([4.0, 3, 2, 1]), np.array([1, 0, 1, 0])).curve
    assert curve.false_positive_rate.tolist() == [0, 0, 0.5, 0.5, 1]
    assert curve.true_positive_rate.tolist() == [0, 0.5, 0.5, 1, 1]
    assert curve.precision.tolist() == [1, 1, 0.5, 2 / 3, 0.5]
    curve = measure(np.array([2.0, 1]), np.array([0, 1])).curve
    assert curve.precision.tolist() == [1, 0, 0.5]  # the highest item is a normal one


def test_needs_little_memory_beside_the_maps():
    maps, masks = make_pixels(images=60, size=(224, 224))
    tracemalloc.start()
    measure_pixels(maps, masks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * maps.nbytes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measure(np.zeros(3), np.zeros(4)), r"labels of shape \(3,\), found \(4,\)"),
        (lambda: measure(np.array([1, np.nan]), np.array([0, 1])), "without NaN"),
        (lambda: measure(np.array([1, np.nan], np.float32), np.array([0, 1])), "without NaN"),
        (lambda: measure_pixels(np.zeros((2, 3)), np.zeros((2, 3))), r"maps and masks \(B, H, W\)"),
        (lambda: measure_pixels(np.zeros((1, 2, 3)), np.zeros((1, 2, 4))), r"maps and masks"),
        (
            lambda: measure_pixels(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), 0),
            r"fpr_limit in \(0, 1\]",
        ),
    ],
)
def test_refuses_what_cannot_be_measured(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_limit_of_aupro_is_known_where_there_are_regions():
    maps, masks = make_pixels()
    assert measure_pixels(maps, masks, 0.05).aupro_limit == 0.05
    assert math.isnan(measure_pixels(maps, np.zeros_like(masks)).aupro_limit)
    assert math.isnan(measure(maps, masks).aupro_limit)


def test_ignored_pixels_are_measured_as_if_they_were_not_there():
    """They divide the second defect into two regions, and hide the third."""
    rng = np.random.default_rng(0)
    maps, masks = rng.random((4, 12, 10)).astype(np.float32), np.zeros((4, 12, 10), bool)
    masks[0, :3, :3] = masks[1, 2:9, 4:8] = masks[2, 5, 2:9] = True
    maps[masks] += 0.3
    ignored = np.zeros((12, 10), bool)
    ignored[4:6] = True
    found = measure_pixels(maps, masks, ignored=ignored)
    kept = np.flatnonzero(~ignored.ravel())
    pixels, labels = (values.reshape(4, -1)[:, kept] for values in (maps, masks))
    expected = measure(pixels, labels)
    for name in ("auroc", "average_precision", "f1_max", "threshold", "false_negatives"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.auroc_defective == measure(pixels[:2], labels[:2]).auroc
    by_hand = aupro_of_judged(maps, masks & ~ignored, ~ignored, 0.3)
    assert found.aupro == pytest.approx(by_hand, rel=1e-9)


def test_nothing_is_measured_without_maps():
    """As where no test image of a category has a ground truth."""
    for maps in ([], np.zeros((0, 4, 4), np.float32)):
        found = measure_pixels(maps, [] if isinstance(maps, list) else maps > 0)
        assert np.isnan([found.auroc, found.average_precision, found.f1_max, found.aupro]).all()


def test_maps_of_different_sizes():
    """As larger maps with borders that are ignored, each its own."""
    rng = np.random.default_rng(0)
    maps = rng.random((4, 12, 10)).astype(np.float32)
    masks = rng.random((4, 12, 10)) < 0.2
    masks[3] = False
    hidden = np.ones(maps.shape, bool)
    windows = [np.s_[:9, :7], np.s_[2:, 3:], np.s_[:, :], np.s_[4:6, 1:9]]
    for index, window in enumerate(windows):
        hidden[index][window] = False
    expected = measure_pixels(maps, masks, ignored=list(hidden))
    cut = [[one[w] for one, w in zip(of, windows, strict=True)] for of in (maps, masks)]
    found = measure_pixels(*cut)
    for field in fields(metrics.Metrics):
        if field.name != "curve":
            assert getattr(found, field.name) == pytest.approx(
                getattr(expected, field.name), rel=1e-12, nan_ok=True
            )
    with pytest.raises(ValueError, match=r"found shapes \(9, 7\), .* and \(10, 7\)"):
        measure_pixels(cut[0], [cut[1][1], *cut[1][1:]])


def aupro_of_judged(maps, masks, judged, fpr_limit):
    """Compute AUPRO from every threshold, over judged pixels."""
    thresholds = np.unique(maps[:, judged])[::-1]
    regions = []
    for number, mask in enumerate(masks):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [maps[number][labels == label] for label in range(1, count + 1)]
    assert len(regions) == 3
    normal = maps[:, judged][~masks[:, judged]]
    rates = [0.0, *((normal >= t).mean() for t in thresholds)]
    overlaps = [0.0, *(np.mean([(r >= t).mean() for r in regions]) for t in thresholds)]
    inside = [rate for rate in rates if rate <= fpr_limit]
    x = [*inside, fpr_limit]
    y = [*overlaps[: len(inside)], np.interp(fpr_limit, rates, overlaps)]
    return np.trapezoid(y, x) / fpr_limit
