"""`main.py train`: normal images in, a trained model out."""

import json
import logging
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import faiss
import numpy as np
import pytest
import torch
import torchvision

from datasets.base import GOOD, Category, Sample
from datasets.images import read_image
from datasets.training_images import LIKE_A_MASK
from main import WRONG_USAGE
from patchcore import PatchCore
from patchcore.thresholds import Threshold
from tests.support import (
    NUM_TRAIN,
    call,
    evaluate,
    make_category,
    make_data,
    one_thread,
    quick,
    truncate,
    write_image,
)
from utils.commands.train import read_categories
from utils.errors import LEFT_OUT, UsageError
from utils.locks import lock_folder
from utils.options.method import parse_options
from utils.options.train import DEFAULTS, EXTENDS, TrainOptions
from utils.pipeline.skipping import Skipping
from utils.pipeline.suspects import SUSPECTS_FILE, describe_suspects, find_suspects
from utils.pipeline.training import train as pipeline_train


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def parse(text: str) -> TrainOptions:
    return parse_options(text.split(), DEFAULTS, command="train", description="Try.")


def train(*arguments: object, trained: Path, status: int = 0, crop: bool = True) -> None:
    """Train as a user does, with a small network."""
    words = [word for word in quick() if word not in ("--pictures", "none")]
    if not crop:
        place = words.index("--size_crop")
        del words[place : place + 2]
    assert call("train", *words, "--path_trained", trained, *arguments) == status


def test_the_log_names_the_size_and_the_threshold_of_a_model(data, tmp_path, caplog):
    caplog.set_level("INFO")
    train(
        *sorted((data / "widget/train/good").iterdir())[:4], "--category", "cap", trained=tmp_path
    )
    model = load(tmp_path, "cap")
    threshold = f"{model.thresholds.image.value:.4g} (train_quantile"
    assert f"cap: {len(model.coreset.bank)} patches in the coreset, threshold {threshold}" in (
        caplog.text
    )
    assert "too few training images" not in caplog.text


def load(trained: Path, category: str) -> PatchCore:
    return PatchCore.load(trained / category / "squeezenet1_1_p0100_k01")


def test_paths_make_one_model(data, tmp_path):
    train(data / "widget/train/good", "--category", "cap", trained=tmp_path)
    model = load(tmp_path, "cap")
    assert model.trained.category == "cap"
    assert len(model.coreset.origins.names) == NUM_TRAIN


class TestCrop:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("", (256, 256)),
            ("--size_resize 320 288", (320, 288)),
            ("--size_crop 224", (224, 224)),
            ("--protocol paper", (224, 224)),
            ("--protocol patchcore_ex", (224, 224)),
            ("--protocol anomalib_like", (256, 256)),
        ],
    )
    def test_the_whole_image_is_learned_by_default(self, text, size):
        assert parse(text).settings().size_crop == size

    @pytest.mark.parametrize("crop", [True, False])
    def test_a_defect_at_the_border_is_seen_without_a_crop_alone(
        self, data, tmp_path, caplog, crop
    ):
        caplog.set_level(logging.INFO)
        train(data / "widget/train/good", "--category", "cap", trained=tmp_path, crop=crop)
        good = cv2.imread(str(data / "widget/test/good/000.png"))
        defective = good.copy()
        defective[:, :2] = 0
        scores = load(tmp_path, "cap").predict([good, defective]).score
        assert (scores[0] == scores[1]) == crop
        assert ("is not judged: crop of 64x64 of 72x72 pixels" in caplog.text) == crop
        assert ("(use --size_crop 72 for the whole image)" in caplog.text) == crop


