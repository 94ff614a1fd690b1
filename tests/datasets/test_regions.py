"""Defect regions with saturation thresholds, as MVTec LOCO AD has them."""

import json

import numpy as np
import pytest
from PIL import Image

from datasets.base import DatasetError, MaskFiles, Sample, Saturation
from datasets.layouts import open_dataset
from datasets.masks import read_mask
from datasets.mvtec_loco import read_saturations
from datasets.regions import read_regions
from tests.datasets.miniatures import EMPTY, MASK, MINIATURES, SATURATIONS, SQUARE, write_file

AREA = 16 * 24


@pytest.fixture
def pushpins(tmp_path):
    return MINIATURES["mvtec_loco"].write(tmp_path)


def test_each_file_is_a_region_with_the_share_of_its_value(pushpins):
    category = open_dataset(pushpins).read_category("pushpins")
    assert category.saturations == (
        Saturation("missing", 255, 100, False),
        Saturation("scratch", 1, 0.5, True),
    )
    found = [read_regions(sample, category.saturations) for sample in category.test]
    assert [[share for _, share in regions] for regions in found] == [
        [],
        [],
        [100 / AREA, 0.5],
        [0.5],
    ]
    for mask, _ in found[2]:
        assert mask.sum() == mask[SQUARE].sum() == AREA


def test_a_region_smaller_than_its_threshold_must_be_found_wholly():
    assert Saturation("x", 1, 500, False).share(AREA) == 1
    assert Saturation("x", 1, 96, False).share(AREA) == 0.25


def test_a_value_without_a_threshold(tmp_path):
    for content, found in ((MASK, 255), (EMPTY, "")):
        path = tmp_path / "mask.png"
        write_file(path, content, np.random.default_rng(0))
        sample = Sample(tmp_path / "image.png", "x", "y", MaskFiles((path,)))
        with pytest.raises(DatasetError, match=rf"\(1\), found \[{found}\] in .*mask.png"):
            read_regions(sample, [Saturation("x", 1, 0.5, True)])


def write_region(path, mode, exif=None):
    """Write a region of value 200, and of the opaque pixels if the mode has an opacity."""
    values = np.zeros((20, 30), np.uint8)
    values[3:8, 3:9] = 200
    image = Image.fromarray(values).convert(mode)
    if mode == "P":
        image = Image.fromarray((values > 0).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 200, 200, 200])
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray((values > 0).astype(np.uint8) * 255))
    image.save(path, exif=exif)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "LA", "RGBA"])
def test_the_value_is_that_of_the_brightest_channel(tmp_path, mode):
    write_region(path := tmp_path / "mask.png", mode)
    sample = Sample(tmp_path / "image.png", "x", "y", MaskFiles((path,)))
    saturations = [Saturation("x", 200, 15, False), Saturation("y", 255, 1, False)]
    ((region, share),) = read_regions(sample, saturations)
    assert share == 0.5
    assert region.shape == (20, 30)
    assert region[3:8, 3:9].sum() == region.sum() == 30


def test_a_region_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    write_region(path := tmp_path / "mask.png", "L", exif)
    sample = Sample(tmp_path / "image.png", "x", "y", MaskFiles((path,)))
    ((region, _),) = read_regions(sample, [Saturation("x", 200, 15, False)])
    np.testing.assert_array_equal(region, read_mask(path))
    assert region.shape == (30, 20)


def test_a_damaged_mask(tmp_path):
    (path := tmp_path / "mask.png").write_bytes(b"no image")
    sample = Sample(tmp_path / "image.png", "x", "y", MaskFiles((path,)))
    with pytest.raises(
        DatasetError, match=f"expected a mask, found a damaged or unknown file: {path}"
    ):
        read_regions(sample, [Saturation("x", 1, 0.5, True)])


@pytest.mark.parametrize("content", [{"a": 1}, [{"defect_name": "x"}], [3]])
def test_thresholds_that_are_not_as_expected(tmp_path, content):
    path = tmp_path / "defects_config.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"saturation_threshold and relative_saturation in"):
        read_saturations(path)
    path.write_text(json.dumps(SATURATIONS))
    assert len(read_saturations(path)) == 2


def test_without_thresholds_there_is_no_spro_and_it_is_said(pushpins):
    (pushpins / "pushpins/defects_config.json").unlink()
    category = open_dataset(pushpins).read_category("pushpins")
    assert category.saturations == ()
    assert category.notes[0].endswith("which has the saturation thresholds: no sPRO")
