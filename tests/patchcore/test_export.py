import importlib.util
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import patchcore.export
from patchcore import PatchCore, PatchCoreError
from patchcore.backbone import Backbone
from patchcore.export import compare, export
from patchcore.export import formats as export_formats
from patchcore.export.formats import FORMATS
from tests.patchcore.test_model import make_images, make_model
from tests.support import one_thread

TRAIN, TEST = make_images(6), make_images(5, seed=1)
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


@pytest.fixture(scope="module", autouse=True)
def in_one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def model():
    return make_model(k=5, image_score="reweighted", percentage_coreset=[0.1, 0.5]).fit(TRAIN)


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The model in each format."""
    folder = tmp_path_factory.mktemp("new") / "exported"
    return {
        name: export(model, folder / f"model{suffix}", name, images=TEST)
        for name, suffix in SUFFIXES.items()
    }


@pytest.fixture(scope="module")
def runners(files):
    """What runs each file."""
    return {name: FORMATS[name].load(exported.path) for name, exported in files.items()}


def cropped(model, images):
    return np.stack([model.crop(image) for image in images]).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_gives_the_models_scores_and_maps(runners, model, name, batch):
    score, anomaly_map = runners[name](np.ascontiguousarray(cropped(model, TEST[:batch])))
    expected = model.predict(TEST[:batch])
    assert score.dtype == anomaly_map.dtype == np.float32
    np.testing.assert_allclose(score, expected.score, rtol=1e-5)
    np.testing.assert_allclose(anomaly_map, expected.anomaly_map, rtol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_one_file_and_what_is_known_of_it(files, model, name):
    exported = files[name]
    assert sorted(exported.path.parent.iterdir()) == sorted(f.path for f in files.values())
    assert exported.num_bytes == exported.path.stat().st_size
    assert exported.num_images == len(TEST) + 1
    assert 0 < exported.difference < 1e-5
    tensors = (*model.backbone.parameters(), model.coreset.bank.embeddings)
    assert exported.num_bytes < sum(t.nbytes for t in tensors) + 300_000  # nothing is in it twice


def described(files):
    session = onnxruntime.InferenceSession(files["onnx"].path)
    with zipfile.ZipFile(files["torch"].path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("metadata.json"))
        text = json.loads(archive.read(name))
    return session, session.get_modelmeta().custom_metadata_map, text


def test_says_what_goes_in_and_what_comes_out(files, model):
    session, in_onnx, in_torch = described(files)
    (images,) = session.get_inputs()
    assert (images.name, images.shape) == ("images", ["batch", 3, 32, 32])
    assert images.type == "tensor(uint8)"
    assert [(o.name, o.shape) for o in session.get_outputs()] == [
        ("score", ["batch"]),
        ("anomaly_map", ["batch", 32, 32]),
    ]
    assert in_onnx["input"].startswith("images (B, 3, 32, 32) uint8 RGB: resized to 36x36")
    for value in (json.loads(in_onnx["size_crop"]), in_torch["size_crop"]):
        assert value == [32, 32]
    assert in_torch["percentage_coreset"] == 0.5
    assert in_torch["num_coreset"] == len(model.coreset.bank)
    assert in_torch["layers"] == ["0", "2"]
    assert in_torch["threshold_image"] == model.thresholds.image.value
    assert float(in_onnx["threshold_pixel"]) == model.thresholds.pixel.value
    assert len(in_onnx["weights_digest"]) == 64
    assert in_onnx["patchcore_version"] == in_torch["patchcore_version"]


def test_names_nothing_of_the_machine_that_wrote_it(files):
    graph = onnx.load(files["onnx"].path).graph
    assert not any(node.metadata_props for node in graph.node)
    here = str(Path(__file__).parent.parent.parent).encode()
    assert here not in files["onnx"].path.read_bytes()
    with zipfile.ZipFile(files["torch"].path) as archive:
        assert not any(here in archive.read(name) for name in archive.namelist())


def test_the_torch_file_loads_without_this_package_and_without_pickled_objects(files, model):
    """Only torch's example input is pickled: a tensor, which the safe reader reads."""
    with zipfile.ZipFile(files["torch"].path) as archive:
        for name in archive.namelist():
            if name.endswith("_config.json"):
                assert b'"use_pickle": true' not in archive.read(name)
            if name.endswith(".pt"):
                with archive.open(name) as file:
                    torch.load(file, weights_only=True)
    code = (
        "import sys, torch\n"
        "images = torch.arange(3 * 32 * 32).reshape(1, 3, 32, 32).to(torch.uint8)\n"
        "print(torch.export.load(sys.argv[1]).module()(images)[0].item())\n"
        "assert 'patchcore' not in sys.modules\n"
    )
    command = [sys.executable, "-I", "-c", code, str(files["torch"].path)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    image = np.arange(3 * 32 * 32).reshape(3, 32, 32).astype(np.uint8).transpose(1, 2, 0)
    expected = model.predict_crops([np.ascontiguousarray(image)[None]]).score[0]
    assert float(found.stdout) == pytest.approx(expected, rel=1e-5)


def test_noise_has_all_values_and_is_always_the_same():
    first, second = (np.stack(patchcore.export._noise((32, 48), 3)) for _ in range(2))
    assert first.shape == (3, 32, 48, 3)
    assert len(np.unique(first)) == 256
    np.testing.assert_array_equal(first, second)


def test_a_smaller_percentage_and_noise_to_compare_on(model, tmp_path):
    exported = export(model, tmp_path / "small.pt2", "torch", percentage=0.1)
    assert exported.num_images == 4
    module = torch.export.load(exported.path).module()
    found = module(torch.from_numpy(cropped(model, TEST)))[0].numpy()
    small = model.coreset.part(0)
    batch = np.stack([model.crop(image) for image in TEST])
    embeddings = model.embedder.embed(batch)
    (expected,) = model.scorer.predict(embeddings, small.bank, small.sizes)
    np.testing.assert_allclose(found, expected.score, rtol=1e-5)
    with zipfile.ZipFile(exported.path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("metadata.json"))
        text = json.loads(archive.read(name))
    assert text["percentage_coreset"] == 0.1
    assert "threshold_image" not in text  # it is of the largest percentage


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [[0], [0, 0, 0]]),
        (4, [[0], [1, 2, 3]]),
        (5, [[0], [1, 2, 3], [4]]),
        (6, [[0], [1, 2, 3], [4], [5, 0, 1]]),
    ],
)
def test_each_size_of_batch_is_compared_and_each_image(count, expected):
    """The last batch is filled up with the first images."""
    assert [batch.tolist() for batch in patchcore.export._batches(range(count))] == expected