class TestWhatIsLearned:
    def test_a_category_of_a_dataset(self, data, tmp_path, caplog):
        caplog.set_level(logging.DEBUG)
        train(data / "widget", "--category", "cap", trained=tmp_path)
        names = load(tmp_path, "cap").coreset.origins.names
        assert {Path(name).parent for name in names} == {data / "widget/train/good"}
        assert f"learning {data}/widget/train/good, not ground_truth, test" in caplog.text
        (radius,) = (one for one in caplog.records if "covering radius" in one.getMessage())
        assert radius.levelno == logging.DEBUG

    def test_images_that_are_not_learned_are_told(self, data, tmp_path, caplog):
        folder = shutil.copytree(data / "widget", tmp_path / "data/widget")
        shutil.copytree(folder / "test/hole", folder / "train/hole")
        train("--path_data", tmp_path / "data", trained=tmp_path / "kept")
        told = [text for text in caplog.messages if text.startswith("widget: 2 files skipped: ")]
        assert len(told) == 1
        assert "defective images of the training split" in told[0]

    def test_what_may_be_no_normal_image_is_reported(self, data, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        for name in ("0.png", "1_mask.png"):
            shutil.copy(data / "widget/train/good/000.png", tmp_path / name)
        options = parse(f"{tmp_path} --category cap")
        (category,) = read_categories(options, Skipping(options))
        assert len(category.train) == 2
        assert LIKE_A_MASK in caplog.text
        assert "1_mask.png" in caplog.text

    def test_a_dataset_is_refused(self, data, tmp_path, capsys):
        train(data, "--category", "cap", trained=tmp_path / "kept", status=2)
        assert f"found 2 categories: give --path_data {data}" in capsys.readouterr().err

    def test_copies_are_learned_once(self, data, tmp_path, caplog):
        """Copies in other folds would make the threshold far too low."""
        caplog.set_level(logging.INFO)
        good = data / "widget/train/good"
        train(good, "--category", "once", trained=tmp_path)
        train(good, good, good / "*.png", "--category", "thrice", trained=tmp_path)
        once, thrice = load(tmp_path, "once").trained, load(tmp_path, "thrice").trained
        np.testing.assert_array_equal(thrice.coreset.indices, once.coreset.indices)
        assert thrice.thresholds == once.thresholds
        assert "thrice: duplicates among the training images are skipped: 12 of 18" in caplog.text

    def test_keep_copies(self, data, tmp_path):
        good = data / "widget/train/good"
        train(good, good, "--category", "cap", "--keep_copies", trained=tmp_path)
        trained = load(tmp_path, "cap").trained
        assert len(trained.coreset.origins.names) == 2 * NUM_TRAIN
        assert trained.thresholds.image.rate == 1 / (NUM_TRAIN + 1)
        assert len(trained.held_out.image_scores) == NUM_TRAIN
        assert trained.held_out.image_scores.min() > 0.1  # no copy was in the coreset

    def test_published_datasets_keep_their_copies(self, data, tmp_path):
        path = data / "widget/train/good/000.png"
        samples = (Sample(path, "cap", GOOD),) * 3
        words = [word for word in quick() if word not in ("--pictures", "none")]
        options = parse(" ".join([*words, "--path_trained", str(tmp_path)]))
        for benchmark, count in (("MVTec AD", 3), ("", 1)):
            category = Category("cap", samples, (), has_masks=False, benchmark=benchmark)
            with one_thread():
                assert pipeline_train(options, [category], Skipping(options)) == 0
            assert len(load(tmp_path, "cap").coreset.origins.names) == count

    def test_an_earlier_model_of_this_name_is_replaced_and_this_is_said(
        self, data, tmp_path, caplog
    ):
        caplog.set_level(logging.INFO)
        for said in (False, True):
            train(data / "widget/train/good", "--category", "cap", trained=tmp_path)
            assert ("(it replaces an earlier one)" in caplog.text) == said


def test_it_is_the_model_that_an_evaluation_keeps(data, tmp_path):
    train("--path_data", data, "--categories", "widget", trained=tmp_path / "a")
    evaluate(data, tmp_path / "result", f"--path_trained {tmp_path / 'b'} --categories widget")
    mine, theirs = load(tmp_path / "a", "widget").trained, load(tmp_path / "b", "widget").trained
    np.testing.assert_array_equal(mine.coreset.indices, theirs.coreset.indices)
    assert mine.thresholds == theirs.thresholds
    np.testing.assert_array_equal(mine.held_out.image_scores, theirs.held_out.image_scores)
    np.testing.assert_array_equal(mine.coreset.patches, theirs.coreset.patches)
    assert mine.best.image is None
    assert theirs.best.image is not None


def test_categories_need_no_test_images(data, tmp_path):
    folder = make_category(tmp_path / "data", "bare")
    shutil.rmtree(folder / "test")
    shutil.rmtree(folder / "ground_truth")
    train("--path_data", tmp_path / "data", trained=tmp_path / "kept")
    assert load(tmp_path / "kept", "bare").trained.thresholds.image is not None


def test_a_number_as_threshold(data, tmp_path):
    flags = ("--threshold", "7.5", "--threshold_pixel", "2")
    train(data / "widget/train/good", "--category", "cap", *flags, trained=tmp_path)
    trained = load(tmp_path, "cap").trained
    assert (trained.thresholds.image.value, trained.thresholds.pixel.value) == (7.5, 2.0)
    assert trained.held_out is None  # nothing asks for it


def test_a_defect_among_the_normal_images_is_listed_first(data, tmp_path, caplog):
    folder = tmp_path / "mixed"
    shutil.copytree(data / "widget/train/good", folder)
    defect = folder / "0021.png"
    shutil.copy(data / "widget/test/hole/001.png", defect)
    with caplog.at_level("INFO"):
        train(folder, "--category", "cap", trained=tmp_path / "kept")
    suspects = find_suspects(load(tmp_path / "kept", "cap").trained)
    assert suspects[0].name == str(defect)
    scores = [suspect.score for suspect in suspects]
    assert scores == sorted(scores, reverse=True)
    assert len(suspects) == 5
    (listed,) = (text for text in caplog.messages if "usually appear at the top" in text)
    heading, *lines = listed.splitlines()
    assert "(7 of 7 are scored)" in heading
    assert [line.rpartition("  ")[2] for line in lines] == [suspect.name for suspect in suspects]
    threshold = load(tmp_path / "kept", "cap").thresholds.image.value
    assert lines[0].split()[:2] == [f"{scores[0]:.4g}", f"{scores[0] / threshold:.3f}"]


def test_without_held_out_scores_no_image_is_listed(data, tmp_path, caplog):
    flags = ("--threshold", "7.5", "--threshold_pixel", "2")
    with caplog.at_level("INFO"):
        train(data / "widget/train/good", "--category", "cap", *flags, trained=tmp_path)
    assert "cap: no held-out scores, so no training image can be checked" in caplog.text


@pytest.mark.parametrize("value", [None, 0.0, 2.0])
def test_suspects_are_listed_without_a_threshold_too(value):
    """A ratio needs a threshold above 0."""
    held_out = SimpleNamespace(images=[0, 1], largest=lambda count: [(1, 3.5), (0, 1.0)][:count])
    origins = SimpleNamespace(names=("a.png", "b.png", "c.png"))
    threshold = None if value is None else Threshold(value, "given")
    trained = SimpleNamespace(
        category="cap",
        held_out=held_out,
        thresholds=SimpleNamespace(image=threshold),
        coreset=SimpleNamespace(origins=origins),
    )
    heading, *lines = describe_suspects(trained).splitlines()
    assert "(2 of 3 are scored)" in heading
    ratios = (" 1.750 x threshold", " 0.500 x threshold") if value else ("", "")
    assert [" ".join(line.split()) for line in lines] == [
        f"3.5{ratios[0]} b.png",
        f"1{ratios[1]} a.png",
    ]


def test_one_image_is_too_few_for_a_threshold(data, tmp_path, caplog):
    train(data / "widget/train/good/000.png", "--category", "cap", trained=tmp_path)
    assert load(tmp_path, "cap").thresholds.image is None
    message = "cap: too few training images to set a threshold; infer needs --threshold NUMBER"
    assert message in caplog.messages


def test_a_mask_is_kept_and_applied_by_infer(data, tmp_path, caplog, capsys):
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :18] = 255  # half of the size of the images
    path = write_image(tmp_path / "mask.png", mask)
    with caplog.at_level("INFO"):
        train(
            "--path_data", data, "--categories", "widget", "--ignore_mask", path, trained=tmp_path
        )
    assert "of each image is ignored" in caplog.text
    trained = load(tmp_path, "widget").trained
    assert trained.mask.size == (32, 32)
    columns = trained.coreset.origins.column
    assert columns.min() >= 7  # of 15
    words = ["infer", data / "widget/test/good/000.png", "--path_trained", tmp_path, "--save_maps"]
    call(*words, "--path_result", tmp_path / "result", "--json")
    record = json.loads(capsys.readouterr().out)
    found = np.load(tmp_path / "result" / record["map"])
    np.testing.assert_array_equal(found == 0, trained.mask.pixels)
    train("--path_data", data, "--ignore_mask", "gone.png", trained=tmp_path, status=2)
    assert "found none: gone.png (--ignore_mask)" in capsys.readouterr().err


