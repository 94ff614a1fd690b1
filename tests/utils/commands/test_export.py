"""`main.py export`: the file, what is said of it, and that every flag does its part."""

import importlib.util
import json
import logging
import shutil
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

from datasets.images import read_image
from patchcore import PatchCore
from patchcore import export as export_module
from patchcore.export import Exported
from patchcore.record import record_digest
from tests.support import call, evaluate, make_category, names, one_thread, truncate, write_image
from utils.options.export import ExportOptions
from utils.pipeline import exporting as export_command

NETWORK = "squeezenet1_1"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    make_category(root)
    make_category(root, "gadget", seed=1)
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    """Evaluate; return the folder of the trained models."""
    root = tmp_path_factory.mktemp("kept")
    flags = f"--path_trained {root / 'trained'} --percentage_coreset 0.05 0.1"
    evaluate(data, root / "result", flags)
    return root / "trained"


class Export:
    """Runs the command in a folder of its own, on one model if nothing else is said."""

    def __init__(self, trained: Path, folder: Path, capsys: pytest.CaptureFixture):
        self.trained = trained
        self.folder = folder
        self._capsys = capsys
        self.out = ""
        self.err = ""

    def __call__(self, *arguments: object, status: int = 0, **others: object) -> None:
        chosen = {"path_trained": self.trained, "category": "widget", "percentage_coreset": 0.1}
        chosen |= {"format": "torch"} | others  # the quicker one
        flags = [w for n, value in chosen.items() if value is not None for w in (f"--{n}", value)]
        found = call("export", *arguments, *flags)
        self.out, self.err = self._capsys.readouterr()
        assert found == status, self.err

    def run_lines(self, **modules: object) -> dict:
        """Run the lines that were shown; return the names they leave."""
        lines = self.out.partition("\n\n")[2]
        left = dict(modules)
        exec(compile(lines, "shown", "exec"), left)
        return left


@pytest.fixture
def export(trained, tmp_path, monkeypatch, capsys, caplog) -> Export:
    caplog.set_level(logging.INFO)
    monkeypatch.chdir(tmp_path)
    return Export(trained, tmp_path, capsys)


@pytest.fixture
def asked(monkeypatch) -> SimpleNamespace:
    """What the command asks for; nothing is written."""
    seen = SimpleNamespace()

    def write_nothing(model, path, file_format, *, images):
        vars(seen).update(model=model, path=path, file_format=file_format, images=images)
        return Exported(path, 0, len(images) + 1, 0.0)

    monkeypatch.setattr(export_command, "export", write_nothing)
    return seen


def test_onnx_is_written_under_the_models_name_and_the_lines_shown_run_it(export, trained, caplog):
    export(format=None)
    name = f"widget_{NETWORK}_p0100_k01.onnx"
    assert names(export.folder) == {name}
    size = (export.folder / name).stat().st_size
    assert f"{name}: {size / 1e6:.1f} MB" in export.out
    assert "compared on 7 images (training images, and noise)" in export.out
    left = export.run_lines(onnxruntime=onnxruntime, numpy=np)
    model = PatchCore.load(trained / "widget" / f"{NETWORK}_p0100_k01")
    with one_thread():
        expected = model.predict_crops([np.zeros((1, 64, 64, 3), np.uint8)])
    np.testing.assert_allclose(left["score"], expected.score, rtol=1e-5)
    np.testing.assert_allclose(left["anomaly_map"], expected.anomaly_map, rtol=1e-4)
    assert "RGB, resized to 72x72 (height x width, antialiased bilinear), then" in export.out
    folder = trained / "widget" / f"{NETWORK}_p0100_k01"
    assert [r.getMessage() for r in caplog.records if r.name.startswith("utils")] == [
        f"model: {folder}",
        f"writing {name} and comparing it with the model on training images, and noise",
    ]
    # The converters' logs, hundreds of lines, are left out.
    assert {record.name.partition(".")[0] for record in caplog.records} <= {"utils", "patchcore"}