class Tampered:
    """What an exported file would give if one value of one output were a little off."""

    def __init__(self, run, place, factor, batch):
        self.run, self.place, self.factor, self.batch = run, place, factor, batch

    def __call__(self, images):
        outputs = [np.array(output) for output in self.run(images)]
        if len(images) == self.batch:
            outputs[self.place].flat[-1] *= self.factor
        return tuple(outputs)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("factor", [0.99, np.nan])
def test_a_wrong_value_is_found(runners, model, place, batch, factor):
    run = Tampered(runners["torch"], place, factor, batch)
    crops = [model.crop(image) for image in TEST]
    assert compare(run.run, model, model.coreset, crops) < 1e-5
    with pytest.raises(PatchCoreError, match=r"equal the model.s up to 0.0001, found"):
        compare(run, model, model.coreset, crops)


def test_a_wrong_shape_is_found(runners, model):
    def run(images):
        score, anomaly_map = runners["torch"](images)
        return score[:, None], anomaly_map

    with pytest.raises(PatchCoreError, match=r"score of shape \(1,\), found \(1, 1\)"):
        compare(run, model, model.coreset, [model.crop(image) for image in TEST])


def test_a_score_of_zero_is_compared_with_rounding():
    """Training images are in the bank: any relative difference would be infinite."""
    model = make_model(percentage_coreset=1.0).fit(TRAIN)
    crops = [model.crop(image) for image in TRAIN]
    assert (model.predict(TRAIN).score == 0).all()

    def run(images):
        return np.full(len(images), value, np.float32), np.zeros((len(images), 32, 32), np.float32)

    length = float(model.coreset.bank.embeddings.norm(dim=1).mean())
    value = 0.9e-5 * length
    assert compare(run, model, model.coreset, crops) == pytest.approx(0.9e-4, rel=1e-3)
    value = 1.1e-5 * length
    with pytest.raises(PatchCoreError, match="found a difference of"):
        compare(run, model, model.coreset, crops)


@pytest.fixture
def kept(tmp_path):
    """An earlier file, which a failure must not touch."""
    path = tmp_path / "model.pt2"
    path.write_bytes(b"earlier")
    yield path
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


