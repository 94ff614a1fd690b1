"""`train` learns normal images: datasets are recognised, test images and masks are refused."""

import io
import logging
import re
from pathlib import Path
from unittest import mock

import pytest

from datasets.base import DatasetError
from datasets.folders import HIDDEN
from datasets.inputs import NEITHER
from datasets.notes import Notes
from datasets.training_images import LIKE_A_MASK, read_training_images

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(PNG)


def read(*paths: str) -> list[str]:
    category = read_training_images(paths, "x", Notes())
    assert {(s.category, s.is_defective, s.mask) for s in category.train} == {("x", False, None)}
    return [str(sample.path) for sample in category.train]


def fault(*paths: str) -> str:
    with pytest.raises(DatasetError) as error:
        read_training_images(paths, "x", Notes())
    return str(error.value)


MVTEC = (
    *("c/train/good/0.png", "c/train/good/1.png", "c/test/good/0.png", "c/test/hole/0.png"),
    "c/ground_truth/hole/0_mask.png",
)


class TestCategories:
    @pytest.mark.parametrize("path", ["c", "c/", "./c", "c/train", "c/train/good"])
    def test_the_normal_training_images_of_a_category(self, here, path):
        files(*MVTEC)
        assert read(path) == ["c/train/good/0.png", "c/train/good/1.png"]

    @pytest.mark.parametrize("split", ["train", "Train", "training"])
    @pytest.mark.parametrize("good", ["good", "OK", "Normal", "defect-free", ""])
    def test_of_any_usual_name(self, here, split, good):
        files(f"c/{split}/{good}/0.png", "c/test/ko/0.png")
        assert read("c") == [str(Path("c", split, good, "0.png"))]

    def test_it_is_said(self, here, caplog):
        caplog.set_level(logging.INFO)
        files(*MVTEC)
        read("c")
        assert caplog.messages == [
            "c is a category of a dataset: learning c/train/good, not ground_truth, test"
        ]

    def test_of_a_category_without_other_folders(self, here, caplog):
        caplog.set_level(logging.INFO)
        files("c/train/good/0.png")
        read("c")
        assert caplog.messages == ["c is a category of a dataset: learning c/train/good"]

    def test_depths_are_not_learned(self, here, caplog):
        caplog.set_level(logging.INFO)
        files("c/train/good/rgb/0.png", "c/train/good/xyz/0.tiff", "c/test/good/rgb/0.png")
        assert read("c") == ["c/train/good/rgb/0.png"]
        assert caplog.messages[0].endswith("learning c/train/good/rgb, not test, xyz")

    @pytest.mark.parametrize("folder", ["rgb", "xyz"])
    def test_colours_or_depths_alone_are_images(self, here, caplog, folder):
        caplog.set_level(logging.INFO)
        files(f"c/train/good/{folder}/0.png", "c/test/good/0.png")
        assert read("c") == [f"c/train/good/{folder}/0.png"]
        assert caplog.messages[0].endswith("learning c/train/good, not test")

    @pytest.mark.parametrize(("count", "end"), [(8, "7"), (9, "7, ...")])
    def test_of_many_folders_8_are_offered(self, here, count, end):
        files(*(f"c/train/{number}/0.png" for number in range(count)))
        assert fault("c").endswith(f"c/train/6, c/train/{end}")

    @pytest.mark.parametrize(
        ("names", "count"),
        [
            (("c/train/a/0.png", "c/train/b/0.png"), 0),
            (("c/train/good/0.png", "c/train/ok/0.png"), 2),
            (("c/train/0.png", "c/training/0.png"), 2),
        ],
    )
    def test_training_images_that_may_be_defective(self, here, names, count):
        files(*names, "c/test/bad/0.png")
        folders = ", ".join(str(Path(name).parent) for name in names)
        assert fault("c") == (
            f"expected one folder of normal training images in c, found {count}: give one of "
            f"{folders}"
        )