def test_says_when_there_is_only_noise_to_compare_on(export, asked, data, trained, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(trained / "widget", moved)
    for path in moved.rglob("model.json"):
        record = json.loads(path.read_text().replace(str(data), str(tmp_path / "elsewhere")))
        path.write_text(json.dumps(record | {"digest": record_digest(record)}))
    export(path_trained=moved)
    assert asked.images == []
    assert "(noise alone, since the training images no longer exist: --images" in export.out


def test_takes_training_images_from_all_over(export, asked, monkeypatch):
    monkeypatch.setattr(export_command, "NUM_IMAGES", 3)
    export()
    files = [Path(name) for name in asked.model.coreset.origins.names][::2]
    for found, file in zip(asked.images, files, strict=True):
        np.testing.assert_array_equal(found, read_image(file))


def test_the_first_16_images_that_are_given_are_compared(tmp_path):
    images = [np.full((4, 4, 3), 10 * number, np.uint8) for number in range(20)]
    for number, image in enumerate(images):
        write_image(tmp_path / f"{number:02d}.png", image)
    model = SimpleNamespace(trained=SimpleNamespace(value_range=None))
    found, source = export_command.images_to_compare(model, (str(tmp_path),))
    np.testing.assert_array_equal(found, images[:16])
    assert "--images" in source


def test_a_file_that_does_not_give_the_models_scores_is_an_error(export, monkeypatch):
    monkeypatch.setattr(export_module, "TOLERANCE", 1e-12)
    export(status=2)
    assert export.err.startswith(
        "error: expected the scores and maps of the exported file to equal"
    )
    assert not names(export.folder)


def test_missing_packages_are_reported_before_the_model_is_loaded(export, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delattr(PatchCore, "load")
    export(format="onnx", status=2)
    assert "pip install onnx onnxscript onnxruntime" in export.err


class TestFlags:
    """Each flag arrives."""

    def test_path_trained(self, export, tmp_path):
        export(path_trained=tmp_path / "none", status=2)
        assert "expected trained models in" in export.err

    def test_category(self, export, asked):
        export(category="gadget")
        assert asked.model.trained.category == "gadget"
        assert asked.path == Path(f"gadget_{NETWORK}_p0100_k01.pt2")
        export(category=None, status=2)
        assert "expected one trained model" in export.err

    def test_percentage_coreset(self, export, asked):
        export(percentage_coreset=0.05)
        assert asked.model.percentages == (0.05,)
        assert asked.path == Path(f"widget_{NETWORK}_p0050_k01.pt2")

    def test_backbone(self, export, asked):
        export(backbone="resnet18", status=2)
        assert "for --category widget --backbone resnet18" in export.err
        export(backbone=NETWORK)
        assert asked.model.backbone.name == NETWORK

    def test_weights(self, export, tmp_path):
        export(weights=tmp_path / "weights.pth", status=2)
        assert "no weights file" in export.err

    def test_format(self, export):
        export(format="torch")
        left = export.run_lines(torch=torch)
        assert left["score"].shape == (1,)
        assert left["anomaly_map"].shape == (1, 64, 64)
        assert names(export.folder) == {f"widget_{NETWORK}_p0100_k01.pt2"}
        export(format="tflite", status=2)
        assert "'tflite'" in export.err

    def test_path_export(self, export, asked):
        export(path_export="new/model.pt2")
        assert asked.path == Path("new/model.pt2")
        assert "torch.export.load('new/model.pt2')" in export.out

    def test_images(self, export, asked, data):
        given = [data / "widget/test/hole", data / "widget/test/good/000.png"]
        export("--images", *given)
        files = [given[0] / "000.png", given[0] / "001.png", given[1]]
        for found, file in zip(asked.images, files, strict=True):
            np.testing.assert_array_equal(found, read_image(file))
        assert "compared on 4 images (those of --images, and noise)" in export.out
        bad = truncate(Path(shutil.copy(files[0], export.folder)))
        export("--images", bad, status=2)
        assert "000.png" in export.err
        export("--images", files[0], "gone", status=2)
        assert export.err == "error: no such file or folder: gone (--images)\n"

    def test_quiet(self, export, asked, monkeypatch):
        """And ``verbose``: how much is on the terminal."""
        shown = []
        for flags in ((), ("--quiet",), ("--verbose",)):
            monkeypatch.setattr(logging.root, "handlers", [])  # those of pytest
            export(*flags)
            shown.append(("model: " in export.err, "loaded in" in export.err))
        assert shown == [(True, False), (False, False), (True, True)]

    test_verbose = test_quiet


def test_every_flag_has_a_test():
    tests = {name.removeprefix("test_") for name in vars(TestFlags) if name.startswith("test_")}
    assert tests == {field.name for field in fields(ExportOptions)}
