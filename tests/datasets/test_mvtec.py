"""Folders of a few empty files: listing a category opens none of them."""

import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from datasets.base import Category, DatasetError, LeftOut, MaskFiles
from datasets.layouts import open_dataset

FILES = (
    "train/good/001.png",
    "train/good/000.png",
    "test/good/000.png",
    "test/crack/001.png",
    "test/crack/000.png",
    "test/a_hole/000.png",
    "ground_truth/crack/000_mask.png",
    "ground_truth/crack/001_mask.png",
    "ground_truth/a_hole/000_mask.png",
)


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def find_categories(path: Path) -> list[str]:
    return open_dataset(path, "mvtec").find_categories()


def read_category(path: Path, name: str) -> Category:
    return open_dataset(path, "mvtec").read_category(name)


def read_training(path: Path, name: str) -> Category:
    return open_dataset(path, "mvtec").read_training(name)


@pytest.fixture
def root(tmp_path) -> Path:
    """Return a folder of categories that has one, `widget`."""
    for file in FILES:
        touch(tmp_path / "data/widget" / file)
    return tmp_path / "data"


def test_every_category_is_found_in_the_names_order(root):
    for name in ("zipper", "bottle"):
        shutil.copytree(root / "widget", root / name)
    assert find_categories(root) == ["bottle", "widget", "zipper"]


def test_other_files_and_folders_are_not_taken_for_categories(root):
    touch(root / "license.txt")
    touch(root / "notes/readme.txt")
    assert find_categories(root) == ["widget"]


@pytest.mark.parametrize("missing", ["train", "test"])
def test_an_incomplete_category_is_found_so_that_reading_it_can_complain(root, missing):
    shutil.rmtree(root / "widget" / missing)
    assert find_categories(root) == ["widget"]


def test_samples_come_in_a_fixed_order_good_ones_first(root):
    category = read_category(root, "widget")
    folder = root / "widget"
    assert category.name == "widget"
    assert [s.path for s in category.train] == [
        folder / "train/good/000.png",
        folder / "train/good/001.png",
    ]
    assert [s.path for s in category.test] == [
        folder / "test/good/000.png",
        folder / "test/a_hole/000.png",
        folder / "test/crack/000.png",
        folder / "test/crack/001.png",
    ]


def test_labels_follow_the_folder_names(root):
    category = read_category(root, "widget")
    assert {s.defect_type for s in category.train} == {"good"}
    assert not any(s.is_defective for s in category.train)
    assert [(s.defect_type, s.is_defective) for s in category.test] == [
        ("good", False),
        ("a_hole", True),
        ("crack", True),
        ("crack", True),
    ]
    assert {s.category for s in (*category.train, *category.test)} == {"widget"}


def test_every_defective_image_is_paired_with_its_own_mask(root):
    category = read_category(root, "widget")
    truth = root / "widget/ground_truth"
    assert category.has_masks
    assert [s.mask for s in category.test] == [
        None,
        MaskFiles((truth / "a_hole/000_mask.png",)),
        MaskFiles((truth / "crack/000_mask.png",)),
        MaskFiles((truth / "crack/001_mask.png",)),
    ]


@pytest.mark.parametrize("name", ["000.png", "000_mask.bmp", "000_mask.PNG"])
def test_a_mask_may_bear_the_images_name_or_another_ending(root, name):
    folder = root / "widget/ground_truth/a_hole"
    (folder / "000_mask.png").rename(folder / name)
    masks = {s.defect_type: s.mask for s in read_category(root, "widget").test}
    assert masks["a_hole"] == MaskFiles((folder / name,))


def test_images_of_every_usual_ending_are_listed(root):
    endings = ["jpg", "JPG", "jpeg", "bmp", "tif", "tiff", "webp", "PNG"]
    for ending in endings:
        touch(root / f"widget/train/good/{ending}.{ending}")
    found = Counter(s.path.suffix for s in read_category(root, "widget").train)
    assert found == Counter({".png": 2} | {f".{ending}": 1 for ending in endings})


@pytest.mark.parametrize("stray", ["._000.png", ".hidden.png", ".DS_Store"])
@pytest.mark.parametrize("folder", ["train/good", "test/good", "test/crack", "ground_truth/crack"])
def test_hidden_files_are_ignored(root, folder, stray):
    expected = read_category(root, "widget")
    touch(root / "widget" / folder / stray)
    assert read_category(root, "widget") == expected


