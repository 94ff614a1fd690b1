"""``check`` finds what would give wrong results, and its exit status tells."""

import io
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from datasets.published import Counts
from tests.support import call, make_category, make_data, quick, truncate, write_image
from utils.pipeline import checking


@pytest.fixture
def data(tmp_path) -> Path:
    return make_data(tmp_path / "data")


def check(capsys, *arguments: object) -> tuple[int, str]:
    status = call("check", *arguments)
    captured = capsys.readouterr()
    return status, captured.out + captured.err


def test_at_most_three_pairs_of_duplicates_are_listed(data, capsys):
    train = data / "widget/train/good"
    for number in range(3):
        shutil.copy(train / "000.png", train / f"copy{number}.png")
    text = check(capsys, data, "--categories", "widget")[1]
    (line,) = (line for line in text.splitlines() if "duplicates of others" in line)
    assert line.endswith(f"{train}/copy2.png of {train}/000.png)")
    shutil.copy(train / "000.png", train / "copy3.png")
    text = check(capsys, data, "--categories", "widget")[1]
    (line,) = (line for line in text.splitlines() if "duplicates of others" in line)
    assert "4 training images" in line
    assert line.endswith(f"{train}/copy2.png of {train}/000.png, ...)")


def test_a_dataset_without_fault(data, capsys):
    status, text = check(capsys, data)
    assert status == 0
    assert text.startswith(f"{data}: layout mvtec, 2 categories\n")
    assert "widget: 6 training, 6 test images (2 good, 2 hole, 2 stain)\n" in text
    for fact in ("size: 64x64", "depth: 8 bits", "format: PNG", "masks: 4 of 4 defective images"):
        assert text.count(f"    {fact}\n") == 2
    assert text.endswith("no findings\n")


def test_held_out_images_are_no_finding(data, tmp_path, capsys):
    own = tmp_path / "nut"
    shutil.copytree(data / "widget/train/good", own / "good")
    shutil.copytree(data / "widget/test/hole", own / "hole")
    shutil.copytree(data / "widget/ground_truth/hole", own / "masks")
    status, text = check(capsys, own)
    assert status == 0
    assert "    1 of 6 good images are held out for testing (--holdout 0.2, --seed 0)\n" in text
    assert text.endswith("no findings\n")


def test_images_that_the_split_leaves_out_are_no_finding(data, capsys):
    widget = data / "widget"
    shutil.copytree(widget / "test/hole", widget / "train/hole")
    shutil.move(widget / "test/stain", widget / "validation/stain")
    status, text = check(capsys, data, "--categories", "widget")
    assert status == 0
    assert "    2 files skipped: defective images of the training split" in text
    assert "    2 files skipped: validation images" in text


def test_without_a_defective_image_no_mask_is_missed(data, capsys):
    for kind in ("hole", "stain"):
        shutil.rmtree(data / "widget/test" / kind)
        shutil.rmtree(data / "widget/ground_truth" / kind)
    text = check(capsys, data, "--categories", "widget")[1]
    assert "    masks: none, since no test image is defective\n" in text


def test_each_category_is_shown_as_soon_as_it_is_checked(data, monkeypatch):
    """A dataset may take minutes, and a pipe would keep the lines back."""
    for name in ("nut", "zip"):
        make_category(data, name)
    shutil.rmtree(data / "widget/train")
    shown = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", shown)
    original, before = checking.check_category, {}

    def check_category(category, options):
        before[category.name] = shown.buffer.getvalue().decode()
        return original(category, options)

    monkeypatch.setattr(checking, "check_category", check_category)
    assert call("check", data) == 2
    assert "gadget: 6 training" in before["nut"]
    assert "widget:\n  error: " in before["zip"]


