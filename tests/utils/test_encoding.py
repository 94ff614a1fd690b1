"""Images and arrays are read as they were written."""

import cv2
import numpy as np
import pytest

from utils.encoding import write_arrays, write_image
from utils.result_folder import ResultFolder


@pytest.mark.parametrize(("name", "tolerance"), [("image.png", 0), ("small/image.jpg", 3)])
def test_an_image_has_the_given_colours(tmp_path, name, tolerance):
    image = np.full((16, 32, 3), (250, 20, 10), np.uint8)
    path = write_image(ResultFolder(tmp_path), name, image)
    assert path == tmp_path / name
    found = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_allclose(found.astype(int), image, atol=tolerance)


def test_a_suffix_chooses_the_format(tmp_path):
    folder, image = ResultFolder(tmp_path), np.zeros((8, 8, 3), np.uint8)
    assert write_image(folder, "image.png", image).read_bytes().startswith(b"\x89PNG")
    assert write_image(folder, "image.jpg", image).read_bytes().startswith(b"\xff\xd8")


def test_a_thumbnail_is_smaller_than_by_opencvs_own_quality(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 1), np.uint8).repeat(3, axis=2)
    path = write_image(ResultFolder(tmp_path), "image.jpg", noise)
    assert path.stat().st_size < len(cv2.imencode(".jpg", noise)[1])


def test_arrays_keep_values_and_types(tmp_path):
    arrays = {"scores": np.array([0.5, 1.5], np.float32), "files": np.array(["good/1", "é"])}
    path = write_arrays(ResultFolder(tmp_path), "maps_x.npz", arrays)
    with np.load(path, allow_pickle=False) as found:
        assert set(found) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