@pytest.mark.parametrize("stray", ["Thumbs.db", "notes.txt"])
@pytest.mark.parametrize("folder", ["train", "train/good", "test/good", "test/crack"])
def test_other_files_are_left_out_and_counted(root, folder, stray):
    expected = read_category(root, "widget")
    file = root / "widget" / folder / stray
    touch(file)
    left_out = (LeftOut(file, "neither an image nor a video"),)
    assert read_category(root, "widget") == replace(expected, left_out=left_out)


@pytest.mark.parametrize("folder", ["train/good", "test/crack"])
def test_content_decides_where_the_ending_is_unusual(root, folder):
    name = "a.gif" if folder == "train/good" else "001.webm"
    (root / "widget" / folder / name).write_bytes(
        b"GIF89a" if name == "a.gif" else b"\x1a\x45\xdf\xa3"
    )
    category = read_category(root, "widget")
    if name == "a.gif":
        assert root / "widget" / folder / name in [sample.path for sample in category.train]
    else:
        assert category.left_out == (LeftOut(root / "widget" / folder / name, "a video"),)


def test_a_file_of_an_unusual_ending_that_cannot_be_read(root, monkeypatch):
    touch(file := root / "widget/train/good/a.xyz")
    refused = PermissionError(13, "Permission denied")
    monkeypatch.setattr("datasets.listing.kind_of", mock.Mock(side_effect=refused))
    with pytest.raises(DatasetError, match=f"^cannot read {file}: Permission denied$"):
        read_category(root, "widget")


def test_hidden_folders_are_ignored(root):
    expected = read_category(root, "widget")
    (root / "widget/test/.ipynb_checkpoints").mkdir()
    assert read_category(root, "widget") == expected


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", "lost+found"])
def test_folders_of_systems_are_ignored(root, name):
    expected = read_category(root, "widget")
    for folder in ("widget/train/good", "widget/test", "widget/test/crack/001.png"):
        touch(root / Path(folder).parent / name / "000.png/THUMB_M.jpg")
    touch(root.parent / name / "data/._widget")  # an archive of macOS has it next to the dataset
    assert open_dataset(root.parent).read_category("widget") == expected


def test_a_link_to_an_outer_folder_is_no_defect_type(root):
    expected = read_category(root, "widget")
    (root / "widget/test/loop").symlink_to(root / "widget", target_is_directory=True)
    assert read_category(root, "widget") == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_is_no_image(root):
    os.mkfifo(pipe := root / "widget/train/good/002.png")
    category = read_category(root, "widget")
    assert len(category.train) == 2
    assert category.left_out == (LeftOut(pipe, "neither an image nor a video"),)


def test_a_link_that_leads_nowhere_is_an_image_that_cannot_be_read(root):
    (link := root / "widget/train/good/002.png").symlink_to("nowhere")
    assert link in [sample.path for sample in read_category(root, "widget").train]


@pytest.mark.parametrize("place", ["masks", "GT", "test/ground_truth", "test/Ground Truth"])
def test_masks_in_another_folder(root, place):
    widget = root / "widget"
    (widget / "ground_truth").rename(widget / place)
    category = read_category(root, "widget")
    assert [s.mask.paths[0].parents[1] for s in category.test if s.is_defective] == [
        widget / place
    ] * 3


def test_of_several_folders_of_masks_that_of_mvtec_ad_is_read(root):
    expected = read_category(root, "widget")
    shutil.copytree(root / "widget/ground_truth", root / "widget/gt")
    assert read_category(root, "widget") == expected


def test_a_folder_of_annotations_without_images_has_no_masks(root):
    shutil.rmtree(root / "widget/ground_truth")
    touch(root / "widget/annotations/crack/000.json")
    defective = [s for s in read_category(root, "widget").test if s.is_defective]
    assert [s.mask for s in defective] == [None] * 3


def test_masks_next_to_their_images(root):
    widget = root / "widget"
    (widget / "ground_truth/a_hole/000_mask.png").rename(widget / "test/a_hole/000_mask.png")
    for has_others in (True, False):
        defective = [s for s in read_category(root, "widget").test if s.is_defective]
        assert defective[0].mask == MaskFiles((widget / "test/a_hole/000_mask.png",))
        assert [s.mask is not None for s in defective] == [True, has_others, has_others]
        shutil.rmtree(widget / "ground_truth", ignore_errors=True)


