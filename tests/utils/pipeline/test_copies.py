"""Each different image is learned once: copies are known by their pixels."""

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest

from datasets.base import GOOD, Category, DatasetError, Sample
from datasets.depth import Decoding
from tests.support import write_image
from utils.pipeline.copies import describe_leak, without_copies
from utils.pipeline.reading import Reading

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3), dtype=np.uint8)


def category(*paths) -> Category:
    return Category("cap", tuple(Sample(path, "cap", GOOD) for path in paths), (), has_masks=False)


@pytest.fixture
def originals(tmp_path):
    return [write_image(tmp_path / f"{n}.png", image) for n, image in enumerate(IMAGES)]


@pytest.mark.parametrize("threads", [0, 2])
def test_copies_of_any_kind_are_left_out(originals, tmp_path, caplog, threads):
    caplog.set_level(logging.INFO)
    shutil.copy(originals[0], tmp_path / "copy.png")
    (tmp_path / "link.png").symlink_to(originals[1])
    os.link(originals[1], tmp_path / "hard.png")
    (tmp_path / "folder").symlink_to(tmp_path)
    converted = write_image(tmp_path / "converted.bmp", IMAGES[2])
    copies = [
        *(tmp_path / "copy.png", tmp_path / "link.png", tmp_path / "hard.png", converted),
        *(tmp_path / "folder/2.png", originals[0], originals[0]),
    ]
    found = without_copies(category(*originals, *copies), Reading(Decoding(), 2, threads))
    assert [sample.path for sample in found.train] == originals
    assert caplog.messages == [
        "cap: duplicates among the training images are skipped: 7 of 10 (for example "
        f"{tmp_path}/copy.png, of {tmp_path}/0.png); --keep_copies learns them too"
    ]


def test_different_images_are_kept(originals, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    other = IMAGES[0].copy()
    other[3, 5, 1] ^= 1
    almost = write_image(tmp_path / "almost.png", other)
    reshaped = write_image(tmp_path / "reshaped.png", IMAGES[0].reshape(16, 8, 3))
    images = category(*originals, almost, reshaped)
    assert without_copies(images, Reading(Decoding(), 2, 2)) is images
    assert caplog.messages == []


def test_a_file_is_decoded_once(originals, tmp_path, monkeypatch):
    seen = []
    read = Reading.image
    monkeypatch.setattr(Reading, "image", lambda self, path: seen.append(path) or read(self, path))
    (tmp_path / "folder").symlink_to(tmp_path)
    without_copies(
        category(*originals, tmp_path / "folder/0.png", *originals), Reading(Decoding(), 2, 0)
    )
    assert seen == originals


def test_files_that_cannot_be_read_are_named(originals, tmp_path):
    with pytest.raises(DatasetError, match=r"cannot read .*gone\.png: No such file"):
        without_copies(category(*originals, tmp_path / "gone.png"), Reading(Decoding(), 2, 0))
    cv2.imencode(".png", IMAGES[0])[1][:60].tofile(tmp_path / "cut.png")
    with pytest.raises(DatasetError, match=r"cut\.png"):
        without_copies(category(*originals, tmp_path / "cut.png"), Reading(Decoding(), 2, 0))


class TestLeak:
    """Test images that the model has learned."""

    def leak(self, train, test, **changed) -> str:
        tested = tuple(Sample(path, "cap", GOOD) for path in test)
        return describe_leak(replace(category(*train), test=tested, **changed))

    def test_is_described(self, originals, tmp_path):
        copy = shutil.copy(originals[1], tmp_path / "copy.png")
        assert self.leak(originals[:2], [originals[2], copy, originals[0]]) == (
            f"2 of 3 test images are copies of training images, for example {originals[0]} of "
            f"{originals[0]}: the results are better than for new images (check lists all)"
        )

    @pytest.mark.parametrize("changed", [0, -1])
    def test_there_is_none_among_different_files(self, originals, tmp_path, changed):
        content = bytearray(originals[0].read_bytes())  # of the same size
        content[changed] ^= 1
        alike = tmp_path / "alike.png"
        alike.write_bytes(content)
        assert self.leak(originals[:2], [originals[2], alike, tmp_path / "none.png"]) == ""

    def test_files_of_equal_size_are_not_read_in_full(self, tmp_path, monkeypatch):
        """A start with thousands of uncompressed images takes no minutes."""
        paths = [tmp_path / f"{number}.bmp" for number in range(2)]
        for number, path in enumerate(paths):
            path.write_bytes(bytes(10_000) + bytes([number]) + bytes(10_000))
        monkeypatch.setattr(Path, "read_bytes", mock.Mock(side_effect=AssertionError))
        assert self.leak(paths[:1], paths[1:]) == ""

    def test_files_that_cannot_be_read_are_left_to_the_run(self, originals, tmp_path, monkeypatch):
        copy = shutil.copy(originals[0], tmp_path / "copy.png")
        monkeypatch.setattr(Path, "read_bytes", mock.Mock(side_effect=PermissionError))
        assert self.leak(originals, [copy]) == ""

    def test_published_datasets_are_not_searched(self, originals):
        assert self.leak(originals, originals, benchmark="MVTec AD") == ""
