"""Every flag arrives where it changes what is done: the results, the files, or the model.

`TestDestinations` is complete by a test: who adds a flag adds its test.
"""

import json
import logging
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file

import main
from datasets import reading_ahead
from datasets.reading_ahead import map_ahead
from patchcore import PatchCore, PatchCoreError
from patchcore.embedder import Embedder
from patchcore.engine import LocalEngine
from patchcore.record import read_record
from tests.datasets.miniatures import MINIATURES
from tests.recomputed import check_against_saved_maps
from tests.support import (
    DEFECT_TYPES,
    NUM_PATCHES,
    NUM_TEST_PER_TYPE,
    NUM_TRAIN,
    SIDE,
    call,
    make_category,
    make_data,
    names,
    quick,
    read_maps,
    read_run,
    read_table,
    truncate,
    without_plots,
    write_image,
)
from utils.errors import LEFT_OUT, UsageError
from utils.options import engine as engine_module
from utils.options.evaluate import EvaluateOptions
from utils.pipeline import cluster as cluster_module
from utils.pipeline import drawing as drawing_module
from utils.pipeline import evaluate_one, evaluation
from utils.pipeline import image_figures as figures_module
from utils.pipeline import models as models_module
from utils.pipeline.category_result import CategoryResult
from utils.pipeline.cluster import Cluster
from utils.pipeline.demand import demands_of
from utils.pipeline.nodes import Node, Report
from utils.plots import draw_localization
from utils.saturated_overlap import au_spro


@dataclass
class Seen:
    """What one category's evaluation came to."""

    model: PatchCore
    result: CategoryResult

    @property
    def prediction(self):
        return self.result.predictions[-1]

    @property
    def coreset(self) -> list[int]:
        """Training patches of the last seed, in order of selection."""
        return list(self.result.learned.coresets.values())[-1].indices.tolist()

    @property
    def bank(self) -> torch.Tensor:
        """(M, D)."""
        return list(self.result.learned.coresets.values())[-1].bank.embeddings


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "squeezenet.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), path)
    return path