@pytest.mark.parametrize("folder", ["train/good", "test/good"])
def test_masks_next_to_good_images_are_refused(root, folder):
    touch(root / "widget" / folder / "000_mask.png")
    with pytest.raises(DatasetError, match=r"found 1 with a mask, such as 000_mask.png of 000.png"):
        read_category(root, "widget")


@pytest.mark.parametrize("name", ["007_mask.png", "007/0.png"])
def test_masks_without_an_image_are_left_out(root, name):
    touch(mask := root / "widget/ground_truth/crack" / name)
    assert read_category(root, "widget").left_out == (LeftOut(mask, "masks of no image"),)


def test_two_images_of_one_name_are_refused(root):
    """They would share a mask, and the names of their figures."""
    (image, *_) = (root / "widget/test/crack").iterdir()
    touch(image.with_suffix(".bmp"))
    with pytest.raises(DatasetError, match="one image of each name"):
        read_category(root, "widget")


def test_a_category_without_ground_truth_has_no_masks(root):
    shutil.rmtree(root / "widget/ground_truth")
    category = read_category(root, "widget")
    assert not category.has_masks
    assert category.notes == ("no defective test image has a mask: there are no metrics of pixels",)
    assert [s.mask for s in category.test] == [None] * 4
    assert [s.is_defective for s in category.test] == [False, True, True, True]


def test_a_category_describes_itself_with_its_counts(root):
    text = read_category(root, "widget").describe()
    assert text == "2 training, 4 test images (1 good, 1 a_hole, 2 crack)"


class TestUnusableFolder:
    def test_missing(self, tmp_path):
        with pytest.raises(DatasetError, match=r"found nothing at .*nowhere \(--path_data\)"):
            find_categories(tmp_path / "nowhere")

    def test_a_file(self, tmp_path):
        touch(tmp_path / "file")
        with pytest.raises(DatasetError, match=r"another file: .*file \(--path_data\)"):
            open_dataset(tmp_path / "file")

    def test_empty(self, tmp_path):
        with pytest.raises(DatasetError) as caught:
            open_dataset(tmp_path)
        for part in ("<category>/train/good", str(tmp_path), "found none", "--path_data"):
            assert part in str(caught.value)


def test_the_folder_of_one_category_will_do(root):
    assert find_categories(root / "widget") == ["widget"]
    assert read_category(root / "widget", "widget") == read_category(root, "widget")


class TestUnusableCategory:
    @pytest.mark.parametrize("folder", ["train/good", "train", "test", "test/crack"])
    def test_missing_or_empty_folder(self, root, folder):
        path = root / "widget" / folder
        shutil.rmtree(path)
        if folder == "test/crack":  # defect types are what is there: this one must be empty
            path.mkdir()
        with pytest.raises(DatasetError) as caught:
            read_category(root, "widget")
        assert str(path) in str(caught.value)

    def test_training_folder_without_images(self, root):
        path = root / "widget/train/good"
        shutil.rmtree(path)
        touch(path / "notes.txt")
        with pytest.raises(DatasetError, match=r"training images .* in .*train.good, found none"):
            read_category(root, "widget")

    def test_test_folder_without_defect_types(self, root):
        path = root / "widget/test"
        shutil.rmtree(path)
        path.mkdir()
        with pytest.raises(DatasetError, match=r"one folder per defect type in .*test, found none"):
            read_category(root, "widget")

    @pytest.mark.parametrize("whole_folder", [False, True])
    def test_missing_mask_of_a_defective_image(self, root, whole_folder):
        mask = root / "widget/ground_truth/crack/000_mask.png"
        shutil.rmtree(mask.parent) if whole_folder else mask.unlink()
        image = root / "widget/test/crack/000.png"
        with pytest.raises(DatasetError) as caught:
            read_category(root, "widget")
        assert str(mask) in str(caught.value)
        assert str(image) in str(caught.value)

    @pytest.mark.parametrize("name", ["gadget", "widget/", "../data/widget"])
    def test_a_name_that_is_no_category_lists_those_that_are(self, root, name):
        # A name becomes part of file names; a path cannot.
        shutil.copytree(root / "widget", root / "bottle")
        with pytest.raises(DatasetError) as caught:
            read_category(root, name)
        expected = f"expected a category name (bottle, widget), found {name!r}"
        assert expected in str(caught.value)
        assert "--categories" in str(caught.value)