class Fixed(nn.Module):
    """A network that an exporter freezes wrongly: it treats batches of two otherwise."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 4, 1)

    def forward(self, x):
        return self.conv(x if x.shape[0] == 2 else x.flip(2))


def test_a_file_that_gives_other_scores_gets_no_name(kept):
    torch.manual_seed(0)
    options = {"size_resize": (36, 36), "size_crop": (32, 32), "batch_size": 1}
    model = PatchCore(Backbone(Fixed(), ["conv"], (32, 32)), embed_dim=24, **options).fit(TRAIN)
    with pytest.raises(PatchCoreError, match="found a difference of"):
        export(model, kept, "torch")


def test_a_file_that_cannot_be_read_gets_no_name(monkeypatch, kept, model):
    def write(program, path, description):
        path.write_bytes(b"no archive")

    monkeypatch.setattr(FORMATS["torch"], "write", write)
    with pytest.raises(PatchCoreError, match="cannot read the exported file"):
        export(model, kept, "torch")


def test_a_full_disk_is_an_error(kept, model):
    """And not the end of the process, as with torch's own writer of files."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(PatchCoreError, match=f"cannot write {kept}: File too large"):
            export(model, kept, "torch")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_what_an_exporter_cannot_express_is_an_error(monkeypatch, kept, model):
    def write(program, path, description):
        raise RuntimeError("no operator for this\nand a long story")

    monkeypatch.setattr(FORMATS["torch"], "write", write)
    with pytest.raises(PatchCoreError, match=r"to .pt2: RuntimeError: no operator for this$"):
        export(model, kept, "torch")


def test_a_file_that_does_not_run_is_an_error(runners, model):
    def run(images):
        if len(images) != 1:
            raise RuntimeError("only one")
        return runners["torch"](images)

    with pytest.raises(PatchCoreError, match="does not run on 3 images: only one"):
        compare(run, model, model.coreset, [model.crop(image) for image in TEST])


def test_names_the_packages_that_are_missing(monkeypatch, tmp_path, model):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name.startswith("onnxr") else "there"
    )
    with pytest.raises(PatchCoreError, match=r"pip install onnxruntime$"):
        export(model, tmp_path / "model.onnx")


def test_an_onnx_file_holds_as_much_as_its_limit(monkeypatch):
    module = nn.Sequential(nn.Linear(10, 6), nn.BatchNorm1d(6))
    num_bytes = 4 * (10 * 6 + 6 + 4 * 6) + 8  # the number of batches is int64
    monkeypatch.setattr(export_formats, "ONNX_MAX_BYTES", num_bytes)
    FORMATS["onnx"].check_size(module)
    monkeypatch.setattr(export_formats, "ONNX_MAX_BYTES", num_bytes - 1)
    with pytest.raises(PatchCoreError, match="limit of an ONNX file"):
        FORMATS["onnx"].check_size(module)


def test_the_limit_of_an_onnx_file_leaves_room_for_its_nodes():
    """A protobuf message holds less than 2 GiB."""
    assert 2**31 - 100e6 < export_formats.ONNX_MAX_BYTES < 2**31 - 1e6


def test_says_when_an_onnx_file_would_be_too_large(monkeypatch, tmp_path, model):
    monkeypatch.setattr(export_formats, "ONNX_MAX_BYTES", 10_000)
    with pytest.raises(PatchCoreError, match=r"at most 0.00 GB .*or in the format torch"):
        export(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "file_format", "message"),
    [
        ("model.onnx", "tflite", "format onnx or torch, found 'tflite'"),
        ("model.bin", "onnx", "ends with .onnx for the format onnx, found 'model.bin'"),
        ("model.onnx", "torch", "ends with .pt2 for the format torch"),
        ("file/model.pt2", "torch", "cannot write .*file/model.pt2: "),
    ],
)
def test_refuses_other_formats_and_places(model, tmp_path, name, file_format, message):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(PatchCoreError, match=message):
        export(model, tmp_path / name, file_format)


def test_refuses_what_cannot_be_exported(model, tmp_path):
    with pytest.raises(PatchCoreError, match=r"percentages 0.1, 0.5, found 0.2"):
        export(model, tmp_path / "model.pt2", "torch", percentage=0.2)
    with pytest.raises(PatchCoreError, match="fitted PatchCore to export"):
        export(make_model(), tmp_path / "model.pt2", "torch")
