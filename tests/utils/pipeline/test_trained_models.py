"""Models that evaluate and train keep, and how the one that is meant is found."""

import logging
import os
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from patchcore import PatchCore, PatchCoreError
from patchcore.record import read_record
from tests.support import (
    NUM_TRAIN,
    call,
    evaluate,
    make_category,
    make_data,
    names,
    quick,
    read_maps,
    read_table,
)
from utils.errors import UsageError
from utils.options.model_choice import ModelChoice
from utils.pipeline import training
from utils.pipeline.trained_models import _similar, choose_model, model_folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def kept(data, tmp_path_factory) -> tuple[Path, Path]:
    """Return the trained models and results of an evaluation of two categories and percentages."""
    root = tmp_path_factory.mktemp("kept")
    evaluate(
        data,
        root / "result",
        f"--path_trained {root / 'trained'} --percentage_coreset 0.02 0.1 --seed 4 2 --save_maps",
    )
    return root / "trained", root / "result"


class TestKept:
    def test_one_folder_for_each_category_and_percentage(self, kept):
        trained, _ = kept
        assert {str(p.parent.relative_to(trained)) for p in trained.rglob("model.json")} == {
            f"{category}/squeezenet1_1_{tag}"
            for category in ("gadget", "widget")
            for tag in ("p0020_k01", "p0100_k01")
        }

    def test_a_model_is_of_its_percentage_and_the_first_seed(self, kept):
        trained, _ = kept
        small, large = (
            PatchCore.load(trained / "widget" / f"squeezenet1_1_{tag}").trained
            for tag in ("p0020_k01", "p0100_k01")
        )
        patches = NUM_TRAIN * 15 * 15
        assert small.coreset.sizes == (int(patches * 0.02),)
        assert large.coreset.sizes == (int(patches * 0.1),)
        assert small.coreset.seed == large.coreset.seed == 4
        # The selection of the small one is where that of the large one begins.
        begin = large.coreset.indices[: len(small.coreset.indices)]
        np.testing.assert_array_equal(small.coreset.indices, begin)
        assert len(small.coreset.patches) == len(small.coreset.indices)
        assert small.thresholds.image.value > large.thresholds.image.value

    def test_it_names_its_training_images(self, kept, data):
        trained, _ = kept
        record = read_record(trained / "widget" / "squeezenet1_1_p0100_k01")
        files = [str(data / f"widget/train/good/{n:03d}.png") for n in range(NUM_TRAIN)]
        assert record["training_images"] == files
        assert record["category"] == "widget"

    def test_it_judges_as_the_evaluation_did(self, kept, data):
        from datasets.images import read_image

        trained, result = kept
        rows = [row for row in read_table(result) if row["seed"] == "4"]
        assert len(rows) == 4
        for row in rows:
            saved = read_maps(result, row)
            folder = model_folder(
                trained,
                row["category"],
                "squeezenet1_1",
                float(row["percentage_coreset"]),
                int(row["k"]),
            )
            files = [data / row["category"] / "test" / name for name in saved["files"]]
            prediction = PatchCore.load(folder).predict(read_image(file) for file in files)
            np.testing.assert_array_equal(prediction.score, saved["scores"])
            np.testing.assert_array_equal(prediction.anomaly_map, saved["anomaly_maps"])
            best = read_record(folder)["f1_max"]
            assert best["image"] == pytest.approx(float(row["image_threshold"]), rel=1e-6)
            assert best["pixel"] == pytest.approx(float(row["pixel_threshold"]), rel=1e-6)

    def test_several_networks_are_kept_apart(self, data, tmp_path):
        evaluate(
            data,
            tmp_path / "result",
            f"--path_trained {tmp_path / 'trained'} --categories widget --backbone squeezenet1_1 "
            "squeezenet1_0",
        )
        found = names(tmp_path / "trained/widget", "*")
        assert found == {"squeezenet1_1_p0100_k01", "squeezenet1_0_p0100_k01"}

    def test_says_how_the_threshold_does_on_the_test_images(self, data, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        flags = f"--path_trained {tmp_path / 'trained'} --categories widget"
        evaluate(data, tmp_path / "result", flags)
        said = [r.getMessage() for r in caplog.records if "finds" in r.getMessage()]
        assert len(said) == 1
        assert (
            "(train_quantile, nominal false-positive rate 14.29 %, the lowest that 6 scored "
            "training images can give) finds 4 of 4 defective" in said[0]
        )

    def test_too_few_images_for_a_threshold_are_told(self, data, tmp_path, caplog):
        folder = make_category(tmp_path / "data", "lonely")
        for file in sorted((folder / "train/good").iterdir())[1:]:
            file.unlink()
        flags = f"--path_trained {tmp_path / 'trained'}"
        evaluate(tmp_path / "data", tmp_path / "result", flags)
        assert "too few training images to set a threshold" in caplog.text

    def test_a_folder_of_a_category_that_cannot_be_is_told_before_it_is_learned(
        self, data, tmp_path, capsys, monkeypatch
    ):
        monkeypatch.setattr(training, "_train_category", mock.Mock(side_effect=AssertionError))
        (tmp_path / "gadget").touch()
        words = [w for w in quick("--path_trained", tmp_path) if w not in ("--pictures", "none")]
        assert call("train", *words, "--path_data", data) == 2
        expected = f"expected a folder to write trained models to, found {tmp_path / 'gadget'} ("
        assert expected in capsys.readouterr().err

    @pytest.mark.parametrize("command", ["evaluate", "train"])
    def test_a_folder_that_cannot_be_is_told_before_anything_is_computed(
        self, tmp_path, capsys, monkeypatch, command
    ):
        monkeypatch.chdir(tmp_path)
        make_category(tmp_path / "data")
        (tmp_path / "file").touch()
        path = str(tmp_path / "file" / "trained")
        words = [w for w in quick("--path_trained", path) if w not in ("--pictures", "none")]
        assert call(command, *words, "--path_data", tmp_path / "data") == 2
        error = capsys.readouterr().err
        assert f"expected a folder to write trained models to, found {path} (" in error
        assert "--path_trained" in error

    @pytest.mark.parametrize(
        ("flags", "missing", "message"),
        [
            ("--threshold f1_max", ["test/good"], "good and defective test images of widget"),
            ("--threshold_pixel f1_max", ["ground_truth"], "masks of defective images of widget"),
            (
                "--threshold_pixel f1_max",
                ["test/hole", "test/stain"],
                "masks of defective images of widget",
            ),
        ],
    )
    def test_f1_max_without_labels_is_told_before_anything_is_computed(
        self, tmp_path, capsys, flags, missing, message
    ):
        folder = make_category(tmp_path / "data")
        for name in missing:
            shutil.rmtree(folder / name)
        arguments = f"--path_data {tmp_path / 'data'} --path_result {tmp_path / 'result'} {flags}"
        assert call(*quick(*arguments.split(), "--path_trained", str(tmp_path / "kept"))) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "result/results.csv").exists()


