"""The figure of the most anomalous patches and their nearest training patches."""

from dataclasses import replace

import numpy as np
import pytest

from utils.plots import draw_explanation, explanation, panel_grid, text
from utils.plots.explanation import CROP_SIDE, TITLE_HEIGHT, ExplainedPatch, NormalPatch


def test_the_number_of_a_patch_in_the_corner_is_within_the_image():
    image, field = np.zeros((64, 64, 3), np.uint8), (4, 4, 12, 12)
    nearest = NormalPatch(image[:16, :16], field, "", "", 1.0)
    patch = ExplainedPatch(image[:16, :16], field, (0, 0, 16, 16), "", 1.0, [nearest])
    picture = draw_explanation(image, [patch], title="", file_name="")
    left, top = panel_grid.MARGIN, panel_grid.MARGIN + TITLE_HEIGHT
    assert (picture[:, : left - 3] == 255).all()  # but for the line around the patch
    assert (picture[: top - 3, : left + 100] == 255).all()


@pytest.mark.parametrize(
    ("size", "width"),
    [((40, 40), 212), ((40, 80), 424), ((40, 10), 53), ((10, 29), 615), ((10, 31), 636)],
)
def test_a_whole_training_image_is_as_high_as_the_crops_and_at_most_three_times_as_wide(
    size, width
):
    image, green = np.zeros((64, 64, 3), np.uint8), (10, 200, 30)
    whole = np.full((*size, 3), green, np.uint8)
    place = (4, 4, 12, 12), "1.png", "row 1", 1.0
    nearest = [NormalPatch(image[:16, :16], *place, whole=whole, box=(0, 0, 1, 1))] * 2
    patch = ExplainedPatch(image[:16, :16], place[0], (0, 0, 16, 16), "", 1.0, nearest)
    picture = draw_explanation(image, [patch], title="", file_name="")
    is_green = (picture == green).all(-1)
    assert np.ptp(is_green.any(1).nonzero()) + 1 == CROP_SIDE
    starts, ends = (np.diff(is_green.any(0).astype(int)) == step for step in (1, -1))
    (first, second), last = starts.nonzero()[0], ends.nonzero()[0]
    assert (last - (first, second)).tolist() == [width] * 2
    assert second - last[0] == 2 * explanation.GAP + CROP_SIDE  # a crop between them
    assert last[1] == picture.shape[1] - panel_grid.MARGIN - 1


@pytest.mark.parametrize(("width", "is_whole"), [(16, False), (40, False), (80, True)])
def test_the_name_of_a_training_image_is_as_wide_as_the_image(monkeypatch, width, is_whole):
    name = "a_name_of_a_training_image.png"  # wider than the crops
    whole = np.zeros((40, width, 3), np.uint8)
    patch = explained(1.0, (0, 0, 16, 16))
    nearest = replace(patch.nearest[0], name=name, whole=whole, box=(0, 0, 1, 1))
    labels = labels_of_explanation(monkeypatch, [replace(patch, nearest=[nearest])])
    width = CROP_SIDE * width / 40
    assert (name in labels) is is_whole is (explanation.NOTE.width(name) <= width)
    assert text.fit_text(name, explanation.NOTE, width) in labels


def test_a_training_image_of_one_column_has_a_pixel_across():
    assert explanation._whole_size(np.zeros((900, 1, 3))) == (1, CROP_SIDE)


def explained(score: float, box: tuple[int, int, int, int], count: int = 1) -> ExplainedPatch:
    crop, field = np.zeros((16, 16, 3), np.uint8), (4, 4, 12, 12)
    nearest = [
        NormalPatch(crop, field, "1.png", "patch row 3, column 4", score + n) for n in range(count)
    ]
    return ExplainedPatch(crop, field, box, "patch row 1, column 2", score, nearest)


def labels_of_explanation(monkeypatch, patches, **changed) -> list[str]:
    labels = []
    monkeypatch.setattr(explanation, "draw_labels", lambda canvas, given: labels.extend(given))
    draw_explanation(
        np.zeros((64, 64, 3), np.uint8), patches, title="crack", file_name="0.png", **changed
    )
    return [label.text for label in labels]


def test_an_explanation_names_scores_distances_and_patches(monkeypatch):
    patches = [explained(11.6234, (0, 0, 16, 16), 4), explained(7.0, (32, 32, 48, 48))]
    labels = labels_of_explanation(monkeypatch, patches, threshold=8.5)
    place = "patch row 3, column 4, 1.png"  # longer than its crop: the middle is left out
    place = text.fit_text(place, explanation.NOTE, explanation.CROP_SIDE)
    expected = {
        *("score 11.62", "nearest normal patch", "distance 11.62", "2nd nearest patch"),
        *("3rd nearest patch", "distance 13.62", "patch row 1, column 2", place),
        *("patch 2", "score 7 < threshold"),
        "Dashed: patch score below the pixel threshold 8.5.",
    }
    assert expected <= set(labels)
    assert "distance 14.62" not in labels  # three neighbours are shown
    labels = labels_of_explanation(monkeypatch, patches, threshold=7.0)
    assert not any("threshold" in label for label in labels)
    assert not any("threshold" in label for label in labels_of_explanation(monkeypatch, patches))


def test_boxes_of_patches_below_the_threshold_are_dashed():
    patch = explained(5.0, (16, 16, 48, 48))
    image = np.zeros((64, 64, 3), np.uint8)

    def side(threshold):
        """Return the pixels of the lower side of the box that have its colour."""
        picture = draw_explanation(image, [patch], title="", file_name="", threshold=threshold)
        scale = explanation.IMAGE_SIDE / 64
        top, left = panel_grid.MARGIN + TITLE_HEIGHT, panel_grid.MARGIN
        row = top + round(48 * scale) - 1
        start, stop = left + round(18 * scale), left + round(46 * scale)
        return (np.abs(picture[row, start:stop].astype(int) - explanation.COLOURS[0]) <= 24).all(-1)

    assert side(5.0).all()
    assert 0.2 < side(5.1).mean() < 0.8


def test_numbers_of_overlapping_boxes_do_not_hide_each_other():
    image = (0, 0, 500, 500)
    for boxes in (
        [(100, 100, 150, 150)] * 4,
        [(100, 100, 150, 150), (110, 100, 160, 150), (100, 110, 150, 160)],
        [(0, 0, 40, 40), (5, 5, 45, 45)],
    ):
        centres = np.array(explanation._place_numbers(boxes, image))
        gaps = np.linalg.norm(centres[:, None] - centres, axis=2)[np.triu_indices(len(boxes), 1)]
        assert gaps.min() >= 2 * explanation.DISC_RADIUS
        assert centres.min() >= explanation.DISC_RADIUS
    assert explanation._place_numbers([(100, 90, 150, 150)], image) == [(100, 90)]
    # The first corner that is far enough, also if another one is farther.
    gap = 2 * explanation.DISC_RADIUS
    for shift, expected in ((gap, (100 + gap, 90)), (gap - 1, (150 + gap - 1, 90))):
        boxes = [(100, 90, 150, 150), (100 + shift, 90, 150 + shift, 150)]
        assert explanation._place_numbers(boxes, image) == [(100, 90), expected]
