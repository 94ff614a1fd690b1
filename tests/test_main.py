"""The whole program, on small categories that these tests make: what it leaves behind, and what it
says of input that it cannot use.
"""

import csv
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from contextlib import nullcontext
from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import main
from patchcore import PatchCore
from tests.support import (
    NUM_TEST_PER_TYPE,
    NUM_TRAIN,
    QUICK_NETWORK,
    SIDE,
    TEST_TYPES,
    make_category,
    one_thread,
    quick,
    truncate,
    write_image,
)
from utils.commands import category as category_module
from utils.commands import demo as demo_module
from utils.commands import evaluate as evaluate_module
from utils.options import Options

ROOT = Path(main.__file__).parent
STAGES = ("embed", "read", "select", "search", "score", "metrics")
RANDOM_NOTE = "RANDOM WEIGHTS: these results show that the program runs, and mean nothing else."


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_run(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def names(folder: Path, pattern: str = "*.*") -> set[str]:
    return {file.name for file in folder.glob(pattern)}


def start(*arguments: str) -> subprocess.CompletedProcess:
    """Run the program as users do."""
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(autouse=True)
def in_one_thread(request):
    with nullcontext() if request.node.get_closest_marker("real_data") else one_thread():
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Return a folder with two categories."""
    folder = tmp_path_factory.mktemp("data")
    make_category(folder, "gadget", seed=1)
    make_category(folder, "widget")
    return folder


@pytest.fixture
def own_data(tmp_path) -> Path:
    """Return a folder with the category `widget`, for a test to change."""
    make_category(tmp_path / "data", "widget")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> tuple[Path, str, str]:
    """Return the results, standard output and standard error of a full run as users start it."""
    folder = tmp_path_factory.mktemp("full") / "result"
    paths = ["--path_data", str(data), "--path_result", str(folder)]
    process = start(*quick(*paths, "--pictures", "all", "--percentage_coreset", "0.1", "0.02"))
    assert process.returncode == 0, process.stderr
    return folder, process.stdout, process.stderr


class TestResults:
    """Of one run with two categories and two percentages."""

    def test_every_file_is_there_under_its_name(self, finished):
        folder, *_ = finished
        tags = ("p0020_k01", "p0100_k01")
        for tag in tags:
            for category in ("gadget", "widget"):
                assert len(names(folder, f"pred-dist_{category}_{tag}_r????.png")) == 1
                for kind in TEST_TYPES:
                    for index in range(NUM_TEST_PER_TYPE):
                        stem = f"localization_{category}_{kind}_{index:03d}_{tag}_s"
                        assert len(names(folder, f"{stem}[01]??.png")) == 1
            assert len(names(folder, f"roc-curve_{tag}_rim????_rpm????.png")) == 1
        localizations = 2 * 2 * len(TEST_TYPES) * NUM_TEST_PER_TYPE
        others = {"results.csv", "tables.md", "run.json", "roc_curve.png"}
        assert others < names(folder)
        assert len(list(folder.iterdir())) == len(others) + 2 * (2 + 1) + localizations

    def test_pictures_can_be_opened(self, finished):
        for path in finished[0].glob("*.png"):
            picture = cv2.imread(str(path))
            assert picture.std() > 1, path.name
            assert min(picture.shape[:2]) > 100, path.name

    def test_the_curves_have_a_copy_under_a_name_that_stays(self, finished):
        folder, *_ = finished
        (largest,) = folder.glob("roc-curve_p0100_*.png")
        assert (folder / "roc_curve.png").read_bytes() == largest.read_bytes()

    def test_picture_names_bear_the_measured_scores(self, finished):
        folder, *_ = finished
        rows = [row for row in read_rows(folder) if row["percentage_coreset"] == "0.1"]
        means = (
            round(1000 * np.mean([float(row[metric]) for row in rows]))
            for metric in ("image_auroc", "pixel_auroc")
        )
        assert (folder / "roc-curve_p0100_k01_rim{:04d}_rpm{:04d}.png".format(*means)).is_file()
        for row in rows:
            share = round(1000 * float(row["image_auroc"]))
            assert (folder / f"pred-dist_{row['category']}_p0100_k01_r{share:04d}.png").is_file()
            # the highest score of a category is 100 % of itself
            assert names(folder, f"localization_{row['category']}_*_p0100_k01_s100.png")

    def test_there_is_a_row_for_each_category_and_percentage(self, finished):
        rows = read_rows(finished[0])
        assert list(rows[0]) == [
            *("category", "percentage_coreset", "k", "seed", "num_train", "num_test"),
            *("image_auroc", "pixel_auroc", "seconds_total"),
            *(f"seconds_{stage}" for stage in STAGES),
        ]
        assert [(row["category"], row["percentage_coreset"]) for row in rows] == [
            ("gadget", "0.02"),
            ("gadget", "0.1"),
            ("widget", "0.02"),
            ("widget", "0.1"),
        ]

    def test_the_rows_values_are_sane(self, finished):
        for row in read_rows(finished[0]):
            assert (row["k"], row["seed"]) == ("1", "0")
            assert int(row["num_train"]) == NUM_TRAIN
            assert int(row["num_test"]) == len(TEST_TYPES) * NUM_TEST_PER_TYPE
            assert 0.9 < float(row["image_auroc"]) <= 1  # the defects are blatant
            assert 0.9 < float(row["pixel_auroc"]) <= 1
            stages = [float(row[f"seconds_{stage}"]) for stage in STAGES]
            assert min(stages) >= 0
            assert sum(stages) == pytest.approx(float(row["seconds_total"]), abs=0.004)
            assert 0 < float(row["seconds_total"]) < 60

    def test_a_larger_coreset_takes_no_less_of_the_stages_that_it_includes(self, finished):
        rows = read_rows(finished[0])
        for small, large in zip(rows[::2], rows[1::2], strict=True):
            for stage in ("select", "search"):
                assert float(small[f"seconds_{stage}"]) <= float(large[f"seconds_{stage}"])
            for stage in ("read", "embed"):  # shared: counted in full for each
                assert small[f"seconds_{stage}"] == large[f"seconds_{stage}"]

    def test_the_tables_are_printed_and_kept(self, finished):
        folder, output, _ = finished
        text = (folder / "tables.md").read_text()
        assert output.strip() == text.strip()
        rows = {(r["category"], r["percentage_coreset"]): r for r in read_rows(folder)}
        for title, metric in [("Image", "image_auroc"), ("Pixel", "pixel_auroc")]:
            table = text.partition(f"### {title} AUROC (%)")[2].partition("###")[0]
            assert "| category | *Paper* 2 % | 2 % | *Paper* 10 % | 10 % |" in table
            for category in ("gadget", "widget"):
                values = [f"{100 * float(rows[category, p][metric]):.2f}" for p in ("0.02", "0.1")]
                assert f"| {category} | - | {values[0]} | - | {values[1]} |" in table
        assert "### Processing time (s)" in text
        assert text.count("**Average**") == 3

    def test_random_weights_are_said_to_mean_nothing(self, finished):
        folder, output, errors = finished
        assert f"> {RANDOM_NOTE}" in (folder / "tables.md").read_text()
        assert RANDOM_NOTE in output
        assert "RANDOM WEIGHTS" in errors
        assert read_run(folder)["notes"] == [RANDOM_NOTE]

    def test_the_run_is_recorded(self, finished, data):
        folder, *_ = finished
        run = read_run(folder)
        assert run["state"] == "complete"
        assert run["start"] <= run["end"]
        assert set(run["options"]) == set(vars(Options()))
        assert (
            run["options"]
            | {
                "path_data": str(data),
                "path_result": str(folder),
                "percentage_coreset": [0.1, 0.02],
                "backbone": QUICK_NETWORK,
                "weights": "random",
                "layers": ["features.3", "features.6"],
                "size_crop": [64],
            }
            == run["options"]
        )
        assert run["seed"] == 0
        assert run["versions"]["torch"] == torch.__version__.partition("+")[0]
        assert {"python", "torchvision", "numpy"} < set(run["versions"])
        assert re.fullmatch("[0-9a-f]{64}", run["weights_digest"])
        assert run["device"]
        assert "cores" in run["cpu"]
        assert run["command"].startswith("python ")
        assert "--percentage_coreset 0.1 0.02" in run["command"]
        assert "commit" in run

    def test_without_a_terminal_only_whole_lines_are_written(self, finished):
        *_, errors = finished
        lines = errors.splitlines()
        assert not re.search(r"\r|\x1b|%\||it/s|image/s|patch/s", errors)
        assert (
            sum(re.fullmatch(r"widget, coreset (2|10) %: image.*", ln) is not None for ln in lines)
            == 2
        )
        assert (
            sum(re.fullmatch(r"gadget, coreset (2|10) %: image.*", ln) is not None for ln in lines)
            == 2
        )
        assert len(lines) <= 10


@pytest.fixture
def run(tmp_path) -> Callable[..., Path]:
    """Run the program with a small network; return the result folder."""

    def run(path_data: Path, text: str = "", *, command: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / "result"
        paths = ["--path_data", str(path_data), "--path_result", str(folder)]
        assert main.main([*command, *quick(*paths, *text.split())]) == 0
        return folder

    return run


def test_percentages_of_one_run_are_those_of_separate_runs(finished, data, run, tmp_path):
    def metrics(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
        return {
            (row["category"], row["percentage_coreset"]): {
                name: value for name, value in row.items() if not name.startswith("seconds")
            }
            for row in read_rows(folder)
        }

    together = metrics(finished[0])
    assert len(together) == 4
    for percentage in ("0.02", "0.1"):
        alone = metrics(run(data, f"--percentage_coreset {percentage}"))
        assert alone == {key: row for key, row in together.items() if key[1] == percentage}


def test_percentages_of_one_run_share_the_reading(data, run, monkeypatch):
    read, read_image = [], category_module.read_image
    monkeypatch.setattr(
        category_module, "read_image", lambda path: read.append(path) or read_image(path)
    )
    run(data, "--categories widget --percentage_coreset 0.01 0.02 0.1")
    assert len(read) == len(set(read)) == NUM_TRAIN


def test_the_search_of_a_larger_coreset_includes_that_of_a_smaller_one(data, run, monkeypatch):
    nearest = PatchCore.nearest

    def slow(*arguments):
        for found in nearest(*arguments):
            time.sleep(0.1)
            yield found

    monkeypatch.setattr(PatchCore, "nearest", slow)
    rows = read_rows(run(data, "--categories widget --percentage_coreset 0.02 0.1"))
    small, large = (float(row["seconds_search"]) for row in rows)
    assert small >= 0.1
    assert large >= small + 0.1


@pytest.mark.parametrize("command", [(), ("evaluate",)])
def test_the_word_evaluate_may_be_left_out(data, run, command):
    folder = run(data, command=command)
    assert [row["category"] for row in read_rows(folder)] == ["gadget", "widget"]


def test_the_data_is_looked_for_and_the_results_are_put_in_the_current_folder(
    tmp_path, monkeypatch
):
    make_category(tmp_path / "mvtec_anomaly_detection", "widget")
    monkeypatch.chdir(tmp_path)
    assert main.main(quick()) == 0
    assert [row["category"] for row in read_rows(tmp_path / "result")] == ["widget"]


def test_the_same_run_again_gives_the_same_numbers_and_keeps_the_earlier_ones(data, run):
    folder = run(data)
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    rows = read_rows(folder)
    run(data)
    (earlier,) = (folder / "earlier").iterdir()
    assert {file.name: file.read_bytes() for file in earlier.iterdir()} == first
    for before, after in zip(rows, read_rows(folder), strict=True):
        for name in ("category", "image_auroc", "pixel_auroc"):
            assert before[name] == after[name]


def test_a_category_named_twice_is_measured_once(data, run):
    folder = run(data, "--categories widget gadget widget")
    assert [row["category"] for row in read_rows(folder)] == ["widget", "gadget"]


def test_a_terminal_sees_a_progress_bar_for_every_long_step(data, run, monkeypatch):
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    run(data, "--categories widget --pictures all")
    for step in ("embed", "select", "score", "draw"):
        assert f"widget: {step}" in sys.stderr.getvalue()


def test_a_network_of_ones_own_keeps_its_own_weights(data, run, tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(
        "import torch\n"
        "def constant():\n"
        "    layer = torch.nn.Conv2d(3, 4, 3, stride=4)\n"
        "    torch.nn.init.constant_(layer.weight, 0.25)\n"
        "    return torch.nn.Sequential(layer, torch.nn.Conv2d(4, 5, 3))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    models = []
    measure = evaluate_module.measure_category

    def spy(model, *arguments):
        models.append(model)
        return measure(model, *arguments)

    monkeypatch.setattr(evaluate_module, "measure_category", spy)
    text = "--backbone my_networks:constant --layers 0 --weights default --categories widget"
    folder = run(data, text)
    assert (models[0].backbone.network[0].weight == 0.25).all()
    assert read_run(folder)["notes"] == []
    assert "RANDOM" not in (folder / "tables.md").read_text()


class TestUnusualData:
    """What can be read correctly is read."""

    def test_images_of_all_kinds_and_sizes_in_one_category(self, own_data, run):
        folder = own_data / "widget"
        rng = np.random.default_rng(0)
        noise = rng.integers(90, 160, (80, 100, 3), dtype=np.uint8)
        for name, array in {
            "grey.png": noise[:, :, 0],
            "deep.png": noise.astype(np.uint16) * 256,
            "deep_grey.png": noise[:, :, 0].astype(np.uint16) * 256,
            "rgba.png": np.concatenate([noise, noise[:, :, :1]], axis=2)[:, :, [2, 1, 0, 3]],
            "photo.jpg": noise,
            "bitmap.bmp": noise,
        }.items():
            write_image(folder / "train/good" / name, array)
        Image.fromarray(noise).quantize(32).save(folder / "test/good/palette.png")
        (row,) = read_rows(run(own_data))
        assert row["num_train"] == str(NUM_TRAIN + 6)
        assert row["num_test"] == str(len(TEST_TYPES) * NUM_TEST_PER_TYPE + 1)
        assert float(row["image_auroc"]) > 0.9

    def test_without_ground_truth_only_images_are_measured(self, own_data, run):
        shutil.rmtree(own_data / "widget/ground_truth")
        folder = run(own_data, "--pictures all")
        (row,) = read_rows(folder)
        assert float(row["image_auroc"]) > 0.9
        assert row["pixel_auroc"] == ""
        assert names(folder, "roc-curve_*_rpmnone.png")
        assert len(names(folder, "localization_*.png")) == len(TEST_TYPES) * NUM_TEST_PER_TYPE
        pixels = (folder / "tables.md").read_text().partition("### Pixel")[2]
        assert "| widget | - | - |" in pixels

    def test_without_defective_images_nothing_can_be_told_apart(self, own_data, run):
        for kind in ("hole", "stain"):
            shutil.rmtree(own_data / "widget/test" / kind)
        folder = run(own_data, "--pictures all")
        (row,) = read_rows(folder)
        assert (row["image_auroc"], row["pixel_auroc"]) == ("", "")
        assert names(folder, "pred-dist_*") == {"pred-dist_widget_p0100_k01_rnone.png"}

    def test_without_good_test_images_pixels_are_measured(self, own_data, run):
        shutil.rmtree(own_data / "widget/test/good")
        (row,) = read_rows(run(own_data))
        assert row["image_auroc"] == ""
        assert float(row["pixel_auroc"]) > 0.9


@pytest.fixture
def fail(own_data, tmp_path, capfd) -> Callable[[str], str]:
    """Run the program on what it cannot use; return its one line of error."""

    def fail(text: str = "") -> str:
        paths = f"--path_data {own_data} --path_result {tmp_path / 'result'}"
        assert main.main(quick(*paths.split(), *text.split())) == 2
        lines = capfd.readouterr().err.splitlines()  # also what libraries write past Python
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        return lines[0]

    return fail


class TestBadData:
    def test_missing_data_folder(self, fail, own_data):
        shutil.rmtree(own_data)
        assert re.search(f"found nothing at {own_data} .*--path_data", fail())

    def test_empty_data_folder(self, fail, own_data):
        shutil.rmtree(own_data / "widget")
        assert re.search(f"under {own_data}, found none .*--path_data", fail())

    @pytest.mark.parametrize("folder", ["train/good", "test"])
    def test_a_category_without_a_needed_folder(self, fail, own_data, folder):
        shutil.rmtree(own_data / "widget" / folder)
        assert str(own_data / "widget" / folder) in fail()

    @pytest.mark.parametrize("place", ["train/good/003", "test/good/001", "test/hole/000"])
    def test_a_truncated_image(self, fail, own_data, place):
        path = truncate(own_data / "widget" / f"{place}.png")
        assert re.search(f"an image, found a damaged.*{path}", fail())

    def test_a_truncated_jpeg(self, fail, own_data):
        noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        path = truncate(write_image(own_data / "widget/train/good/photo.jpg", noise))
        assert re.search(f"an image, found a damaged.*{path}", fail())

    def test_a_file_that_is_no_image(self, fail, own_data):
        path = own_data / "widget/train/good/000.png"
        path.write_text("see elsewhere")
        assert re.search(f"an image, found a damaged or unknown file: {path}", fail())

    def test_a_truncated_mask(self, fail, own_data):
        path = truncate(own_data / "widget/ground_truth/hole/000_mask.png")
        assert re.search(f"a mask, found a damaged.*{path}", fail())

    def test_a_missing_mask(self, fail, own_data):
        path = own_data / "widget/ground_truth/hole/000_mask.png"
        path.unlink()
        assert f"expected the mask {path} of the defective image" in fail()

    def test_a_mask_of_another_size(self, fail, own_data):
        path = own_data / "widget/ground_truth/hole/000_mask.png"
        write_image(path, np.zeros((SIDE, SIDE // 2), np.uint8))
        assert re.search(f"size 64x64, found 32x64: {path}", fail())

    def test_an_unknown_category(self, fail):
        assert re.search(
            "no category 'bolt'.*--categories.*there are: widget", fail("--categories bolt")
        )

    def test_a_category_given_as_a_path(self, fail):
        assert "there are: widget" in fail("--categories widget/")


class TestBadFlags:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("--percentage_coreset 0", r"--percentage_coreset in \(0, 1\].*found 0"),
            ("--percentage_coreset 1.5", r"--percentage_coreset in \(0, 1\].*found 1.5"),
            (
                "--percentage_coreset 0.0001",
                "at least k = 1 patches.*found 0: 0.0001 of 1350.*percentage_coreset",
            ),
            (
                "--percentage_coreset 0.01 --k 14",
                r"at least k = 14 patches in the coreset, found 13: 0.01 of 1350.*\bk\b",
            ),
            ("--size_crop 80", "size_crop at most size_resize, found.*80, 80.*72, 72"),
            ("--size_crop 0", "size_crop"),
            ("--size_crop 2", r"cannot take images of 2x2 pixels \(size_crop\)"),
            ("--backbone squeezenet", "no backbone 'squeezenet'.*module:factory.*squeezenet1_1"),
            ("--layers features.3 layer2", "no layer 'layer2'.*features.12"),
            ("--layers features.3 features.3", "different layers"),
            ("--backbone nowhere:network", "cannot import 'nowhere'.*PYTHONPATH"),
            ("--backbone math:pi", "module math has no callable 'pi'"),
            ("--backbone os:getcwd", "expected os:getcwd to return a torch.nn.Module, found str"),
            ("--weights nowhere.pth", "no weights file nowhere.pth.*'default'.*'random'"),
            (f"--weights {__file__}", "cannot read .*test_main.py"),
            ("--seed 4294967296", "--seed"),
            ("--unknown 1", "unrecognized arguments: --unknown 1.*--help"),
            ("evalute", "unrecognized arguments: evalute.*--help"),
        ],
    )
    def test_an_error_names_what_to_change(self, fail, text, message):
        assert re.search(message, fail(text))

    def test_weights_of_another_network(self, fail, tmp_path):
        torch.save({"layer.weight": torch.zeros(2)}, path := tmp_path / "other.pth")
        assert re.search(
            "expected weights for this network, .*layer.weight", fail(f"--weights {path}")
        )

    @pytest.mark.parametrize("place", ["file", "file/below"])
    def test_an_unwritable_result_folder(self, fail, tmp_path, place):
        (tmp_path / "file").write_text("in the way")
        error = fail(f"--path_result {tmp_path / place}")
        assert re.search(
            f"folder to write results to, found {tmp_path / place} .*--path_result", error
        )

    def test_a_device_that_is_not_there(self, fail, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert re.search("expected a CUDA device.*--device auto", fail("--device cuda"))


class TestStoppedRun:
    @pytest.fixture
    def broken(self, own_data) -> Path:
        """Return the damaged test image of the second category."""
        return truncate(make_category(own_data, "zipper") / "test/stain/001.png")

    def check_first_category_is_kept(self, folder: Path) -> None:
        assert [row["category"] for row in read_rows(folder)] == ["widget"]
        assert "| widget |" in (folder / "tables.md").read_text()
        assert len(names(folder, "pred-dist_widget_*")) == 1
        assert not names(folder, ".*")

    def test_a_broken_category_costs_none_of_those_before_it(self, broken, fail, tmp_path):
        error = fail()
        assert str(broken) in error
        folder = tmp_path / "result"
        self.check_first_category_is_kept(folder)
        run = read_run(folder)
        assert run["state"].startswith("stopped: ")
        assert str(broken) in run["state"]
        assert run["end"] is not None

    def test_as_a_script_it_ends_with_one_line_of_error_and_status_2(self, broken, tmp_path):
        paths = ["--path_data", str(broken.parents[3]), "--path_result", str(tmp_path / "result")]
        process = start(*quick(*paths, "--categories", "zipper"))
        assert process.returncode == 2
        lines = process.stderr.splitlines()
        assert lines[-1] == f"error: expected an image, found a damaged or unknown file: {broken}"
        assert [line for line in lines if "error" in line.lower()] == lines[-1:]
        assert "Traceback" not in process.stderr
        assert process.stdout == ""

    def test_nor_does_an_interruption(self, own_data, tmp_path, monkeypatch, capsys):
        make_category(own_data, "zipper")
        measure = evaluate_module.measure_category

        def interrupted(*arguments):
            if any(getattr(argument, "name", None) == "zipper" for argument in arguments):
                raise KeyboardInterrupt
            return measure(*arguments)

        monkeypatch.setattr(evaluate_module, "measure_category", interrupted)
        folder = tmp_path / "result"
        paths = f"--path_data {own_data} --path_result {folder}"
        assert main.main(quick(*paths.split())) == main.INTERRUPTED
        assert capsys.readouterr().err == "interrupted; finished categories are kept\n"
        self.check_first_category_is_kept(folder)
        assert read_run(folder)["state"] == "stopped: KeyboardInterrupt"


class TestTorchvisionWeights:
    @pytest.fixture(autouse=True)
    def cache(self, tmp_path, monkeypatch) -> Path:
        """Return where torchvision looks for its file; there is no network to get it from."""

        def refuse(*arguments, **options):
            raise urllib.error.URLError("no network in tests")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        monkeypatch.setattr(torch.hub, "urlopen", refuse)
        url = torchvision.models.get_model_weights(QUICK_NETWORK).IMAGENET1K_V1.url
        self.file = tmp_path / "torch/hub/checkpoints" / url.rpartition("/")[2]
        self.flags = quick("--weights", "default", "--path_result", str(tmp_path / "result"))
        self.folder = tmp_path / "result"

    def test_without_a_network_the_error_says_where_to_put_which_file(self, data, capsys):
        assert main.main([*self.flags, "--path_data", str(data)]) == main.USER_MISTAKE
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ")
        assert self.file.name in error
        assert f"Put the file at {self.file}" in error
        assert "--weights FILE" in error
        assert "--weights random" in error
        assert "no network in tests" in error

    def test_a_file_in_torchvisions_cache_needs_no_network(self, data):
        torch.manual_seed(1)
        state = torchvision.models.get_model(QUICK_NETWORK, weights=None).state_dict()
        self.file.parent.mkdir(parents=True)
        torch.save(state, self.file)
        assert main.main([*self.flags, "--path_data", str(data)]) == 0
        assert read_run(self.folder)["notes"] == []
        cached = read_run(self.folder)["weights_digest"]
        flags = [*self.flags, "--weights", str(self.file)]
        assert main.main([*flags, "--path_data", str(data)]) == 0
        assert read_run(self.folder)["weights_digest"] == cached

    def test_a_damaged_file_in_torchvisions_cache_is_named(self, data, capsys):
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(b"half a download")
        assert main.main([*self.flags, "--path_data", str(data)]) == main.USER_MISTAKE
        assert re.search(f"damaged file: {self.file}", capsys.readouterr().err)

    @pytest.fixture
    def small_demo(self, monkeypatch):
        """Let the demo make this module's small category in place of its own."""
        monkeypatch.setattr(
            demo_module, "make_data", lambda options: make_category(options.path_data)
        )

    @pytest.mark.usefixtures("small_demo")
    def test_the_demo_goes_on_with_random_ones_and_says_so(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        flags = ["demo", *self.flags, "--path_data", str(tmp_path / "made")]
        assert main.main(flags) == 0
        note = "ImageNet weights could not be had: the demo went on with random ones."
        assert note in caplog.text
        assert str(self.file) in caplog.text
        run = read_run(self.folder)
        assert run["notes"] == [note, RANDOM_NOTE]
        assert run["options"]["weights"] == "random"
        tables = (self.folder / "tables.md").read_text()
        assert f"> {note}" in tables
        assert f"> {RANDOM_NOTE}" in tables
        percentages = [row["percentage_coreset"] for row in read_rows(self.folder)]
        assert percentages == ["0.01", "0.1"]

    @pytest.mark.usefixtures("small_demo")
    def test_the_demo_does_not_replace_weights_that_were_asked_for(self, tmp_path, capsys):
        flags = [*self.flags, "--path_data", str(tmp_path / "made"), "--weights", "missing.pth"]
        assert main.main(["demo", *flags]) == main.USER_MISTAKE
        assert "no weights file missing.pth" in capsys.readouterr().err
        assert not self.folder.exists()


@pytest.mark.real_data
class TestRealData:
    """MVTec AD's bottle, with networks that fit into the shared folder."""

    @pytest.fixture
    def measure(self, shared, tmp_path) -> Callable[[list[str]], list[dict[str, float]]]:
        def measure(flags: list[str]) -> list[dict[str, float]]:
            paths = ["--path_data", str(shared / "mvtec_anomaly_detection"), "--path_result"]
            settings = ["--percentage_coreset", "0.01", "0.1", "--pictures", "none"]
            assert main.main([*paths, str(tmp_path), *settings, *flags]) == 0
            rows = read_rows(tmp_path)
            assert [row["percentage_coreset"] for row in rows] == ["0.01", "0.1"]
            assert {(row["num_train"], row["num_test"]) for row in rows} == {("209", "83")}
            return [{n: float(v) for n, v in row.items() if n != "category"} for row in rows]

        return measure

    def test_mobilenet_v2(self, measure, shared):
        weights = str(shared / "weights/mobilenet_v2.pth")
        flags = ["--backbone", "mobilenet_v2", "--layers", "features.6", "features.13"]
        for row in measure([*flags, "--weights", weights]):
            assert row["image_auroc"] >= 0.995
            assert row["pixel_auroc"] >= 0.970

    def test_a_network_that_torchvision_does_not_have(self, measure, shared, monkeypatch):
        monkeypatch.syspath_prepend(shared / "backbones")
        flags = ["--backbone", "resnet50_v2:resnet50_v2", "--layers", "layer2", "layer3"]
        for row in measure(flags):
            assert row["image_auroc"] == 1.0
            assert row["pixel_auroc"] >= 0.983