def test_summary_prints_the_network_up_to_its_last_layer(data, tmp_path, capsys):
    train("--path_data", data, "--categories", "widget", trained=tmp_path)
    assert "Total params" not in capsys.readouterr().out
    train("--path_data", data, "--categories", "widget", "--summary", trained=tmp_path)
    shown = capsys.readouterr().out
    assert "Total params" in shown
    assert "Fire" in shown
    assert "Linear" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("some/path",), "expected PATHs and their --category together"),
        (("--category", "cap"), "expected PATHs and their --category together"),
        (("x", "--category", "../cap"), "expected a plain name as --category, found '../cap'"),
        (("x", "--category", ".cap"), "expected a plain name as --category, found '.cap'"),
        (("x", "--category", "cap"), "no such file or folder: x"),
        (("--threshold", "f1_max"), "needs the labelled test images of evaluate"),
        (("--seed", "1", "2"), "expected one --seed"),
        (
            ("x", "--category", "cap", "--path_data", "y", "--categories", "z"),
            "expected no --path_data --categories with PATHs: they describe a dataset",
        ),
        (("--holdout", "0.2"), "expected no --holdout with train, which learns"),
        (("--nominal_fpr", "0.1", "--threshold", "3"), "no --nominal_fpr with --threshold 3"),
        (("--path_result", "x"), "unrecognized arguments: --path_result"),
        (("--pictures", "all"), "unrecognized arguments: --pictures"),
    ],
)
def test_refuses_what_cannot_be(tmp_path, capsys, arguments, message):
    train(*arguments, trained=tmp_path / "kept", status=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(("other", "advises"), [("capsule", False), ("gadget", True)])
def test_a_crop_is_advised_against_if_any_category_is_not_published(
    tmp_path, caplog, other, advises
):
    for name in ("bottle", other):
        make_category(tmp_path / "data", name)
    caplog.set_level(logging.INFO)
    train("--path_data", tmp_path / "data", trained=tmp_path / "kept")
    assert "of each image, at its borders, is not judged" in caplog.text
    assert ("(use --size_crop" in caplog.text) == advises


def test_a_damaged_image_is_named(data, tmp_path, capsys):
    folder = make_category(tmp_path / "data")
    broken = truncate(folder / "train/good/003.png")
    train(folder / "train/good", "--category", "cap", trained=tmp_path / "kept", status=2)
    assert str(broken) in capsys.readouterr().err


@pytest.mark.parametrize("flags", [(), ("--keep_copies",)])
def test_a_category_that_cannot_be_used_is_skipped(tmp_path, caplog, flags):
    """Its images are read to find copies, or not before the fit."""
    root = make_data(tmp_path / "data")
    for path in (root / "gadget/train/good").iterdir():
        truncate(path)
    kept = tmp_path / "kept"
    train("--path_data", root, "--on_error", "skip", *flags, trained=kept, status=LEFT_OUT)
    assert "gadget: the category is skipped (--on_error skip): no training image" in caplog.text
    assert len(load(kept, "widget").coreset.origins.names) == NUM_TRAIN
    assert not list(kept.glob("gadget/*/model.json"))


def test_videos_are_not_learned(tmp_path, capsys):
    import cv2

    path = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (32, 32))
    for value in range(3):
        writer.write(np.full((32, 32, 3), 60 * value, np.uint8))
    writer.release()
    train(path, "--category", "cap", trained=tmp_path / "kept", status=2)
    assert "expected images to learn, found a video" in capsys.readouterr().err