def find_model(root: Path, category: str = "", backbone: str = "", percentage: float = 0.0):
    return choose_model(ModelChoice(root, category, percentage, backbone))


class TestChooseModel:
    def test_by_what_it_is(self, kept):
        trained, _ = kept
        assert find_model(trained, "widget", "", 0.1) == (
            trained / "widget/squeezenet1_1_p0100_k01"
        )
        assert find_model(trained, "gadget", "squeezenet1_1", 0.02) == (
            trained / "gadget/squeezenet1_1_p0020_k01"
        )

    def test_where_it_is(self, kept):
        own = kept[0] / "widget/squeezenet1_1_p0100_k01"
        assert find_model(own) == own
        assert find_model(kept[0] / "widget", percentage=0.1) == own

    @pytest.mark.parametrize("place", [".hidden/kept", "a/b/../../kept", "../../kept"])
    def test_hidden_folders_are_left_out_only_below_the_given_one(
        self, kept, tmp_path, monkeypatch, place
    ):
        (tmp_path / "a/b").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / "a/b")
        root = Path(place) if place.startswith("..") else tmp_path / place
        own = shutil.copytree(kept[0] / "widget/squeezenet1_1_p0100_k01", root / "widget/own")
        shutil.copytree(own, root / ".own.partial")  # as a save that was killed leaves it
        assert find_model(root) == own
        assert find_model(root / "widget") == own

    def test_several_fit(self, kept):
        with pytest.raises(UsageError, match="for --category widget, found 2; choose by") as caught:
            find_model(kept[0], "widget")
        listed = str(caught.value).splitlines()[1:]
        assert listed == [
            f"  --category widget --backbone squeezenet1_1 --percentage_coreset {p}"
            for p in (0.02, 0.1)
        ]

    def test_several_fit_with_equal_flags(self, kept, tmp_path):
        own = kept[0] / "widget/squeezenet1_1_p0100_k01"
        folders = [tmp_path / "full", tmp_path / "full_shots002"]
        for folder in folders:
            shutil.copytree(own, folder)
        with pytest.raises(
            UsageError, match=f"trained model in {tmp_path}, found 2; choose by these"
        ) as caught:
            find_model(tmp_path)
        flags = "--category widget --backbone squeezenet1_1 --percentage_coreset 0.1"
        assert str(caught.value).splitlines()[1:] == [
            f"  {flags} --path_trained {folder}" for folder in folders
        ]

    def test_none_fits(self, kept):
        with pytest.raises(
            UsageError, match="for --category cable, found none; choose by"
        ) as caught:
            find_model(kept[0], "cable")
        assert str(caught.value).count("--category gadget") == 2
        with pytest.raises(UsageError, match=r"0.1\nDid you mean gadget\b"):
            find_model(kept[0], "gadgte")

    def test_a_similar_name_is_shown_as_it_is(self):
        records = [{"category": "no. 1"}, {"category": "cable"}]
        assert _similar({"category": "no. 2"}, records) == "\nDid you mean no. 1?"
        assert _similar({"category": "cable"}, records) == ""

    def test_there_is_none(self, tmp_path):
        with pytest.raises(UsageError, match=r"expected trained models in .*none.*no such folder"):
            find_model(tmp_path / "none")
        (tmp_path / "file").touch()
        with pytest.raises(UsageError, match=r"expected trained models in .*file, found a file"):
            find_model(tmp_path / "file")
        with pytest.raises(UsageError, match=r"found none .*main.py train makes them"):
            find_model(tmp_path)

    def test_missing_weights_are_told_before_models_are_looked_for(self, tmp_path):
        with pytest.raises(UsageError, match=r"no weights file gone\.pth"):
            choose_model(ModelChoice(tmp_path, weights="gone.pth"))

    def test_a_strange_record(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a/model.json").write_text("{}")
        with pytest.raises(PatchCoreError, match="found another record"):
            find_model(tmp_path)


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path, monkeypatch):
    refused = PermissionError(13, "Permission denied", str(tmp_path))
    monkeypatch.setattr(os, "scandir", mock.Mock(side_effect=refused))
    monkeypatch.setattr(os, "listdir", mock.Mock(side_effect=refused))
    with pytest.raises(UsageError, match=r"cannot use .*: Permission denied \(--path_trained\)"):
        find_model(tmp_path)