class TestReadTraining:
    def test_the_training_samples_alone_in_order_of_names(self, root):
        category = read_training(root, "widget")
        assert category == replace(read_category(root, "widget"), test=(), has_masks=False)
        assert category.notes == category.left_out == ()
        folder = root / "widget/train/good"
        assert [s.path for s in category.train] == [folder / "000.png", folder / "001.png"]
        assert not any(sample.is_defective for sample in category.train)

    def test_it_needs_no_test_images(self, root):
        shutil.rmtree(root / "widget/test")
        shutil.rmtree(root / "widget/ground_truth")
        assert len(read_training(root, "widget").train) == 2
        with pytest.raises(DatasetError, match="one folder per defect type"):
            read_category(root, "widget")

    def test_training_images_that_are_missing_are_told(self, root):
        for file in (root / "widget/train/good").iterdir():
            file.unlink()
        touch(root / "widget/train/good/._000.png")
        for _ in range(2):
            with pytest.raises(DatasetError, match=r"training images .* in .*good, found none"):
                read_training(root, "widget")
            shutil.rmtree(root / "widget/train", ignore_errors=True)

    def test_images_without_a_folder_of_types_are_taken_as_good(self, root):
        train = root / "widget/train"
        touch(train / "000.png")
        category = read_training(root, "widget")  # there is a folder good
        assert [one.path for one in category.left_out] == [train / "000.png"]
        assert len(category.train) == 2
        shutil.rmtree(train / "good")
        category = read_training(root, "widget")
        (sample,) = category.train
        assert (sample.path, sample.is_defective) == (train / "000.png", False)
        assert not category.left_out
        assert category.notes == (
            f"the images in {train} are taken as good: it has no subfolder good",
        )

    @pytest.mark.parametrize("name", ["", "gone", "../data/widget", "widget/"])
    def test_what_is_no_categorys_name_is_told(self, root, name):
        with pytest.raises(DatasetError, match=r"name \(widget\), found .* \(--categories\)"):
            read_training(root, name)


class TestNamesOfSplits:
    @pytest.mark.parametrize(
        ("train", "test", "truth"),
        [("training", "testing", "ground_truth"), ("TRAIN", "TEST", "GROUND_TRUTH")],
    )
    @pytest.mark.parametrize("inside", ["", "widget"])
    def test_other_usual_names(self, root, train, test, truth, inside):
        expected = read_category(root, "widget").describe()
        for name, other in (("train", train), ("test", test), ("ground_truth", truth)):
            (root / "widget" / name).rename(root / "widget" / other)
        dataset = open_dataset(root / inside)
        assert (dataset.layout, dataset.find_categories()) == ("mvtec", ["widget"])
        category = dataset.read_category("widget")
        assert (category.describe(), category.has_masks) == (expected, True)

    @pytest.mark.parametrize(("split", "other"), [("train", "Training"), ("test", "Testing")])
    def test_two_folders_of_one_split(self, root, split, other):
        touch(root / "widget" / other / "good/9.png")
        message = f"one folder of {split} images in .*widget, found {other} and {split}"
        with pytest.raises(DatasetError, match=message):
            read_category(root, "widget")

    def test_those_of_dagm_without_its_labels(self, root):
        for name in ("train", "test"):
            (root / "widget" / name).rename(root / "widget" / name.title())
        assert open_dataset(root).layout == "mvtec"


class TestWhatIsNotRead:
    @pytest.mark.parametrize("folder", ["train/good", "test/good", "test/crack"])
    def test_images_in_subfolders(self, root, folder):
        expected = read_category(root, "widget")
        for name in ("9.png", "9.jpg", "deep/9.png", "notes.txt"):
            touch(root / "widget" / folder / "monday" / name)
        category = read_category(root, "widget")
        assert category.describe() == expected.describe()
        (note,) = category.remarks()
        assert note.startswith("3 files skipped: images in folders that are too deep")

    @pytest.mark.parametrize("name", ["validation/good/0.png", "Val/0.png"])
    def test_validation_images(self, root, name):
        touch(root / "widget" / name)
        left_out = (LeftOut(root / "widget" / name, "validation images", by_split=True),)
        assert read_category(root, "widget").left_out == left_out