class TestRefused:
    def test_a_dataset_of_categories(self, here):
        files(*MVTEC, *(name.replace("c/", "b/", 1) for name in MVTEC))
        assert fault(".") == (
            "expected normal images alone in ., found 2 categories: give --path_data . to learn "
            "each of them, or one of b, c"
        )

    @pytest.mark.parametrize(
        ("names", "found"),
        [
            (("p/0.png", "p/masks/0.png"), "masks in p/masks"),
            (("p/a/0.png", "p/Ground Truth/a/0.png"), "masks in p/Ground Truth"),
            (("p/0.png", "p/bad/0.png"), "defective images in p/bad"),
            (("p/a/NG/1/0.png", "p/b/0.png"), "defective images in p/a/NG"),
            (("p/0.png", "p/test/0.png"), "test images in p/test"),
            (("p/good/0.png", "p/scratch/0.png"), "p/scratch next to good"),
            (("p/OK/a/0.png", "p/scratch/0.png"), "p/scratch next to OK"),
            (("p/good/0", "p/OK/0", "p/stain/0", "p/scratch/0"), "p/scratch next to OK"),
            (("p/rgb/0.png", "p/xyz/0.tiff"), "depths in p/xyz"),
            (("p/good/rgb/0.png", "p/good/xyz/0.tiff"), "depths in p/good/xyz"),
            (("p/0.png", "p/0_mask.png"), "p/0.png and its mask 0_mask.png"),
            (("p/a/0.png", "p/a/0_GT.bmp"), "p/a/0.png and its mask 0_GT.bmp"),
            (("p/0.jpg", "p/0.png"), "two files of one name, p/0.jpg and 0.png"),
        ],
    )
    def test_masks_and_defects_among_the_images(self, here, names, found):
        files(*names)
        message = fault("p")
        assert message.startswith("expected normal images alone in p, found " + found)
        for folder in {str(Path(name).parent) for name in names}:
            assert re.search(f"one of .*{folder}", message)

    def test_folders_of_good_images_are_offered_first(self, here):
        files("p/bent/0.png", "p/good/1.png", "p/bad/2.png", "p/masks/0.png", "p/a/3.png")
        assert fault("p").endswith(
            "one of p/good, p/a, p/bent, p/bad, p/masks or a pattern such as 'p/good/*.png'"
        )

    @pytest.mark.parametrize("path", ["c/**/*.png", "c/*/*/*.png", "c/test/*/*.png", "*/*/*/*.png"])
    def test_a_pattern_that_matches_them(self, here, path):
        files(*MVTEC)
        assert "expected normal images alone in " in fault(path)

    @pytest.mark.parametrize(
        ("path", "count"),
        [("c/test/good/*.png", 1), ("c/*/good/*.png", 3), ("c/test/hole", 1), ("*/train/*/*", 2)],
    )
    def test_but_what_is_named_is_learned(self, here, path, count):
        """A folder that only holds defects may be normal for somebody."""
        files(*MVTEC)
        if path == "c/*/good/*.png":
            assert "test images in c/test" in fault(path)
        else:
            assert len(read(path)) == count

    def test_but_a_named_file_is_learned_whatever_its_path_looks_like(self, here):
        files("p[1]/test/0.png")
        assert read("p[1]/test/0.png") == ["p[1]/test/0.png"]

    def test_folders_of_other_names_are_learned(self, here):
        files("p/0.png", "p/monday/0.png", "p/camera 2/left/0.png", "p/mask_left.png")
        assert len(read("p")) == 4

    def test_two_formats_by_a_pattern(self, here):
        files("p/0.jpg", "p/0.png")
        assert read("p/*.png") == ["p/0.png"]
        assert read("p/*") == ["p/0.jpg", "p/0.png"]


class TestList:
    def read(self, *lines: str) -> list[str]:
        category = read_training_images(["-"], "x", Notes(), io.StringIO("\n".join(lines)))
        return [str(sample.path) for sample in category.train]

    def test_files_and_folders(self, here):
        files("p/0.png", "q/1.png", "[a]/2.png")
        assert self.read("p", "q/1.png", "[a]") == ["p/0.png", "q/1.png", "[a]/2.png"]
        assert fault("-") == "expected images to learn, found none: -"

    def test_of_a_category_the_training_images_are_taken(self, here):
        files(*MVTEC, "p/0.png")
        assert self.read("p", "c") == ["p/0.png", "c/train/good/0.png", "c/train/good/1.png"]

    def test_single_files_that_look_like_masks_are_learned_and_noted(self, here):
        paths = ["c/ground_truth/hole/0.png", "c/0_mask.png", "c/train/good/0.png"]
        files(*paths)
        notes = Notes()
        assert (
            len(read_training_images(["-"], "x", notes, io.StringIO("\n".join(paths))).train) == 3
        )
        (note,) = notes.all()
        assert str(note).startswith(
            "2 files: named like a mask or in a folder of masks, but learned"
        )
        assert len(read_training_images(paths, "x", notes).train) == 3  # given as PATHs
        assert notes.all() == [note]

    def test_of_normal_folders_among_others_these_are_offered(self, here):
        files("c/train/bad/0.png", "c/train/good/0.png", "c/train/ok/0.png")
        assert fault("c").endswith("found 2: give one of c/train/good, c/train/ok")

    @pytest.mark.parametrize(
        ("file", "is_noted"),
        [
            ("masks/0.png", True),
            ("masks/hole/0.png", True),
            ("masks/project/good/0.png", False),  # masks of something else
            ("masks/0/good/0.png", False),
            ("0/good/masks.png", False),
        ],
    )
    def test_a_folder_of_masks_is_that_of_the_file_or_around_it(self, here, file, is_noted):
        files(file)
        notes = Notes()
        read_training_images([file], "x", notes)
        assert [note.reason for note in notes.all()] == [LIKE_A_MASK] * is_noted

    @pytest.mark.parametrize("path", ["c/ground_truth/hole", "p", "p/*.png"])
    def test_also_those_of_a_folder(self, here, path):
        files(*MVTEC, "p/0_mask.png")
        notes = Notes()
        assert len(read_training_images([path], "x", notes).train) == 1
        assert [note.reason for note in notes.all()] == [LIKE_A_MASK]

    def test_defects_in_a_folder_are_refused(self, here):
        files("p/0.png", "p/bad/0.png")
        with pytest.raises(DatasetError, match="found defective images in p/bad: "):
            self.read("p")

    @pytest.mark.parametrize("path", ["p/*.png", "0"])
    def test_a_path_is_no_pattern_and_no_camera(self, here, path):
        files("p/0.png")
        with pytest.raises(DatasetError, match=rf"no such file or folder: {re.escape(path)}"):
            self.read(path)


def test_other_files_are_noted(here):
    files("p/0.png", "p/.1.png")
    Path("p/notes.txt").write_text("text")
    notes = Notes()
    assert len(read_training_images(["p"], "x", notes).train) == 1
    assert {note.reason for note in notes.all()} == {HIDDEN, NEITHER}


@pytest.mark.parametrize("path", ["gone", "*.png", "empty"])
def test_missing_images(here, path):
    Path("empty").mkdir()
    assert re.search("no such file or folder|found none", fault(path))


def test_a_folder_that_cannot_be_read(here, monkeypatch):
    files(*MVTEC)
    refused = PermissionError(13, "Permission denied")
    monkeypatch.setattr("os.scandir", mock.Mock(side_effect=refused))
    assert fault("c") == "cannot read c: Permission denied"