def test_the_bar_counts_the_images(data, monkeypatch):
    bars = []

    def show(total, text, unit):
        bars.append([text, total])
        return nullcontext(SimpleNamespace(update=bars[-1].append))

    monkeypatch.setattr(checking, "show_progress", show)
    monkeypatch.setattr(checking, "BATCH_SIZE", 5)
    assert call("check", data, "--categories", "widget") == 0
    assert bars == [["widget: check", 12, 5, 5, 2]]


def test_chosen_categories(data, capsys):
    _, text = check(capsys, "--path_data", data, "--categories", "gadget")
    assert "gadget" in text
    assert "widget" not in text


def test_copies(data, capsys):
    train, test = data / "widget/train/good", data / "widget/test"
    shutil.copy(train / "000.png", train / "copy.png")
    image = cv2.imread(str(train / "001.png"))
    cv2.imwrite(str(test / "good/other.bmp"), image)  # the same pixels in another format
    shutil.copy(test / "good/000.png", test / "hole/001.png")
    status, text = check(capsys, data, "--categories", "widget")
    assert status == 1
    for line in (
        f"duplicates of others: 1 training image ({train}/copy.png of {train}/000.png)",
        f"duplicates of training images: 1 test image ({test}/good/other.bmp of {train}/001.png)",
        f"duplicates of others: 1 test image ({test}/hole/001.png of {test}/good/000.png)",
        f"duplicates of good images: 1 defective test image ({test}/hole/001.png of "
        f"{test}/good/000.png)",
        "formats: PNG (13), BMP (1)",
    ):
        assert line in text
    assert "no findings" not in text


def test_every_file_that_cannot_be_read_is_listed(data, capsys):
    names = ("train/good/001.png", "train/good/002.png", "test/stain/000.png")
    bad = [truncate(data / f"widget/{name}") for name in names]
    mask = truncate(data / "gadget/ground_truth/hole/000_mask.png")
    status, text = check(capsys, data)
    assert status == 2
    errors = [line for line in text.splitlines() if line.startswith("  error: ")]
    assert len(errors) == 4
    assert "duplicates" not in text
    for path in (*bad, mask):
        assert any(str(path) in line for line in errors)


def test_odd_masks_and_sizes(data, capsys):
    folder = data / "widget"
    write_image(folder / "ground_truth/hole/000_mask.png", np.zeros((64, 64), np.uint8))
    write_image(folder / "ground_truth/hole/001_mask.png", np.full((64, 64), 255, np.uint8))
    write_image(folder / "train/good/large.png", np.full((80, 96, 3), 120, np.uint8))
    status, text = check(capsys, data, "--categories", "widget")
    assert status == 1
    assert "1 file: mask of a defective image without a marked pixel" in text
    assert "1 file: mask that marks the whole image" in text
    assert "sizes: 64x64 (12), 96x80 (1)" in text


@pytest.mark.parametrize(
    ("sides", "more"), [((5,), ""), ((5, 6), " and 1 other"), ((5, 6, 7), " and 2 others")]
)
def test_the_three_most_frequent_sizes_are_listed(tmp_path, capsys, sides, more):
    for number, side in enumerate((8, 8, 8, 9, 9, *sides)):
        write_image(tmp_path / f"d/w/train/good/{number}.png", np.full((side, side), 9, np.uint8))
    write_image(tmp_path / "d/w/test/good/0.png", np.full((9, 9), 7, np.uint8))
    text = check(capsys, tmp_path / "d")[1]
    assert f"    sizes: 8x8 (3), 9x9 (3), 5x5 (1){more}\n" in text


def test_deep_values(tmp_path, capsys):
    for index in range(3):
        write_image(tmp_path / f"d/w/train/good/{index}.png", np.full((9, 9), 4000, np.uint16))
    write_image(tmp_path / "d/w/test/good/0.png", np.full((9, 9), 900, np.uint16))
    _, text = check(capsys, tmp_path / "d")
    assert "depth: more than 8 bits" in text
    assert "12 bits" in text
    path = write_image(tmp_path / "d/w/train/good/3.tif", np.full((9, 9), 0.5, np.float32))
    status, text = check(capsys, tmp_path / "d")
    assert status == 2
    mixed, single = (line for line in text.splitlines() if line.startswith("  error: "))
    assert "error: expected training images of one kind, found 16-bit integers and fl" in mixed
    assert str(path) in mixed
    assert str(path) in single
    assert "depth: more than 8 bits" in text