class TestExtend:
    @pytest.fixture
    def folder(self, data, tmp_path):
        """A model of the first images of a category."""
        images = sorted((data / "widget/train/good").iterdir())
        train(*images[:4], "--category", "cap", trained=tmp_path)
        return tmp_path / "cap" / "squeezenet1_1_p0100_k01"

    def extend(self, data, folder, *flags, status=0):
        images = sorted((data / "widget/train/good").iterdir())[4:]
        arguments = ("train", "--extend", folder, *flags, "--", *images)
        assert call(*arguments) == status

    def test_new_images_join_the_model(self, data, folder, caplog):
        before = PatchCore.load(folder)
        with caplog.at_level("INFO"):
            self.extend(data, folder)
        after = PatchCore.load(folder)
        extension = after.trained.extension
        assert extension.num_images == 2
        assert 0 < extension.num_added == len(after.coreset.bank) - len(before.coreset.bank)
        assert after.coreset.origins.names[4:] == tuple(
            str(path) for path in sorted((data / "widget/train/good").iterdir())[4:]
        )
        assert after.thresholds == before.thresholds
        assert after.trained.category == "cap"
        added = f"cap: 2 images added: {extension.num_added} of 450 new patches"
        (seconds,) = re.findall(rf"{added} .*, (\d+\.\d) s", caplog.text)
        assert float(seconds) < 100
        assert f"the threshold stays {before.thresholds.image.value:.4g}\n" in caplog.text
        other = extension.thresholds.image.value
        assert f"before they were added, it would be {other:.4g} (infer --threshold)" in caplog.text

    @pytest.mark.parametrize(("flags", "count"), [((), 2), (("--keep_copies",), 4)])
    def test_copies_join_if_they_are_to_be_kept(self, data, folder, flags, count):
        self.extend(data, folder, *flags, *sorted((data / "widget/train/good").iterdir())[4:])
        assert PatchCore.load(folder).trained.extension.num_images == count

    def test_a_model_with_a_given_threshold_keeps_it(self, data, tmp_path, caplog):
        images = sorted((data / "widget/train/good").iterdir())
        flags = ("--threshold", "7.5", "--threshold_pixel", "2")
        train(*images[:4], "--category", "cap", *flags, trained=tmp_path)
        with caplog.at_level("INFO"):
            self.extend(data, tmp_path / "cap/squeezenet1_1_p0100_k01")
        assert "the threshold stays 7.5" in caplog.text

    def test_a_model_without_a_threshold_has_none_to_keep(self, data, tmp_path, caplog):
        first = sorted((data / "widget/train/good").iterdir())[0]
        train(first, "--category", "cap", trained=tmp_path)
        folder = tmp_path / "cap/squeezenet1_1_p0100_k01"
        with caplog.at_level("INFO"):
            self.extend(data, folder)
        model = PatchCore.load(folder)
        assert model.thresholds.image is None
        assert "the threshold stays" not in caplog.text
        other = model.trained.extension.thresholds.image.value
        assert f"it would be {other:.4g} (infer --threshold)" in caplog.text

    def test_weights_that_have_moved_are_named(self, data, tmp_path, capsys):
        weights = tmp_path / "weights.pth"
        torch.save(torchvision.models.squeezenet1_1().state_dict(), weights)
        first = sorted((data / "widget/train/good").iterdir())[0]
        train(first, "--category", "cap", "--weights", weights, trained=tmp_path)
        folder, moved = tmp_path / "cap/squeezenet1_1_p0100_k01", tmp_path / "moved.pth"
        weights.rename(moved)
        self.extend(data, folder, status=WRONG_USAGE)
        assert str(weights) in capsys.readouterr().err
        self.extend(data, folder, "--weights", moved)
        assert PatchCore.load(folder, weights=moved).trained.extension.num_images == 2

    def test_it_is_what_the_library_does(self, data, folder):
        model = PatchCore.load(folder)
        self.extend(data, folder)
        files = sorted((data / "widget/train/good").iterdir())[4:]
        model.extend([read_image(file) for file in files])
        np.testing.assert_array_equal(PatchCore.load(folder).coreset.indices, model.coreset.indices)

    def test_the_files_of_the_folder_stay(self, data, folder):
        self.extend(data, folder, "--save_index")
        drawn = (folder / SUSPECTS_FILE).read_bytes()
        self.extend(data, folder)
        assert (folder / SUSPECTS_FILE).read_bytes() == drawn
        index = faiss.read_index(str(folder / "index.faiss"))
        assert index.ntotal == len(PatchCore.load(folder).coreset.bank)

    def test_training_again_leaves_no_figure_of_the_former_model(self, data, folder):
        (folder / "notes.txt").write_text("line 3")
        images = sorted((data / "widget/train/good").iterdir())[:4]
        flags = ("--threshold", "7.5", "--threshold_pixel", "2")  # without held-out scores
        train(*images, "--category", "cap", *flags, trained=folder.parents[1])
        assert not (folder / SUSPECTS_FILE).exists()
        assert (folder / "notes.txt").read_text() == "line 3"

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--category", "cap"), "--extend, and no --category: the model has one"),
            (("--k", "3"), "expected no --k with --extend: the images at PATHs are added to"),
            # Also with the value of the default.
            (("--k", "1"), "expected no --k with --extend"),
            (
                (
                    "--engine",
                    "local",
                    "--layers",
                    "layer2",
                    "--path_trained",
                    "kept",
                    "--shots",
                    "2",
                ),
                "expected no --engine --layers --path_trained --shots with --extend",
            ),
            (("--backbone", "resnet18"), "expected no --backbone with --extend"),
        ],
    )
    def test_other_flags_are_refused(self, data, folder, capsys, flags, message):
        self.extend(data, folder, *flags, status=WRONG_USAGE)
        assert message in capsys.readouterr().err

    def test_every_flag_has_an_effect_or_is_refused(self):
        """`EXTENDS` names flags with an effect, so a new flag is refused unless it is added."""
        assert set(EXTENDS) <= {entry.name for entry in fields(TrainOptions)}
        for entry in fields(TrainOptions):
            if entry.name not in (*EXTENDS, "category"):
                with pytest.raises(UsageError, match=f"expected no --{entry.name} with --extend"):
                    replace(DEFAULTS, extend="model", paths=("x",)).check_given({entry.name})

    def test_a_network_of_ones_own_is_named(self):
        assert parse("--extend model x --backbone my:network").backbone == ("my:network",)

    def test_a_folder_without_a_model(self, data, tmp_path, capsys):
        self.extend(data, tmp_path / "none", status=WRONG_USAGE)
        assert "expected the folder of a trained model, cannot read" in capsys.readouterr().err

    def test_one_run_at_a_time(self, data, folder, capsys):
        with lock_folder(folder.parent, "--path_trained"):
            self.extend(data, folder, status=WRONG_USAGE)
        assert "in use by process" in capsys.readouterr().err
        assert PatchCore.load(folder).trained.extension is None

    def test_images_that_cannot_be_used_are_skipped(self, data, folder, tmp_path, capsys, caplog):
        broken = truncate(write_image(tmp_path / "new.png", np.zeros((64, 64, 3), np.uint8)))
        before = (folder / "model.json").read_bytes()
        arguments = ("train", "--extend", folder, "--on_error", "skip", broken)
        assert call(*arguments) == WRONG_USAGE
        error = capsys.readouterr().err.splitlines()[-1]
        assert re.match(f"error: no training image is left: .*: {broken} ", error)
        assert (folder / "model.json").read_bytes() == before
        assert call(*arguments, data / "widget/train/good/005.png") == LEFT_OUT
        assert "cap: an image is skipped (--on_error skip): expected an image" in caplog.text
        assert PatchCore.load(folder).trained.extension.num_images == 1

    def test_without_images(self, folder, capsys):
        assert call("train", "--extend", folder) == WRONG_USAGE
        assert "expected PATHs of new images with --extend" in capsys.readouterr().err
