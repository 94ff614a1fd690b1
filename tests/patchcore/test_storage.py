"""A trained model goes to a folder of plain files and comes back the same, or not at all."""

import copy
import json
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import faiss
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from patchcore import PatchCore, PatchCoreError, storage
from patchcore.backbone import Backbone
from patchcore.network_input import NetworkInput
from patchcore.record import record_digest
from patchcore.settings import Settings
from tests.support import ROOT, one_thread

# Layers and sizes at which a torchvision network takes a fraction of a second.
SMALL = {
    "backbone": "squeezenet1_1",
    "layers": ("features.3", "features.6"),
    "weights": "random",
    "size_resize": (72, 72),
    "size_crop": (64, 64),
    "embed_dim": 200,
    "percentage_coreset": 0.1,
}


# Values that a forged record may have anywhere.
FORGED = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([129, 2**31, 2**63, 10**30, -(10**30)]),
    st.floats(),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
    st.lists(st.integers(-2, 300), max_size=3),
)


@pytest.fixture(autouse=True)
def quick():
    with one_thread():
        yield


def make_images(count: int, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(60, 190, (70, 80, 3), dtype=np.uint8) for _ in range(count)]


def own_network(seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 8, 8), torch.nn.Conv2d(8, 8, 1))
    return Backbone(network, ["0", "1"], (64, 64))


@pytest.fixture(scope="module")
def fitted() -> PatchCore:
    with one_thread():
        names = [f"{number:03d}.png" for number in range(9)]
        return PatchCore(**SMALL, k=2, augment=("vertical",)).fit(make_images(9), names)


@pytest.fixture
def folder(fitted, tmp_path) -> Path:
    fitted.save(tmp_path / "models" / "one")
    return tmp_path / "models" / "one"


def change_record(folder: Path, **changes: object) -> None:
    write_record(folder, json.loads((folder / "model.json").read_text()) | changes)


def write_record(folder: Path, record: dict) -> None:
    """Write a record with the digest that belongs to it."""
    text = json.dumps(record | {"digest": record_digest(record)})
    (folder / "model.json").write_text(text)


def change_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    """Change the tensors, and the digest with them: what a careless editor would leave."""
    path = folder / "model.safetensors"
    tensors = load_file(path) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
    record = json.loads((folder / "model.json").read_text())
    digest = storage.hashlib.sha256(path.read_bytes()).hexdigest()
    change_record(folder, digests=record["digests"] | {"model.safetensors": digest})