def test_other_numbers_than_published(tmp_path, capsys):
    make_category(tmp_path / "mvtec", "bottle")
    status, text = check(capsys, tmp_path / "mvtec")
    assert status == 1
    assert (
        "MVTec AD has 209 training images, 20 good and 63 defective test images as published, here "
        "are 6, 2 and 4" in text
    )


@pytest.mark.parametrize(
    ("published", "text"),
    [(None, "its published numbers of images are unknown"), (Counts(6, 2, 4), "as published")],
)
def test_numbers_that_are_unknown_or_those_published(
    tmp_path, capsys, monkeypatch, published, text
):
    monkeypatch.setattr("datasets.published.published_counts", lambda category: published)
    monkeypatch.setattr(checking, "published_counts", lambda category: published)
    make_category(tmp_path / "mvtec", "bottle")
    status, shown = check(capsys, tmp_path / "mvtec")
    assert status == 0
    assert f"    MVTec AD: {text}\n" in shown


def test_a_category_that_cannot_be_listed_does_not_end_the_check(data, capsys):
    shutil.rmtree(data / "gadget/train")
    status, text = check(capsys, data)
    assert status == 2
    assert "gadget:\n  error: expected" in text
    assert "widget: 6 training" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nowhere", "expected a dataset, found nothing at nowhere"),
        ("a b", "expected one to 1 values for PATH, found 2"),
        ("a --model b", "expected a dataset or a --model to check, found both"),
        ("--model nowhere", "expected the folder of a trained model"),
        ("nowhere --seed -1", "expected seed in [0, 4294967295], found -1 (--seed)"),
        ("nowhere --seed 4294967296", "expected seed in [0, 4294967295], found 4294967296"),
        ("nowhere --seed 4294967295", "found nothing at nowhere (PATH)"),
    ],
)
def test_mistakes(capsys, words, message):
    status, text = check(capsys, *words.split())
    assert status == 2
    assert text.startswith("error: ")
    assert message in text


def test_a_model_lists_the_training_images_that_the_others_explain_least(data, tmp_path, capsys):
    odd = data / "widget/train/good/odd.png"
    shutil.copy(data / "widget/test/stain/000.png", odd)
    flags = ["--path_data", data, "--categories", "widget", "--path_trained", tmp_path / "trained"]
    kept = [word for word in quick() if word not in ("--pictures", "none")]
    assert call("train", *kept, *flags) == 0
    (folder,) = (tmp_path / "trained/widget").glob("*_k01")
    capsys.readouterr()
    status, text = check(capsys, "--model", folder, "--num_suspects", 2)
    assert status == 0
    _, first, second, figure = text.splitlines()
    assert figure == f"figure of the first of these images: {folder / 'suspects.png'}"
    drawn = cv2.imread(str(folder / "suspects.png"))
    assert drawn.shape[1] > 5 * 340  # five of the seven training images
    assert first.endswith(str(odd))
    assert float(first.split()[0]) > float(second.split()[0])
    (folder / "suspects.png").unlink()  # as of a model that was trained without figures
    assert check(capsys, "--model", folder, "--num_suspects", 2) == (
        0,
        text.removesuffix(figure + "\n"),
    )


def test_a_missing_dataset_is_named_as_it_was_given(capsys):
    assert check(capsys, "nowhere") == (
        2,
        "error: expected a dataset, found nothing at nowhere (PATH)\n",
    )
    text = check(capsys, "--path_data", "nowhere")[1]
    assert text.endswith("found nothing at nowhere (--path_data)\n")