class TestDestinations:
    """`test_<flag>` shows, through the whole program, that the flag changes what is done."""

    @pytest.fixture(autouse=True)
    def no_curves(self):
        with without_plots():
            yield

    @pytest.fixture(autouse=True)
    def spies(self, data, tmp_path, monkeypatch):
        self.data, self.folder, self.patch = data, tmp_path / "result", monkeypatch
        self.seen: list[Seen] = []
        evaluate = evaluate_one.evaluate_category

        def spy(model, *arguments):
            results = evaluate(model, *arguments)
            self.seen.append(Seen(model, results[-1]))
            return results

        monkeypatch.setattr(evaluate_one, "evaluate_category", spy)

    def run(self, text: str = "", status: int = 0) -> Seen:
        """Evaluate one category (or those that the flags name) with these flags."""
        base = f"--path_data {self.data} --path_result {self.folder} --categories widget --fresh"
        assert call(*quick(*base.split(), *text.split())) == status
        return self.seen[-1]

    def names_like(self, pattern: str) -> set[str]:
        return names(self.folder, pattern)

    def test_path_data(self, tmp_path):
        make_category(tmp_path / "other", "widget", seed=5)
        ours = self.run().result.category
        other = self.run(f"--path_data {tmp_path / 'other'}").result.category
        assert ours.train[0].path.is_relative_to(self.data)
        assert other.train[0].path.is_relative_to(tmp_path / "other")

    def test_categories(self):
        self.run("--categories widget gadget")
        assert [seen.result.category.name for seen in self.seen] == ["widget", "gadget"]

    def test_ignore_mask(self, tmp_path):
        """The holes and stains begin at columns 16; the crop leaves out 4 of 72 pixels a side."""
        mask = np.zeros((64, 64), np.uint8)
        mask[:, :36] = 255
        flags = f"--ignore_mask {write_image(tmp_path / 'mask.png', mask)} --save_maps"
        folder, record = self.keep(flags)
        seen = self.seen[-1]
        ignored = seen.result.ignored.pixels
        assert 0.5 < ignored.mean() < 0.6
        assert record["ignore_mask_size"] == [64, 64]
        np.testing.assert_array_equal(load_file(folder / "model.safetensors")["ignored"], ignored)
        assert len(seen.coreset) == NUM_TRAIN * int((~seen.result.ignored.patches).sum()) // 10
        (row,) = read_table(self.folder)
        saved = read_maps(self.folder, row)
        np.testing.assert_array_equal(saved["ignored"], ignored)
        check_against_saved_maps(self.folder, row)
        assert "of each image is ignored" in (self.folder / "tables.md").read_text()

    def test_shots(self):
        seen = self.run("--shots 2")
        assert len(seen.result.category.train) == 2
        assert {origin // NUM_PATCHES for origin in seen.coreset} == {0, 1}
        assert [row["num_train"] for row in read_table(self.folder)] == ["2"]

    def test_max_megapixels(self, capsys):
        pixels = SIDE * SIDE / 1e6
        base = f"--path_data {self.data} --path_result {self.folder} --categories widget"
        flags = quick(*base.split(), "--max_megapixels", str(pixels / 2))
        assert call(*flags) == main.WRONG_USAGE
        assert "(--max_megapixels)" in capsys.readouterr().err
        self.run(f"--max_megapixels {pixels}")

    def test_on_error(self, tmp_path):
        data = make_category(tmp_path / "damaged", "widget").parent
        truncate(data / "widget/train/good/000.png")
        flags = f"--path_data {data} --path_result {self.folder} --categories widget --on_error"
        assert call(*quick(*flags.split(), "stop")) == main.WRONG_USAGE
        assert call(*quick(*flags.split(), "skip")) == LEFT_OUT

    def test_bit_depth(self, tmp_path):
        folder = make_category(tmp_path / "deep", "widget")
        for path in folder.rglob("[0-9][0-9][0-9].png"):  # images, not masks
            image = cv2.imread(str(path)).astype(np.uint16)
            cv2.imwrite(str(path), image * 16)
        base = f"--path_data {tmp_path / 'deep'}"
        ordinary = self.run().bank
        for flags, is_same in (("", True), ("--bit_depth 12", True), ("--bit_depth 16", False)):
            assert torch.equal(ordinary, self.run(f"{base} {flags}").bank) == is_same

    def test_dataset(self, tmp_path):
        folder = make_category(tmp_path, "widget")
        shutil.copytree(folder / "train/good", folder / "ok")
        both = f"--path_data {tmp_path} --percentage_coreset 0.1"
        assert self.run(both).result.category.train[0].path.parent.name == "good"
        found = self.run(f"{both} --dataset folder").result.category
        assert found.train[0].path.parent == folder / "ok"

    def test_holdout(self):
        flags = "--normal_dir train/good --abnormal_dir test/hole"
        categories = [
            self.run(f"{flags} --holdout {share} --seed {seed}").result.category
            for share, seed in ((0.5, 0), (0.5, 2), (0.2, 0))
        ]
        counts = [(len(c.train), sum(not s.is_defective for s in c.test)) for c in categories]
        assert counts == [(3, 3), (3, 3), (5, 1)]
        assert categories[0].train != categories[1].train

    def test_spro_limit(self, tmp_path):
        path = MINIATURES["mvtec_loco"].write(tmp_path / "loco")
        for limit in (0.05, 0.5):
            flags = f"--path_data {path} --categories pushpins --spro_limit {limit}"
            (measurement,) = self.run(flags).result.measurements
            metrics = measurement.row.metrics
            assert metrics["spro_limit"] == limit
            prediction, truth = self.seen[-1].prediction, self.seen[-1].result.truth
            expected = au_spro(prediction.anomaly_map, truth.masks, truth.regions, limit)
            assert metrics["au_spro"] == expected
            assert [region.image for region in truth.regions] == [2, 2, 3]
        assert "au_spro" not in self.run().result.measurements[0].row.metrics

    def test_normal_dir(self):
        category = self.run("--normal_dir test/good --holdout 0.5").result.category
        assert {s.path.parent for s in category.train} == {self.data / "widget/test/good"}

    def test_abnormal_dir(self):
        flags = "--normal_dir train/good --abnormal_dir test/stain test/hole"
        category = self.run(flags).result.category
        assert {s.defect_type for s in category.test} == {"good", "test_hole", "test_stain"}

    def test_mask_dir(self, tmp_path):
        folder = make_category(tmp_path, "widget")
        (folder / "ground_truth").rename(folder / "drawn")
        flags = f"--path_data {tmp_path} --normal_dir train/good --abnormal_dir test/hole"
        assert self.run(flags).result.masks is None
        category = self.run(f"{flags} --mask_dir drawn").result.category
        masks = {s.mask.paths[0].parent for s in category.test if s.is_defective}
        assert masks == {folder / "drawn/hole"}

    def test_path_result(self, tmp_path):
        self.run(f"--path_result {tmp_path / 'elsewhere'}")
        assert (tmp_path / "elsewhere/results.csv").is_file()
        assert not self.folder.exists()

    @pytest.mark.parametrize(
        ("choice", "types"),
        [("none", ()), ("defective", DEFECT_TYPES), ("all", ("good", *DEFECT_TYPES))],
    )
    def test_pictures(self, choice, types):
        self.run(f"--pictures {choice}")
        drawn = {name.rsplit("_p0100", 1)[0] for name in self.names_like("localization_*.png")}
        assert drawn == {
            f"localization_widget_{kind}_{index:03d}"
            for kind in types
            for index in range(NUM_TEST_PER_TYPE)
        }

    def test_pictures_of_the_worst(self):
        seen = self.run("--pictures worst --pictures_limit 1")
        row = seen.result.measurements[0].row
        samples = seen.result.category.test
        threshold = row.metrics["image_threshold"]
        wrongness = [
            (threshold - score if sample.is_defective else score - threshold)
            for sample, score in zip(samples, seen.prediction.score, strict=True)
        ]
        hardest = samples[int(np.argmax(wrongness))]
        (name,) = self.names_like("localization_*.png")
        assert f"_{hardest.defect_type}_{hardest.path.stem}_" in name

    def test_pictures_limit(self):
        self.run("--pictures all --pictures_limit 3")
        kinds = [name.split("_")[2] for name in self.names_like("localization_*.png")]
        assert sorted(kinds) == ["good", "hole", "stain"]  # one of each before a second
        assert len(self.names_like("thumbnails/*.jpg")) == 3 * NUM_TEST_PER_TYPE

    def test_explain_top(self):
        self.run("--pictures all --explain_top 0")
        assert not self.names_like("explanation_*")
        self.run("--pictures all --explain_top 2")
        assert len(self.names_like("explanation_*.png")) == 3 * NUM_TEST_PER_TYPE
        for name in self.names_like("explanation_*.json"):
            record = json.loads((self.folder / name).read_text())
            assert [patch["rank"] for patch in record["patches"]] == [1, 2]

    def test_score_max(self):
        ranges = []

        def spy(*arguments, score_range, **options):
            ranges.append(score_range)
            return draw_localization(*arguments, score_range=score_range, **options)

        self.patch.setattr(figures_module, "draw_localization", spy)
        maps = self.run("--pictures all").prediction.anomaly_map
        assert set(ranges) == {(float(maps.min()), float(maps.max()))}
        ranges.clear()
        self.run("--pictures all --score_max 12.5")
        assert set(ranges) == {(0.0, 12.5)}

    def test_quiet(self, capsys):
        """And ``verbose``: how much is on the terminal; ``run.log`` has everything."""
        shown = {}
        for flag in ("", "--quiet", "--verbose"):
            self.patch.setattr(logging.root, "handlers", [])  # those of pytest
            self.run(flag)
            shown[flag] = capsys.readouterr()
        for text in shown.values():
            assert "RANDOM WEIGHTS" in text.err
            assert "| widget |" in text.out
        assert "widget: 6 training" in shown[""].err
        assert shown["--quiet"].err.count("\n") == 1
        timed = "seed 0: embed 0."
        assert [timed in text.err for text in shown.values()] == [False, False, True]
        assert timed in (self.folder / "run.log").read_text()

    test_verbose = test_quiet

    def test_summary_in_another_precision(self, capsys):
        self.run("--summary --precision bfloat16")
        assert "Total params" in capsys.readouterr().out

    def test_summary(self, capsys):
        self.run()
        assert "Total params" not in capsys.readouterr().out
        self.run("--summary")
        shown = capsys.readouterr().out
        assert "Total params" in shown
        assert "Fire" in shown
        assert "Linear" not in shown

    def test_save_maps(self):
        self.run()
        assert not self.names_like("*.npz")
        seen = self.run("--save_maps")
        (row,) = read_table(self.folder)
        saved = read_maps(self.folder, row)
        np.testing.assert_array_equal(saved["anomaly_maps"], seen.prediction.anomaly_map)
        np.testing.assert_array_equal(saved["masks"], seen.result.masks)

    def test_map_size(self, tmp_path):
        assert not self.run().result.truth.originals
        mask = np.zeros((64, 64), np.uint8)
        mask[:, 36:] = 255
        path = write_image(tmp_path / "mask.png", mask)
        result = self.run(f"--map_size original --save_maps --ignore_mask {path}").result
        assert len(result.truth.originals) == len(result.category.test)
        (row,) = read_table(self.folder)
        saved = read_maps(self.folder, row)
        assert saved["ignored"].shape == saved["anomaly_maps"].shape != result.masks.shape
        assert saved["ignored"].any()
        check_against_saved_maps(self.folder, row)

    def keep(self, flags: str = "") -> tuple[Path, dict]:
        """Evaluate and keep the model; return its folder and its record."""
        self.run(f"--path_trained {self.folder / 'kept'} {flags}")
        folder = self.folder / "kept/widget/squeezenet1_1_p0100_k01"
        return folder, read_record(folder)

    def test_path_trained(self):
        self.run()
        assert not (self.folder / "kept").exists()
        assert not Path("none").exists()
        folder, _ = self.keep()
        assert (folder / "model.safetensors").is_file()

    def test_trained_dtype(self):
        for kind in ("float32", "float16"):
            folder, record = self.keep(f"--trained_dtype {kind}")
            assert record["dtype"] == kind
            tensors = load_file(folder / "model.safetensors")
            assert tensors["embeddings"].dtype == getattr(torch, kind)

    def test_save_index(self):
        assert not (self.keep()[0] / "index.faiss").exists()
        assert (self.keep("--save_index")[0] / "index.faiss").is_file()

    def test_threshold(self):
        _, record = self.keep("--threshold f1_max")
        assert record["thresholds"]["image"] == self.f1_max("image_threshold")
        assert record["thresholds"]["pixel"]["method"] == "train_quantile"

    def test_threshold_pixel(self):
        _, record = self.keep("--threshold_pixel 1.25")
        assert record["thresholds"]["pixel"] == {"value": 1.25, "method": "given", "rate": None}
        assert record["thresholds"]["image"]["method"] == "train_quantile"
        _, record = self.keep("--threshold_pixel f1_max")
        assert record["thresholds"]["pixel"] == self.f1_max("pixel_threshold")
        assert record["thresholds"]["image"]["method"] == "train_quantile"

    def f1_max(self, column: str) -> dict:
        """Return the record of the threshold that the last run measured on its test images."""
        (row,) = read_table(self.folder)
        value = pytest.approx(float(row[column]), rel=1e-6)
        return {"value": value, "method": "f1_max", "rate": None}

    def test_nominal_fpr(self):
        strict, loose = (self.keep(f"--nominal_fpr {r}")[1]["thresholds"] for r in (0.01, 0.6))
        assert loose["image"]["rate"] == pytest.approx(4 / 7)  # six images have no finer steps
        assert loose["image"]["value"] < strict["image"]["value"]
        assert loose["pixel"] == strict["pixel"]

    def test_nominal_fpr_pixel(self):
        strict, loose = (
            self.keep(f"--nominal_fpr_pixel {r}")[1]["thresholds"] for r in (0.001, 0.5)
        )
        assert loose["pixel"]["rate"] == 0.5
        assert loose["pixel"]["value"] < strict["pixel"]["value"]
        assert loose["image"] == strict["image"]

    def test_profile(self, capsys):
        self.run()
        assert "Seconds by stage" not in capsys.readouterr().out
        self.run("--profile")
        shown = capsys.readouterr().out.partition("### Seconds by stage")[2]
        assert "| embed | read | select | search | score | metrics | total |" in shown
        assert "| widget, squeezenet1_1, 10 %, seed 0 |" in shown

    def test_protocol(self):
        seen = self.run("--protocol patchcore_ex --interpolation bilinear")
        assert seen.prediction.distance.shape[3] == 5
        assert (seen.model.scorer.k, seen.model.scorer.image_score) == (5, "max_map")
        assert seen.model.preprocess.interpolation == "bilinear"

    def test_percentage_coreset(self):
        patches = NUM_TRAIN * NUM_PATCHES
        seen = self.run("--percentage_coreset 0.2 0.02")
        assert [m.row.percentage_coreset for m in seen.result.measurements] == [0.02, 0.2]
        small, large = (p.nearest.max() for p in seen.result.predictions)
        assert small < patches * 2 // 100 <= large  # patches of the coreset that were found
        assert len(seen.coreset) == patches * 20 // 100

    def test_k(self):
        one, three = self.run("--k 1"), self.run("--k 3")
        assert one.prediction.distance.shape[3] == 1
        assert three.prediction.distance.shape[3] == 3
        assert three.result.measurements[0].row.to_record()["k"] == "3"
        assert (three.prediction.score > one.prediction.score).all()
        assert all("_k03_" in name for name in self.names_like("*_p0100_*"))
        assert self.names_like("pred-dist_*_k03_*")

    def test_fresh(self):
        self.run()
        arguments = quick("--path_data", str(self.data), "--path_result", str(self.folder))
        assert call(*arguments, "--categories", "widget") == 0
        assert len(self.seen) == 1  # the second run computed nothing
        self.run("--fresh")
        assert len(self.seen) == 2

    def test_seed(self, weights_file):
        # Weights from a file: only the selection is left to chance.
        zero, one, both = (
            self.run(f"--weights {weights_file} --seed {seed}") for seed in ("0", "1", "0 1")
        )
        assert zero.coreset != one.coreset == both.coreset  # the last that was selected
        assert one.result.measurements[0].row.to_record()["seed"] == "1"
        assert [m.row.seed for m in both.result.measurements] == [0, 1]
        for alone, among_others in zip((zero, one), both.result.predictions, strict=True):
            np.testing.assert_array_equal(alone.prediction.anomaly_map, among_others.anomaly_map)

    def test_seed_draws_random_weights(self):
        first, again, other = (self.run(f"--seed {seed}").model.backbone for seed in (0, 0, 1))
        weights = [next(b.network.parameters()).detach() for b in (first, again, other)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    def test_top_share(self):
        flags = "--image_score top_share --top_share"
        few, many = (self.run(f"{flags} {share}").prediction for share in (0.01, 0.5))
        assert (few.score > many.score).all()
        np.testing.assert_allclose(
            many.score, np.sort(many.distance.reshape(6, -1))[:, -112:].mean(1), rtol=1e-5
        )

    @pytest.mark.parametrize("choice", ["max_patch", "max_map", "reweighted"])
    def test_image_score(self, choice):
        prediction = self.run(f"--image_score {choice}").prediction
        largest_patch = prediction.distance.mean(3).max((1, 2))
        largest_pixel = prediction.anomaly_map.max((1, 2))
        if choice == "reweighted":  # the paper's weight is below 1
            assert (prediction.score < largest_patch).all()
            assert not np.allclose(prediction.score, largest_pixel)
        else:
            expected = largest_patch if choice == "max_patch" else largest_pixel
            np.testing.assert_allclose(prediction.score, expected, rtol=1e-6)

    def test_distance(self):
        euclidean, cosine = self.run(), self.run("--distance cosine")
        lengths = [seen.bank.norm(dim=1) for seen in (euclidean, cosine)]
        assert lengths[0].std() > 0.01
        np.testing.assert_allclose(lengths[1], 1, rtol=1e-5)
        assert cosine.prediction.score.max() < 2

    def test_num_reweight(self):
        few, many = (
            self.run(f"--image_score reweighted --num_reweight {b}").prediction for b in (2, 9)
        )
        # More neighbours make the weight's quotient smaller.
        assert (few.score < many.score).all()
        np.testing.assert_array_equal(few.anomaly_map, many.anomaly_map)

    def test_layer_weights(self):
        # The first layer's part of an embedding is its first half.
        plain, weighted = self.run().bank, self.run("--layer_weights 2 0").bank
        assert (plain[:, 32:] != 0).any()
        assert (weighted[:, 32:] == 0).all()
        assert weighted[:, :32].mean() > 1.5 * plain[:, :32].mean() > 0

    def test_aupro_limit(self):
        usual, small = (
            self.run(f"--aupro_limit {limit}").result.measurements[0].row.metrics
            for limit in (0.3, 0.01)
        )
        assert (usual["aupro_limit"], small["aupro_limit"]) == (0.3, 0.01)
        assert usual["pixel_aupro"] > small["pixel_aupro"]

    def test_backbone(self):
        seen = self.run("--backbone resnet18 --layers layer1 layer2")
        assert isinstance(seen.model.backbone.network, torchvision.models.ResNet)
        assert seen.model.backbone.channels == (64, 128)

    def test_weights(self, weights_file):
        network = self.run(f"--weights {weights_file}").model.backbone.network
        expected = torch.load(weights_file)
        assert network.state_dict()
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, expected[name])

    def test_layers(self):
        seen = self.run("--layers features.4 features.7")
        assert seen.model.backbone.layers == ("features.4", "features.7")
        assert seen.model.backbone.channels == (128, 256)

    def test_norm_tokens(self):
        flags = (
            "--backbone tests.patchcore.test_contract:tiny_vit --size_resize 36 --size_crop 32 "
            "--layers encoder.layers.encoder_layer_1"
        )
        plain, normed = self.run(flags), self.run(f"{flags} --norm_tokens")
        assert (plain.model.backbone.norm_tokens, normed.model.backbone.norm_tokens) == (0, 1)
        assert not np.array_equal(plain.prediction.score, normed.prediction.score)

    def test_size_resize(self):
        # The crop of a larger image shows less of it.
        seen, larger = self.run("--pictures all"), self.run("--pictures all --size_resize 128 96")
        assert larger.model.preprocess.size_resize == (128, 96)
        assert larger.result.masks.shape == seen.result.masks.shape
        assert larger.result.masks.sum() != seen.result.masks.sum()

    def test_resize(self):
        flags = "--resize shorter_edge --size_resize 64 --size_crop 64 96"
        seen = self.run(f"{flags} --pictures all")
        assert seen.prediction.anomaly_map.shape[1:] == (64, 96)
        crop = seen.result.images[0]
        np.testing.assert_array_equal(crop[:, :16], np.repeat(crop[:, 16:17], 16, axis=1))

    def test_scales(self):
        plain, scaled = self.run(), self.run("--scales 1 0.5")
        assert scaled.model.embedder.scales.sizes == ((64, 64), (32, 32))
        assert not np.array_equal(plain.prediction.score, scaled.prediction.score)

    def test_context(self):
        plain, both = self.run(), self.run("--context 0.5")
        assert both.model.context.embedder.preprocess.size_crop == (32, 32)
        np.testing.assert_array_equal(plain.prediction.anomaly_map, both.prediction.anomaly_map)
        assert not np.array_equal(plain.prediction.score, both.prediction.score)

    TILES = "--backbone formulanet --layers layer1 layer2 --weights default --tile 32 --overlap"

    def test_tile(self):
        seen = self.run(f"{self.TILES} 16")
        assert seen.model.backbone.size == (32, 32)
        assert seen.prediction.anomaly_map.shape[1:] == (64, 64)

    def test_overlap(self):
        few, many = (self.run(f"{self.TILES} {overlap}") for overlap in (0, 16))
        assert not np.array_equal(few.prediction.score, many.prediction.score)

    def test_size_crop(self):
        seen = self.run("--size_crop 48 56")
        assert seen.prediction.anomaly_map.shape[1:] == (48, 56)
        assert seen.result.masks.shape[1:] == (48, 56)

    def test_interpolation(self):
        bilinear, area = self.run(), self.run("--interpolation area")
        assert bilinear.model.preprocess.interpolation == "bilinear"  # the backbone's
        assert area.model.preprocess.interpolation == "area"
        assert not np.array_equal(bilinear.prediction.score, area.prediction.score)

    def test_augment(self):
        plain, flipped, more = (
            self.run(flags) for flags in ("", "--augment vertical", "--augment vertical brightness")
        )
        for seen, versions in ((plain, 1), (flipped, 2), (more, 4)):
            assert len(seen.coreset) == versions * NUM_TRAIN * NUM_PATCHES // 10
        assert max(more.coreset) >= 3 * NUM_TRAIN * NUM_PATCHES

    @pytest.mark.parametrize("choice", ["bfloat16", "float16"])
    def test_precision(self, choice):
        exact, rounded = self.run(), self.run(f"--precision {choice}")
        weights = next(rounded.model.backbone.network.parameters())
        assert weights.dtype == getattr(torch, choice)
        assert not np.array_equal(exact.prediction.score, rounded.prediction.score)
        assert rounded.prediction.score.mean() == pytest.approx(
            exact.prediction.score.mean(), rel=0.05
        )

    def test_tensor_float_is_float32_on_a_cpu(self):
        exact, rounded = self.run(), self.run("--precision tf32")
        weights = next(rounded.model.backbone.network.parameters())
        assert weights.dtype == torch.float32
        assert np.array_equal(exact.prediction.score, rounded.prediction.score)

    def test_memory_budget(self):
        # Less than all embeddings and their selection take, more than the latter alone.
        plain, short = self.run(), self.run("--memory_budget 0.0009")
        assert (plain.result.learned.plan.passes, short.result.learned.plan.passes) == (1, 2)
        np.testing.assert_array_equal(plain.prediction.score, short.prediction.score)

    def test_neighbourhood(self):
        seen = self.run("--neighbourhood plain --embed_dim 1024")
        assert seen.bank.shape[1] == sum(seen.model.backbone.channels)

    def test_banks(self):
        joined, per_layer = self.run(), self.run("--banks per_layer --pictures defective")
        assert len(per_layer.coreset) == 2 * len(joined.coreset)
        assert per_layer.prediction.distance.shape[3] == 2

    def test_search_radius(self):
        far, near = self.run(), self.run("--search_radius 1")
        assert (near.prediction.score > far.prediction.score).all()

    def test_retrieve_images(self):
        far, near = self.run(), self.run("--retrieve_images 1")
        assert (near.prediction.distance >= far.prediction.distance).all()
        assert (near.prediction.distance > far.prediction.distance).any()

    def test_foreground(self):
        whole = self.run().prediction
        masked = self.run("--foreground pca --foreground_threshold 1").prediction
        zero = masked.distance == 0
        assert zero.any()
        np.testing.assert_array_equal(masked.distance[~zero], whole.distance[~zero])

    def test_foreground_threshold(self):
        flags = "--foreground pca --foreground_threshold"
        low, high = (self.run(f"{flags} {t}").prediction.distance for t in (0.1, 1))
        assert (low == 0).sum() != (high == 0).sum()

    def test_patch_size(self):
        usual, wide, even = (self.run(f"--patch_size {size}") for size in (3, 5, 2))
        assert usual.prediction.distance.shape == wide.prediction.distance.shape
        assert not np.allclose(usual.prediction.distance, wide.prediction.distance, rtol=0.01)
        assert even.prediction.distance.shape[1:3] == (14, 14)

    def test_embed_dim(self):
        assert self.run("--embed_dim 48").bank.shape[1] == 48

    def test_sigma(self):
        sharp, smooth = (self.run(f"--sigma {sigma}").prediction for sigma in (0, 8))
        np.testing.assert_array_equal(sharp.score, smooth.score)
        assert sharp.anomaly_map.max() > 1.1 * smooth.anomaly_map.max()
        assert sharp.anomaly_map.std() > smooth.anomaly_map.std()

    def test_batch_size(self):
        sizes, embed = [], Embedder.embed

        def spy(embedder, batch):
            sizes.append(len(batch))
            return embed(embedder, batch)

        self.patch.setattr(Embedder, "embed", spy)
        self.run("--batch_size 4")
        assert sizes == [4, 2, 4, 2]  # 6 training and 6 test images

    @pytest.mark.parametrize("workers", [0, 3])
    def test_num_workers(self, workers):
        """Processes draw instead where there are more images: see test_drawing.py."""
        given = []

        def spy(*arguments, num_workers, **options):
            given.append(num_workers)
            return map_ahead(*arguments, num_workers=num_workers, **options)

        for module in (reading_ahead, drawing_module):
            self.patch.setattr(module, "map_ahead", spy)
        self.run(f"--num_workers {workers} --pictures defective")
        assert given == [workers] * 3  # training images, test images, pictures

    @pytest.mark.parametrize(
        ("choice", "gpu", "expected"),
        [
            ("auto", False, "cpu"),
            ("auto", True, "cuda"),
            ("cpu", True, "cpu"),
            ("cuda", True, "cuda"),
        ],
    )
    def test_device(self, choice, gpu, expected):
        given = []

        class Stopped(PatchCore):
            def __init__(self, *arguments, device, **options):
                given.append(torch.device(device).type)
                raise PatchCoreError("far enough")

        self.patch.setattr(torch.cuda, "is_available", lambda: gpu)
        self.patch.setattr(torch.cuda, "device_count", lambda: int(gpu))
        self.patch.setattr(torch.backends.cudnn, "allow_tf32", True)  # put back at the end
        self.patch.setattr(models_module, "PatchCore", Stopped)
        arguments = f"--path_data {self.data} --device {choice}".split()
        assert call(*quick(*arguments)) == main.WRONG_USAGE
        assert given == [expected]

    @pytest.mark.parametrize(("engine", "expected"), [("local", []), ("ray", ["widget"])])
    def test_engine(self, engine, expected):
        given = []

        def sweep(run, models, tasks):
            given.extend(category.name for category, _ in tasks)
            return (evaluate_one.evaluate_one(models, *task) for task in tasks)

        self.patch.setattr(engine_module.importlib.util, "find_spec", lambda name: name)
        self.patch.setattr(evaluation, "sweep", sweep)
        self.run(f"--engine {engine}")
        assert given == expected

    def test_address(self):
        given = []

        def connected(address, packages):
            given.append(address)
            raise UsageError("far enough")

        self.patch.setattr(engine_module.importlib.util, "find_spec", lambda name: name)
        self.patch.setattr(cluster_module, "connected", connected)
        base = f"--path_data {self.data} --path_result {self.folder} --engine ray"
        for flags in ("", "--address auto", "--address 10.0.0.1:6379"):
            assert call(*quick(*base.split(), *flags.split())) == main.WRONG_USAGE
        assert given == ["", "auto", "10.0.0.1:6379"]

    def test_shards(self):
        given = []

        @contextmanager
        def checked_cluster(options, categories, device):
            yield Cluster([], [Report("host", {}, "", "a CPU")], None)

        class Engine(LocalEngine):
            def __init__(self, shards, cpus):
                given.append((shards, cpus))

            def check(self, device):
                given.append(device.type)

        self.patch.setattr(engine_module.importlib.util, "find_spec", lambda name: name)
        self.patch.setattr(cluster_module, "checked_cluster", checked_cluster)
        self.patch.setattr("patchcore.distributed.RayEngine", Engine)
        self.run("--engine ray --shards 5 --task_cpus 2")
        assert given == [(5, 2), "cpu"]
        assert read_run(self.folder)["nodes"] == [{"host": "host", "cpu": "a CPU", "gpu": None}]

    @pytest.mark.parametrize(("task_cpus", "expected"), [(0, 8), (3, 3)])
    def test_task_cpus(self, task_cpus, expected):
        given = []

        def sweep(run, models, tasks):
            node = Node("a", "127.0.0.1", 8.0, 0.0, 100.0)
            given.extend(demand.cpus for demand in demands_of(models, tasks, [node], 0.0))
            return (evaluate_one.evaluate_one(models, *task) for task in tasks)

        self.patch.setattr(engine_module.importlib.util, "find_spec", lambda name: name)
        self.patch.setattr(evaluation, "sweep", sweep)
        self.run(f"--engine ray --task_cpus {task_cpus}")
        assert given == [expected]


def test_every_flag_has_a_test_of_its_destination():
    tests = {name.removeprefix("test_") for name in vars(TestDestinations) if "test_" in name}
    assert {field.name for field in fields(EvaluateOptions)} - tests == set()