class TestTheSameAgain:
    def test_predictions_to_the_last_bit(self, fitted, folder):
        images = make_images(11, seed=5)
        before, after = fitted.predict(images), PatchCore.load(folder).predict(images)
        for name in ("score", "anomaly_map", "distance", "nearest"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))

    def test_in_a_new_process(self, fitted, folder, tmp_path):
        images = make_images(9, seed=6)
        np.save(tmp_path / "images.npy", np.stack(images))
        code = (
            "import sys, numpy as np, torch; torch.set_num_threads(1)\n"
            "from patchcore import PatchCore\n"
            "folder, images, scores = sys.argv[1:]\n"
            "np.save(scores, PatchCore.load(folder).predict(np.load(images)).anomaly_map)\n"
        )
        paths = [folder, tmp_path / "images.npy", tmp_path / "maps.npy"]
        subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True, cwd=ROOT)
        found = np.load(tmp_path / "maps.npy")
        np.testing.assert_array_equal(found, fitted.predict(images).anomaly_map)

    def test_a_model_without_crops_of_its_patches(self, fitted, tmp_path):
        coreset = replace(fitted.trained.coreset, patches=None)
        model = copy.copy(fitted)
        model.trained = replace(fitted.trained, coreset=coreset)
        model.save(tmp_path / "one")
        found = PatchCore.load(tmp_path / "one")
        assert found.coreset.patches is None
        np.testing.assert_array_equal(found.coreset.indices, coreset.indices)

    @pytest.mark.parametrize("backbone", [None, "squeezenet1_1"])
    def test_without_a_trial_run_of_the_network(self, folder, monkeypatch, backbone):
        monkeypatch.setattr("patchcore.backbone.try_out", None)
        PatchCore.load(folder, backbone=backbone)

    def test_everything_that_was_learned(self, fitted, folder):
        before, after = fitted.trained, PatchCore.load(folder).trained
        assert after.coreset.origins.names == before.coreset.origins.names
        assert after.coreset.origins.versions == before.coreset.origins.versions
        assert after.thresholds == before.thresholds
        assert after.best == before.best
        assert after.category == before.category
        assert after.coreset.sizes == before.coreset.sizes
        assert after.coreset.seed == before.coreset.seed
        np.testing.assert_array_equal(after.coreset.indices, before.coreset.indices)
        for name in ("image", "version", "row", "column"):
            found, expected = (getattr(t.coreset.origins, name) for t in (after, before))
            np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(after.held_out.image_scores, before.held_out.image_scores)
        np.testing.assert_array_equal(after.held_out.pixel_scores, before.held_out.pixel_scores)
        np.testing.assert_array_equal(after.held_out.images, before.held_out.images)
        np.testing.assert_array_equal(after.coreset.patches, before.coreset.patches)

    def test_every_setting(self, tmp_path):
        settings = {
            "percentage_coreset": (0.1, 0.5),
            "k": 3,
            "image_score": "reweighted",
            "num_reweight": 4,
            "distance": "cosine",
            "top_share": 0.2,
            "neighbourhood": "pooled",
            "banks": "joined",
            "search_radius": 3,
            "retrieve_images": 2,
            "foreground": "pca",
            "foreground_threshold": 0.5,
            "resize": "stretch",
            "scales": (1.0, 0.5),
            "context": 0.0,  # excludes other settings; test_context.py saves another
            "tile": 0,
            "overlap": 16,
            "size_resize": (70, 80),
            "size_crop": (64, 72),
            "interpolation": "area",
            "augment": ("horizontal", "vertical"),
            "patch_size": 5,
            "embed_dim": 100,
            "layer_weights": (1.0, 0.25),
            "sigma": 2.0,
            "seed": 9,
            "norm_tokens": False,  # of vision transformers; test_timm_networks.py saves True
            "precision": "bfloat16",
        }
        model = PatchCore(**(SMALL | settings)).fit(make_images(4))
        assert set(model.settings.as_json()) == set(settings)  # a new setting is added here
        model.save(tmp_path / "model")
        again = PatchCore.load(tmp_path / "model")
        assert again.settings == Settings(**settings)
        images = make_images(2, seed=3)
        np.testing.assert_array_equal(model.predict(images).score, again.predict(images).score)

    def test_saving_again_takes_the_former_ones_place(self, fitted, folder):
        other = PatchCore(**SMALL).fit(make_images(3, seed=9))
        other.save(folder)
        assert len(PatchCore.load(folder).coreset.bank) == len(other.coreset.bank)
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    def test_half_precision_halves_the_embeddings_and_moves_scores_a_little(self, fitted, folder):
        half = folder.with_name("half")
        fitted.save(half, dtype="float16")
        images = make_images(3, seed=8)
        expected = fitted.predict(images).score
        np.testing.assert_allclose(PatchCore.load(half).predict(images).score, expected, rtol=1e-2)
        sizes = [(path / "model.safetensors").stat().st_size for path in (half, folder)]
        saved = len(fitted.coreset.bank) * 200 * 2  # two of four bytes a number
        assert sizes[1] - sizes[0] == pytest.approx(saved, abs=64)  # the header differs a little

    def test_other_number_types_are_refused(self, fitted, tmp_path):
        with pytest.raises(PatchCoreError, match="dtype float32 or float16, found 'float64'"):
            fitted.save(tmp_path / "model", dtype="float64")

    @pytest.mark.parametrize("weight", [1e-7, 1e6])
    @pytest.mark.parametrize("context", [0.0, 0.5])
    def test_half_precision_is_refused_where_it_holds_no_3_digits(self, tmp_path, weight, context):
        model = PatchCore(**SMALL, layer_weights=(weight, weight), context=context)
        model.fit(make_images(4))
        with pytest.raises(PatchCoreError, match=r"float16 holds to 3 digits.*\(dtype, trained_dt"):
            model.save(tmp_path / "model", dtype="float16")
        assert not list(tmp_path.iterdir())
        model.save(tmp_path / "model")

    @pytest.mark.parametrize(("value", "wrong"), [(65504.0, 0), (65536.0, 1), (3e38, 1), (0.0, 0)])
    def test_the_largest_numbers_of_half_precision(self, value, wrong):
        embeddings = torch.ones(3, 2)
        embeddings[1] = value
        if wrong:
            with pytest.raises(PatchCoreError, match="found 1 of 3 that are too large or"):
                storage._in_type(embeddings, torch.float16)
        else:
            assert torch.equal(storage._in_type(embeddings, torch.float16).float(), embeddings)
        assert torch.equal(storage._in_type(embeddings, torch.float32), embeddings)

    def test_other_programs_get_a_faiss_index_if_asked_for(self, fitted, folder):
        assert not (folder / "index.faiss").exists()
        fitted.save(folder, faiss_index=True)
        index = faiss.read_index(str(folder / "index.faiss"))
        bank = fitted.coreset.bank.embeddings
        queries = bank[:5] + 0.01
        found, _ = index.search(queries.numpy(), 1)
        np.testing.assert_allclose(found[:, 0], [0.01**2 * 200] * 5, rtol=0.05)

    @pytest.mark.parametrize("seed", [0, 5])
    def test_the_projection_is_that_of_the_selections_seed(self, tmp_path, seed):
        PatchCore(**SMALL, seed=seed).fit(make_images(2)).save(tmp_path / "model")
        tensors = load_file(tmp_path / "model/model.safetensors")
        torch.manual_seed(seed)
        assert torch.equal(tensors["projection"], torch.nn.Linear(200, 128, bias=False).weight)

    def test_without_a_projection_none_is_stored(self, tmp_path):
        PatchCore(**(SMALL | {"embed_dim": 128})).fit(make_images(2)).save(tmp_path / "model")
        assert "projection" not in load_file(tmp_path / "model/model.safetensors")

    def test_into_an_empty_folder(self, fitted, tmp_path):
        folder = tmp_path / "models/new"
        folder.mkdir(parents=True)
        fitted.save(folder)
        found = PatchCore.load(folder).coreset
        np.testing.assert_array_equal(found.indices, fitted.coreset.indices)
        assert [path.name for path in folder.parent.iterdir()] == ["new"]

    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            ([Path("a.png"), Path("b.png"), Path("c.png")], ("a.png", "b.png", "c.png")),
            (np.array(["a", "b", "c"]), ("a", "b", "c")),
            (np.arange(3), ("0", "1", "2")),
            ((letter for letter in "abc"), ("a", "b", "c")),
        ],
    )
    def test_names_of_any_type_are_texts(self, tmp_path, names, expected):
        PatchCore(**SMALL).fit(make_images(3), names).save(tmp_path / "model")
        assert PatchCore.load(tmp_path / "model").coreset.origins.names == expected

    def test_a_path_as_weights(self, fitted, tmp_path):
        weights = tmp_path / "squeezenet.safetensors"
        save_file(torchvision.models.squeezenet1_1(weights=None).state_dict(), weights)
        model = PatchCore(**(SMALL | {"weights": weights})).fit(make_images(3))
        model.save(tmp_path / "one")
        PatchCore.load(tmp_path / "one", weights=weights).save(tmp_path / "two")
        assert PatchCore.load(tmp_path / "two").backbone.weights == str(weights)

    def test_other_files_of_the_folder_stay(self, fitted, folder):
        fitted.save(folder, faiss_index=True)
        (folder / "notes.txt").write_text("line 3")
        fitted.save(folder / "nested")
        fitted.save(folder)
        names = ["model.json", "model.safetensors", "nested", "notes.txt"]
        assert sorted(path.name for path in folder.iterdir()) == names
        assert (folder / "notes.txt").read_text() == "line 3"
        PatchCore.load(folder / "nested")
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_link_to_a_folder_stays_a_link(self, fitted, folder, exists):
        target = folder if exists else folder.with_name("new")
        link = folder.parent.parent / "link"
        link.symlink_to(target, target_is_directory=True)
        fitted.save(link, dtype="float16")
        assert link.is_symlink()
        assert json.loads((target / "model.json").read_text())["dtype"] == "float16"
        assert {path.name for path in folder.parent.iterdir()} == {folder.name, target.name}
        assert [path.name for path in link.parent.iterdir() if path.name.startswith(".")] == []

    def test_a_network_of_the_users_own_given_again(self, tmp_path):
        images = make_images(4)
        model = PatchCore(own_network(), size_crop=(64, 64), embed_dim=50).fit(images)
        model.save(tmp_path / "own")
        again = PatchCore.load(tmp_path / "own", backbone=own_network())
        np.testing.assert_array_equal(again.predict(images).score, model.predict(images).score)


class TestRefusals:
    """Each says what does not fit."""

    def check(self, folder: Path, message: str, **arguments: object) -> None:
        with pytest.raises(PatchCoreError, match=message):
            PatchCore.load(folder, **arguments)

    def test_saves_nothing_before_it_was_fitted(self, tmp_path):
        with pytest.raises(PatchCoreError, match="call fit first"):
            PatchCore(**SMALL).save(tmp_path / "model")

    def test_does_not_replace_other_peoples_files(self, fitted, tmp_path):
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(
            PatchCoreError, match=r"files without model.json in .*: move them, or give another"
        ):
            fitted.save(tmp_path)
        assert (tmp_path / "letter.txt").read_text() == "dear"

    @pytest.mark.parametrize("name", ["model", "model/one"])
    def test_a_file_is_no_folder(self, fitted, tmp_path, name):
        (tmp_path / "model").write_text("dear")
        with pytest.raises(PatchCoreError, match=r"expected a folder .*, found a file: .*model$"):
            fitted.save(tmp_path / name)
        assert (tmp_path / "model").read_text() == "dear"

    @pytest.mark.parametrize("absolute", [True, False])
    def test_the_current_folder_is_not_replaced(self, fitted, tmp_path, monkeypatch, absolute):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(PatchCoreError, match="another folder than the current one"):
            fitted.save(tmp_path if absolute else ".")
        fitted.save("one")
        assert [path.name for path in tmp_path.iterdir()] == ["one"]

    def test_other_files_that_cannot_move_are_left_and_named(
        self, fitted, folder, monkeypatch, caplog
    ):
        (folder / "notes.txt").write_text("line 3")
        rename = Path.rename

        def refuse_notes(path: Path, target: Path) -> Path:
            if path.name == "notes.txt":
                raise OSError(13, "Permission denied")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", refuse_notes)
        fitted.save(folder, dtype="float16")
        (left,) = folder.parent.glob(".one.*.former")
        assert (left / "notes.txt").read_text() == "line 3"
        assert f"files of the former folder are left in {left}: Permission denied" in caplog.text
        PatchCore.load(folder)

    def test_a_crash_while_writing_keeps_the_former_model(self, fitted, folder, monkeypatch):
        expected = (folder / "model.json").read_bytes()
        write = Path.write_bytes

        def full_disk(path: Path, data: bytes) -> int:
            if path.name == "model.json":
                raise OSError(28, "No space left on device")
            return write(path, data)

        monkeypatch.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(PatchCoreError, match=r"cannot write .*No space left"):
            fitted.save(folder, dtype="float16")
        assert (folder / "model.json").read_bytes() == expected
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]
        PatchCore.load(folder)

    def test_where_the_new_folder_cannot_take_its_place_the_former_one_returns(
        self, fitted, folder, monkeypatch
    ):
        """The former model has been moved away when the swap fails."""
        expected = {path.name: path.read_bytes() for path in folder.iterdir()}
        rename, moves = Path.rename, []

        def refuse_the_new_one(path: Path, target: Path) -> Path:
            moves.append((path, target))
            if len(moves) == 2:
                raise OSError(16, "Device or resource busy")
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", refuse_the_new_one)
        with pytest.raises(PatchCoreError, match=r"cannot write .*one: Device or resource busy"):
            fitted.save(folder, dtype="float16")
        assert [target == folder for _, target in moves] == [False, True, True]
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]

    @pytest.mark.parametrize("swapped", [False, True])
    def test_what_a_killed_process_has_left_is_taken_up(self, fitted, folder, swapped):
        """It was killed after the former folder was moved away, or before that was removed."""
        (folder / "notes.txt").write_text("line 3")
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        alive = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        host = platform.node()
        folder.rename(folder.with_name(f".one.{host}.{dead.pid}.former"))
        (folder.with_name(f".one.{host}.{dead.pid}.partial") / "model").mkdir(parents=True)
        others = {f".one.{host}.{alive.pid}.partial", f".one.other.{dead.pid}.partial"}
        for name in others:
            folder.with_name(name).mkdir()
        if swapped:
            fitted.save(folder.with_name("new"))
            folder.with_name("new").rename(folder)
        fitted.save(folder)
        assert {path.name for path in folder.parent.iterdir()} == {"one", *others}
        assert alive.poll() is None
        alive.communicate(b"\n")
        assert alive.returncode == 0  # no signal has reached it
        assert (folder / "notes.txt").read_text() == "line 3"
        PatchCore.load(folder)

    def test_what_cannot_be_removed_of_a_killed_process_stays(self, fitted, folder):
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        no_folder = folder.with_name(f".one.{platform.node()}.{dead.pid}.partial")
        no_folder.write_text("removed by no rmtree")
        fitted.save(folder)
        assert {path.name for path in folder.parent.iterdir()} == {"one", no_folder.name}
        PatchCore.load(folder)

    def test_no_folder(self, tmp_path):
        self.check(tmp_path / "none", "the folder of a trained model, cannot read .*model.json")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "found no JSON"),
            ("[1]", "found another record"),
            ('{"format": "other"}', "found another record"),
        ],
    )
    def test_another_record(self, folder, text, message):
        (folder / "model.json").write_text(text)
        self.check(folder, message)

    def test_another_version(self, folder):
        change_record(folder, format_version=99)
        self.check(folder, "expected format_version 5 .* found 99: train again")

    @pytest.mark.parametrize("name", ["model.safetensors"])
    def test_a_damaged_file(self, folder, name):
        path = folder / name
        path.write_bytes(path.read_bytes()[:-7] + b"somehow")
        self.check(folder, f"found a damaged or different file: .*{name}")

    def test_a_missing_file(self, folder):
        (folder / "model.safetensors").unlink()
        self.check(folder, "cannot read .*model.safetensors: No such file")

    def test_other_weights(self, folder, tmp_path):
        weights = tmp_path / "other.safetensors"
        torch.manual_seed(77)
        save_file(torchvision.models.squeezenet1_1(weights=None).state_dict(), weights)
        message = "the weights that the model was trained with .* 'random'.* different weights"
        self.check(folder, message, weights=str(weights))

    def test_another_backbone(self, folder):
        self.check(folder, "found different weights", backbone="squeezenet1_0")

    def test_no_code_is_imported_because_a_file_says_so(self, folder, tmp_path, monkeypatch):
        (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
        monkeypatch.syspath_prepend(tmp_path)
        record = json.loads((folder / "model.json").read_text())
        change_record(folder, backbone=record["backbone"] | {"name": "trap:make"})
        self.check(folder, "code named in a file is never imported")

    def test_a_network_without_a_name_must_be_given(self, tmp_path):
        model = PatchCore(own_network(), size_crop=(64, 64), embed_dim=50).fit(make_images(3))
        model.save(tmp_path / "own")
        self.check(tmp_path / "own", "the backbone to be given.*it has no name")
        self.check(tmp_path / "own", "found different weights", backbone=own_network(seed=1))

    def test_a_network_for_another_size_or_input_predicts_as_at_training(self, tmp_path, caplog):
        trained = own_network()
        trained.input = NetworkInput((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bicubic")
        model = PatchCore(trained, size_crop=(64, 64), embed_dim=50).fit(make_images(3))
        model.save(tmp_path / "own")
        given = Backbone(own_network().network, ["0", "1"])
        found = PatchCore.load(tmp_path / "own", backbone=given).predict(make_images(2))
        expected = model.predict(make_images(2))
        np.testing.assert_array_equal(found.anomaly_map, expected.anomaly_map)
        assert (given.size, given.input) == ((224, 224), NetworkInput())
        message = "as at training, with NetworkInput(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)"
        assert caplog.text.count(message) == 1

    def test_other_layers_of_the_same_network(self, tmp_path):
        model = PatchCore(own_network(), size_crop=(64, 64), embed_dim=50).fit(make_images(3))
        model.save(tmp_path / "own")
        other = Backbone(own_network().network, ["0"], (64, 64))
        self.check(tmp_path / "own", "trained with, 0, 1, found 0", backbone=other)

    @pytest.mark.parametrize(
        ("name", "tensor"),
        [
            ("embeddings", torch.zeros(3, 200)),
            ("indices", torch.zeros(2, dtype=torch.int64)),
            ("origin_image", torch.zeros(2, dtype=torch.int64)),
            ("held_out_numbers", torch.zeros(2, dtype=torch.int64)),
        ],
    )
    def test_shapes_that_do_not_fit(self, folder, name, tensor):
        change_tensors(folder, **{name: tensor})
        self.check(folder, rf"expected {name} \(.*model.safetensors, found \({len(tensor)}")

    @pytest.mark.parametrize("name", ["embeddings", "origin_row"])
    def test_a_tensor_that_is_missing(self, folder, name):
        change_tensors(folder, **{name: None})
        self.check(folder, rf"expected {name} \(.*model.safetensors, found nothing")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            pytest.param("indices", "indices of training patches below 4050", id="indices"),
            pytest.param("origin_image", "training images below 9", id="images"),
            pytest.param("origin_version", "versions below 2", id="versions"),
            pytest.param("origin_row", "rows below 15", id="rows"),
            pytest.param("origin_column", "columns below 15", id="columns"),
            pytest.param(
                "held_out_numbers", "training images of held-out scores below 9", id="held-out"
            ),
        ],
    )
    def test_numbers_just_beyond_their_limits(self, folder, name, message):
        """Each limit is refused itself, and so is -1; one below the limit is accepted."""
        tensor = load_file(folder / "model.safetensors")[name]
        limit = int(message.rpartition(" ")[2])
        for number, found in ((-1, "-1 to"), (limit, f"to {limit}$")):
            changed = tensor.clone()
            changed[3] = number
            change_tensors(folder, **{name: changed})
            self.check(folder, f"expected {message} in .*, found .*{found}")
        changed[3] = limit - 1
        change_tensors(folder, **{name: changed})
        PatchCore.load(folder)

    @pytest.mark.parametrize("entry", ["settings", "digests", "thresholds", "backbone", "f1_max"])
    def test_a_record_with_an_entry_missing(self, folder, entry):
        record = json.loads((folder / "model.json").read_text())
        del record[entry]
        write_record(folder, record)
        self.check(folder, "expected a complete trained model")

    @pytest.mark.parametrize("change", ["digit", "gone", "digest"])
    def test_a_record_that_was_changed(self, folder, change):
        path = folder / "model.json"
        record = json.loads(path.read_text())
        if change == "digit":
            record["thresholds"]["image"]["value"] += 0.001
        elif change == "gone":
            del record["settings"]["size_resize"]
        else:
            del record["digest"]
        path.write_text(json.dumps(record))
        self.check(folder, "expected the record as it was written, found a damaged or changed one")

    def test_a_record_too_deep_to_be_written_again(self, folder, monkeypatch):
        monkeypatch.setattr("patchcore.record.record_digest", mock.Mock(side_effect=RecursionError))
        self.check(folder, "found a damaged or changed one: .*model.json")

    def test_white_space_in_a_record_is_no_change(self, folder):
        path = folder / "model.json"
        path.write_text(json.dumps(json.loads(path.read_text())))
        PatchCore.load(folder)

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_a_forged_record_is_loaded_or_refused(self, folder, data):
        """With a digest that fits: any entry may have any value."""
        original = (folder / "model.json").read_text()
        record = json.loads(original)
        place = record
        while True:
            keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
            key = data.draw(st.sampled_from(keys))
            value = place[key]
            if not (isinstance(value, dict | list) and value and data.draw(st.booleans())):
                break
            place = value
        place[key] = data.draw(FORGED)
        write_record(folder, record)
        try:
            PatchCore.load(folder)
        except PatchCoreError:
            pass
        finally:
            (folder / "model.json").write_text(original)

    @settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_forged_tensors_are_loaded_or_refused(self, folder, data):
        """With a digest that fits: the header may have any bytes."""
        path = folder / "model.safetensors"
        original, record = path.read_bytes(), (folder / "model.json").read_text()
        forged = bytearray(original)
        for _ in range(data.draw(st.integers(1, 4))):
            forged[data.draw(st.integers(0, 800))] = data.draw(st.integers(0, 255))
        forged = forged[: data.draw(st.sampled_from([len(forged), 0, 7, 300]))]
        path.write_bytes(forged)
        digest = storage.hashlib.sha256(forged).hexdigest()
        change_record(folder, digests={"model.safetensors": digest})
        try:
            PatchCore.load(folder)
        except PatchCoreError:
            pass
        finally:
            path.write_bytes(original)
            (folder / "model.json").write_text(record)

    def test_the_former_format(self, folder):
        change_record(folder, format_version=4)
        self.check(folder, "expected format_version 5 .* found 4: train again")

    def test_unknown_settings(self, folder):
        record = json.loads((folder / "model.json").read_text())
        change_record(folder, settings=record["settings"] | {"hidden": 1})
        self.check(folder, "unknown: hidden")


@pytest.fixture(scope="module")
def full_folder(tmp_path_factory) -> Path:
    """Save a model with all tensors: a mask, features of images, added images."""
    mask = np.zeros((70, 80), bool)
    mask[:20, :20] = True
    with one_thread():
        model = PatchCore(**SMALL, ignore_mask=mask, retrieve_images=2)
        model.fit(make_images(5)).extend(make_images(2, seed=1))
    folder = tmp_path_factory.mktemp("models") / "one"
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def context_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "context"
    with one_thread():
        PatchCore(**SMALL, context=0.5).fit(make_images(5)).save(folder)
    return folder


class TestContext:
    def check(self, folder, message):
        with pytest.raises(PatchCoreError, match=message):
            PatchCore.load(folder)

    def test_it_belongs_to_the_settings(self, context_folder, tmp_path):
        changed = shutil.copytree(context_folder, tmp_path / "model")
        change_record(changed, context=None)
        self.check(changed, "expected a context as the settings say, 0.5, found none")

    @pytest.mark.parametrize("sizes", [[0, 24], [25, 24], [24.0]])
    def test_its_sizes_ascend(self, context_folder, tmp_path, sizes):
        changed = shutil.copytree(context_folder, tmp_path / "model")
        context = json.loads((changed / "model.json").read_text())["context"]
        change_record(changed, context=context | {"coreset_sizes": sizes})
        found = re.escape(f"found {tuple(sizes)} (context)")
        self.check(changed, f"expected ascending coreset sizes in model.json, {found}")

    @pytest.mark.parametrize("std", [0, -1, float("nan"), float("inf")])
    def test_its_scores_can_be_joined(self, context_folder, tmp_path, std):
        changed = shutil.copytree(context_folder, tmp_path / "model")
        context = json.loads((changed / "model.json").read_text())["context"]
        context["normal"][0][1]["std"] = std
        change_record(changed, context=context)
        self.check(changed, "expected finite scores of normal patches")

    def test_its_bank_has_the_size_of_the_record(self, context_folder, tmp_path):
        changed = shutil.copytree(context_folder, tmp_path / "model")
        context = json.loads((changed / "model.json").read_text())["context"]
        context["coreset_sizes"] = [2]
        change_record(changed, context=context)
        self.check(changed, r"expected context_embeddings \(2, ")


def test_the_digest_of_a_record_depends_on_no_order():
    assert record_digest({"a": 1, "b": 2}) == record_digest({"b": 2, "a": 1, "digest": "any"})
    assert record_digest({"a": 1, "b": 2}) != record_digest({"a": 2, "b": 1})


class TestEveryTensor:
    def test_the_docs_name_each_with_its_type_and_axes(self, full_folder, context_folder):
        page = (ROOT / "docs/models.md").read_text().split("## `model.safetensors`")[1]
        table = page.split("\n## ")[0]
        documented = {}
        for row in table.splitlines():
            if row.startswith("| `"):
                names, shape, dtype, _ = (cell.strip() for cell in row.strip("|").split("|"))
                shapes = re.findall(r"\(([^)]*)\)", shape)
                found = re.findall(r"`(\w+)`", names)
                for name, axes in zip(found, shapes * len(found), strict=False):
                    documented[name] = len([a for a in axes.split(",") if a.strip()]), dtype
        tensors = load_file(full_folder / "model.safetensors")
        tensors |= load_file(context_folder / "model.safetensors")
        assert documented.keys() == tensors.keys()
        for name, tensor in tensors.items():
            axes, dtypes = documented[name]
            assert axes == tensor.ndim, name
            assert str(tensor.dtype).removeprefix("torch.") in dtypes.split(" or "), name

    def test_features_of_images_are_one_for_each_version_of_an_image(self, full_folder, tmp_path):
        changed = shutil.copytree(full_folder, tmp_path / "model")
        features = load_file(changed / "model.safetensors")["image_features"]
        change_tensors(changed, image_features=features[:-1])
        with pytest.raises(PatchCoreError, match=rf"image_features \({len(features)}, .*found \(6"):
            PatchCore.load(changed)

    def test_numbers_of_joined_images_are_checked(self, full_folder, tmp_path):
        changed = shutil.copytree(full_folder, tmp_path / "model")
        numbers = load_file(changed / "model.safetensors")["joined_numbers"]
        change_tensors(changed, joined_numbers=numbers + 1)
        message = "images of the scores of joined images below 2 .*, found 1 to 2"
        with pytest.raises(PatchCoreError, match=message):
            PatchCore.load(changed)


@pytest.mark.parametrize("count", [0, -1, 2, None])
def test_another_number_of_banks_is_refused(folder, count):
    change_record(folder, num_banks=count)
    with pytest.raises(PatchCoreError, match=f"expected 1 memory banks in .*, found {count}"):
        PatchCore.load(folder)
