"""The whole program, on small categories that these tests make: what it leaves behind, what it
says, and where it gets weights from.
"""

import importlib
import logging
import re
import runpy
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision

import main
from datasets.synthetic.categories import CATEGORIES
from patchcore import PatchCore
from patchcore.memory_bank import PrefixSearch
from tests.recomputed import check_against_saved_maps
from tests.support import (
    DEFECT_TYPES,
    NUM_PATCHES,
    NUM_TEST_PER_TYPE,
    NUM_TRAIN,
    QUICK_NETWORK,
    ROOT,
    TEST_TYPES,
    call,
    evaluate,
    make_category,
    make_data,
    names,
    quick,
    read_maps,
    read_run,
    read_table,
    start,
    truncate,
)
from utils.commands import demo as demo_module
from utils.options.evaluate import EvaluateOptions
from utils.pipeline import evaluate_one
from utils.pipeline import reading as reading_module

STAGES = ("embed", "read", "select", "search", "score", "metrics")
METRICS = (
    *("image_auroc", "pixel_auroc", "pixel_aupro", "aupro_limit", "image_ap", "image_f1_max"),
    *("image_threshold", "image_false_positives", "image_false_negatives"),
    *("pixel_ap", "pixel_f1_max", "pixel_threshold", "pixel_auroc_defective"),
)
LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
RANDOM_NOTE = "RANDOM WEIGHTS: the results are meaningless; use this only to test the program."


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Return a folder with two categories."""
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> tuple[Path, str, str]:
    """Return the results, standard output and standard error of a full run as users start it."""
    folder = tmp_path_factory.mktemp("full") / "result"
    paths = ["--path_data", str(data), "--path_result", str(folder)]
    flags = ("--pictures", "all", "--percentage_coreset", "0.1", "0.02", "--save_maps")
    process = start(*quick(*paths, *flags))
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
            for pattern in ("roc-curve_{}_rim????_rpm????", "pr-curve_{}_aim????_apm????"):
                assert len(names(folder, f"{pattern.format(tag)}.png")) == 1
            assert len(names(folder, f"pro-curve_{tag}_prm????.png")) == 1
        images = 2 * 2 * len(TEST_TYPES) * NUM_TEST_PER_TYPE
        for pattern in ("explanation_*.png", "explanation_*.json", "thumbnails/*.jpg"):
            assert len(list(folder.glob(pattern))) == images
        others = {"results.csv", "results_defects.csv", "tables.md", "run.json", "roc_curve.png"}
        others |= {"index.html", "run.log"}
        assert others < names(folder)
        # distribution and maps of each category, curves, of each percentage; localization,
        # explanation and its record of each image; the folders of thumbnails and of finished
        # categories, and the lock
        assert len(list(folder.iterdir())) == len(others) + 2 * (2 + 2 + 3) + 3 * images + 3

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
        rows = [row for row in read_table(folder) if row["percentage_coreset"] == "0.1"]
        for kind, *metrics in (
            ("roc-curve_p0100_k01_rim{}_rpm{}.png", "image_auroc", "pixel_auroc"),
            ("pr-curve_p0100_k01_aim{}_apm{}.png", "image_ap", "pixel_ap"),
            ("pro-curve_p0100_k01_prm{}.png", "pixel_aupro"),
        ):
            means = (np.mean([float(row[metric]) for row in rows]) for metric in metrics)
            name = kind.format(*(f"{round(1000 * mean):04d}" for mean in means))
            assert (folder / name).is_file()
        for row in rows:
            share = round(1000 * float(row["image_auroc"]))
            assert (folder / f"pred-dist_{row['category']}_p0100_k01_r{share:04d}.png").is_file()
            # the highest score of a category is 100 % of itself
            assert names(folder, f"localization_{row['category']}_*_p0100_k01_s100.png")

    def test_there_is_a_row_for_each_category_and_percentage(self, finished):
        rows = read_table(finished[0])
        assert list(rows[0]) == [
            *("category", "percentage_coreset", "k", "seed", "shots", "num_train", "num_test"),
            *METRICS,
            "seconds_total",
            *(f"seconds_{stage}" for stage in STAGES),
            "model",
        ]
        assert [(row["category"], row["percentage_coreset"]) for row in rows] == [
            ("gadget", "0.02"),
            ("gadget", "0.1"),
            ("widget", "0.02"),
            ("widget", "0.1"),
        ]

    def test_the_rows_values_are_those_of_the_saved_maps(self, finished):
        for row in read_table(finished[0]):
            assert (row["k"], row["seed"], row["model"]) == ("1", "0", QUICK_NETWORK)
            assert int(row["num_train"]) == NUM_TRAIN
            assert int(row["num_test"]) == len(TEST_TYPES) * NUM_TEST_PER_TYPE
            assert row["image_auroc"] == "1"  # the defects are blatant
            assert row["aupro_limit"] == "0.3"
            check_against_saved_maps(finished[0], row)
            stages = [float(row[f"seconds_{stage}"]) for stage in STAGES]
            assert min(stages) >= 0
            assert sum(stages) == pytest.approx(float(row["seconds_total"]), abs=0.004)
            assert 0 < float(row["seconds_total"]) < 60

    def test_a_larger_coreset_takes_no_less_of_the_stages_that_it_includes(self, finished):
        rows = read_table(finished[0])
        for small, large in zip(rows[::2], rows[1::2], strict=True):
            for stage in ("select", "search"):
                assert float(small[f"seconds_{stage}"]) <= float(large[f"seconds_{stage}"])
            for stage in ("read", "embed"):  # shared: counted in full for each
                assert small[f"seconds_{stage}"] == large[f"seconds_{stage}"]

    def test_each_defect_type_has_a_row_for_each_percentage(self, finished):
        rows = read_table(finished[0] / "results_defects.csv")
        found = [(r["category"], r["percentage_coreset"], r["defect_type"]) for r in rows]
        assert found == [
            (category, percentage, kind)
            for category in ("gadget", "widget")
            for percentage in ("0.02", "0.1")
            for kind in DEFECT_TYPES
        ]
        for row in rows:
            assert row["num_test"] == str(NUM_TEST_PER_TYPE)
            assert row["image_auroc"] == row["image_ap"] == row["image_f1_max"] == "1"

    def test_the_tables_are_kept_with_the_measured_values(self, finished):
        folder, *_ = finished
        text = (folder / "tables.md").read_text()
        rows = {(r["category"], r["percentage_coreset"]): r for r in read_table(folder)}
        for title, metric, dash in [
            ("Image AUROC (%)", "image_auroc", "- | "),  # in the paper's column
            ("Pixel AUROC (%)", "pixel_auroc", "- | "),
            ("AUPRO (%), up to a false positive rate of 0.3", "pixel_aupro", "- | "),
            ("Pixel AP (%)", "pixel_ap", ""),
        ]:
            table = text.partition(f"### {title}\n")[2].partition("###")[0]
            paper = "*Paper* {0} % | {0} %" if dash else "{} %"
            assert f"| category | {paper.format(2)} | {paper.format(10)} |" in table
            for category in ("gadget", "widget"):
                values = [f"{100 * float(rows[category, p][metric]):.2f}" for p in ("0.02", "0.1")]
                assert f"| {category} | {dash}{values[0]} | {dash}{values[1]} |" in table
            assert table.count("**Average**") == 1

    def test_notes_and_the_three_main_tables_are_printed(self, finished):
        folder, output, _ = finished
        assert output.startswith(f"> {RANDOM_NOTE}\n\n### ")
        tables = output.split("### ")[1:]
        assert [table.partition("\n")[0] for table in tables] == [
            *("Image AUROC (%)", "Pixel AUROC (%)", "Processing time (s)")
        ]
        text = (folder / "tables.md").read_text()
        for table in tables:
            assert f"### {table.strip()}\n" in text

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
        assert set(run["options"]) == set(vars(EvaluateOptions()))
        assert (
            run["options"]
            | {
                "path_data": str(data),
                "path_result": str(folder),
                "percentage_coreset": [0.1, 0.02],
                "seed": [0],
                "backbone": [QUICK_NETWORK],
                "weights": ["random"],
                "layers": [["features.3", "features.6"]],
                "size_crop": [64],
            }
            == run["options"]
        )
        assert run["versions"]["torch"] == torch.__version__.partition("+")[0]
        assert {"python", "torchvision", "numpy"} < set(run["versions"])
        assert set(run["weights_digest"]) == {QUICK_NETWORK}
        assert re.fullmatch("[0-9a-f]{64}", run["weights_digest"][QUICK_NETWORK])
        assert run["licence"] == {QUICK_NETWORK: ""}  # random weights
        assert run["patches_per_image"] == {QUICK_NETWORK: NUM_PATCHES}
        assert set(run["memory"]) == set(run["coresets"]) == {"gadget", "widget"}
        for share, size in ((2, 27), (10, 135)):
            name = f"{QUICK_NETWORK}, coreset {share} %, seed 0"
            coreset = run["coresets"]["widget"][name]
            assert coreset["size"] == size
            assert coreset["covering_radius"] > 0
            assert 2 <= coreset["proven_factor"] < 3
        assert run["device"]
        assert "cores" in run["cpu"]
        assert run["command"].startswith("python ")
        assert "--percentage_coreset 0.1 0.02" in run["command"]
        assert "commit" in run

    def test_without_a_terminal_only_whole_lines_are_written(self, finished):
        *_, errors = finished
        lines = errors.splitlines()
        assert not re.search(r"\r|\x1b|%\||it/s|image/s|patch/s", errors)
        for category in ("gadget", "widget"):
            pattern = (
                rf"{category}, {QUICK_NETWORK}, coreset (2|10) %, seed 0, .* s: image AUROC .*"
            )
            assert sum(re.fullmatch(pattern, line) is not None for line in lines) == 2
        assert sum("of each image, at its borders, is not judged" in line for line in lines) == 1
        assert len(lines) <= 11

    def test_the_log_tells_every_metric(self, finished):
        *_, errors = finished
        (line, *_) = [line for line in errors.splitlines() if "coreset 2 %" in line]
        for name in ("image AUROC", "AP", "F1-max", "wrong", "pixel AUROC", "AUPRO to 0.3"):
            assert name in line


@pytest.fixture
def run(tmp_path) -> Callable[..., Path]:
    """Run the program on a data folder, with flags; return the result folder."""
    return lambda path_data, flags="": evaluate(path_data, tmp_path / "result", flags)


def test_percentages_of_one_run_are_those_of_separate_runs(finished, data, run, tmp_path):
    def metrics(folder: Path) -> dict[tuple[str, str], dict[str, str]]:
        return {
            (row["category"], row["percentage_coreset"]): {
                name: value for name, value in row.items() if not name.startswith("seconds")
            }
            for row in read_table(folder)
        }

    together = metrics(finished[0])
    assert len(together) == 4
    for percentage in ("0.02", "0.1"):
        alone = metrics(run(data, f"--percentage_coreset {percentage} --fresh"))
        assert alone == {key: row for key, row in together.items() if key[1] == percentage}


def test_each_percentage_has_the_scores_and_thresholds_of_a_run_of_its_own(data, tmp_path):
    """Equation 7 looks for neighbours in the coreset of the percentage, and in no larger one."""

    def run(percentages: str) -> Path:
        flags = f"--categories widget --image_score reweighted --percentage_coreset {percentages}"
        folder = tmp_path / percentages.replace(" ", "_")
        return evaluate(data, folder, f"{flags} --save_maps --path_trained {folder / 'trained'}")

    together = run("0.02 0.1")
    rows = read_table(together)
    assert [row["percentage_coreset"] for row in rows] == ["0.02", "0.1"]
    for row, model in zip(rows, ("p0020_k01", "p0100_k01"), strict=True):
        alone = run(row["percentage_coreset"])
        found, expected = (read_maps(folder, row) for folder in (together, alone))
        for name in ("scores", "anomaly_maps"):
            np.testing.assert_array_equal(found[name], expected[name])
        one, other = (
            PatchCore.load(folder / f"trained/widget/{QUICK_NETWORK}_{model}")
            for folder in (together, alone)
        )
        assert one.thresholds == other.thresholds
        np.testing.assert_array_equal(one.coreset.indices, other.coreset.indices)


def test_percentages_of_one_run_share_the_reading(data, run, monkeypatch):
    read, read_image = [], reading_module.read_image
    monkeypatch.setattr(
        reading_module,
        "read_image",
        lambda path, *options: read.append(path) or read_image(path, *options),
    )
    run(data, "--categories widget --percentage_coreset 0.01 0.02 0.1")
    assert len(read) == len(set(read)) == NUM_TRAIN


def test_the_search_of_a_larger_coreset_includes_that_of_a_smaller_one(data, run, monkeypatch):
    extend_to = PrefixSearch.extend_to

    def slow(*arguments):
        time.sleep(0.1)
        return extend_to(*arguments)

    monkeypatch.setattr(PrefixSearch, "extend_to", slow)
    rows = read_table(run(data, "--categories widget --percentage_coreset 0.02 0.1"))
    small, large = (float(row["seconds_search"]) for row in rows)
    assert small >= 0.1
    assert large >= small + 0.1


@pytest.mark.parametrize("command", [(), ("evaluate",)])
def test_the_word_evaluate_may_be_left_out(data, tmp_path, command):
    paths = ["--path_data", str(data), "--path_result", str(tmp_path)]
    assert call(*command, *quick(*paths)) == 0
    assert [row["category"] for row in read_table(tmp_path)] == ["gadget", "widget"]


def test_the_data_is_looked_for_and_the_results_are_put_in_the_current_folder(
    tmp_path, monkeypatch
):
    make_category(tmp_path / "mvtec_anomaly_detection", "widget")
    monkeypatch.chdir(tmp_path)
    assert call(*quick()) == 0
    assert [row["category"] for row in read_table(tmp_path / "result")] == ["widget"]


def test_the_same_run_again_gives_the_same_numbers_and_keeps_the_earlier_ones(data, run):
    folder = run(data)
    first = {f.relative_to(folder): f.read_bytes() for f in folder.rglob("*.*") if f.is_file()}
    first.pop(Path(".lock"))
    rows = read_table(folder)
    run(data, "--fresh")
    (earlier,) = (folder / "earlier").iterdir()
    assert {
        f.relative_to(earlier): f.read_bytes() for f in earlier.rglob("*.*") if f.is_file()
    } == first
    for before, after in zip(rows, read_table(folder), strict=True):
        for name in ("category", "image_auroc", "pixel_auroc"):
            assert before[name] == after[name]


def test_a_category_named_twice_is_measured_once(data, run):
    folder = run(data, "--categories widget gadget widget")
    assert [row["category"] for row in read_table(folder)] == ["widget", "gadget"]


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
    measure = evaluate_one.evaluate_category

    def spy(model, *arguments):
        models.append(model)
        return measure(model, *arguments)

    monkeypatch.setattr(evaluate_one, "evaluate_category", spy)
    text = "--backbone my_networks:constant --layers 0 --weights default --categories widget"
    folder = run(data, text)
    assert (models[0].backbone.network[0].weight == 0.25).all()
    assert read_run(folder)["notes"] == []
    assert "RANDOM" not in (folder / "tables.md").read_text()


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
        assert call(*self.flags, "--path_data", data) == main.WRONG_USAGE
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
        assert call(*self.flags, "--path_data", data) == 0
        assert read_run(self.folder)["notes"] == []
        cached = read_run(self.folder)["weights_digest"]
        flags = [*self.flags, "--weights", str(self.file)]
        assert call(*flags, "--path_data", data) == 0
        assert read_run(self.folder)["weights_digest"] == cached
        assert set(cached) == {QUICK_NETWORK}

    @pytest.mark.parametrize("is_cut", [True, False])
    def test_a_damaged_file_in_torchvisions_cache_is_named(self, data, capsys, is_cut):
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(b"no download")
        if is_cut:
            state = torchvision.models.get_model(QUICK_NETWORK, weights=None).state_dict()
            torch.save(state, self.file)
            truncate(self.file)
        assert call(*self.flags, "--path_data", data) == main.WRONG_USAGE
        error = capsys.readouterr().err
        assert re.search(f"damaged file: {self.file} .*Delete it and start again", error)
        assert "network" not in error.rpartition("error: ")[2]

    @pytest.fixture
    def small_demo(self, monkeypatch):
        """Let the demo make this module's small category in place of its own."""
        monkeypatch.setattr(
            demo_module, "make_data", lambda options: make_category(options.path_data)
        )

    @pytest.mark.usefixtures("small_demo")
    def test_the_demo_goes_on_with_its_own_backbone_and_says_so(self, tmp_path, caplog):
        caplog.set_level(logging.DEBUG)
        flags = ["demo", *self.flags, "--path_data", str(tmp_path / "made")]
        assert call(*flags) == 0
        note = (
            "The ImageNet weights of squeezenet1_1 are not available: the demo uses formulanet, "
            "the backbone that ships with the code."
        )
        assert note in caplog.text
        assert str(self.file) in caplog.text
        run = read_run(self.folder)
        assert run["notes"] == [note]
        assert run["options"]["backbone"] == ["formulanet"]
        assert run["options"]["weights"] == ["default"]
        tables = (self.folder / "tables.md").read_text()
        assert f"> {note}" in tables
        assert RANDOM_NOTE not in tables
        assert {row["model"] for row in read_table(self.folder)} == {"formulanet"}
        percentages = [row["percentage_coreset"] for row in read_table(self.folder)]
        assert percentages == ["0.01", "0.1"]

    def test_the_demo_makes_its_categories(self, tmp_path, monkeypatch, caplog):
        caplog.set_level(logging.INFO)
        for name, count in (("NUM_TRAIN", 4), ("NUM_TEST_GOOD", 3), ("NUM_TEST_PER_DEFECT", 2)):
            monkeypatch.setattr(demo_module, name, count)
        folder = tmp_path / "made"
        options = replace(demo_module.DEFAULTS, path_data=folder, categories=("weave",))
        demo_module.make_data(options)
        assert f"making the procedural categories that are missing in {folder}" in caplog.text
        assert [path.name for path in folder.iterdir() if path.is_dir()] == ["weave"]
        kinds = (folder / "weave/test").iterdir()
        counts = {kind.name: len(list(kind.iterdir())) for kind in kinds}
        assert counts == {"good": 3, **dict.fromkeys(CATEGORIES["weave"].defect_types, 2)}
        assert len(list((folder / "weave/train/good").iterdir())) == 4

    def test_the_demo_says_which_categories_it_can_make(self, tmp_path, capsys):
        flags = ["--path_data", str(tmp_path / "made"), "--categories", "bottel"]
        assert call("demo", *flags) == main.WRONG_USAGE
        error = capsys.readouterr().err
        assert "expected categories among weave, " in error
        assert error.rstrip().endswith("found 'bottel' (--categories)")
        assert not (tmp_path / "made").exists()

    def test_the_demo_makes_nothing_for_weights_that_are_missing(self, tmp_path, capsys):
        flags = ["--path_data", str(tmp_path / "made"), "--weights", "missing.pth"]
        assert call("demo", *flags) == main.WRONG_USAGE
        assert "no weights file missing.pth" in capsys.readouterr().err
        assert not (tmp_path / "made").exists()

    @pytest.mark.usefixtures("small_demo")
    def test_the_demo_does_not_replace_weights_that_were_asked_for(self, tmp_path, capsys):
        flags = [*self.flags, "--path_data", str(tmp_path / "made"), "--weights", "missing.pth"]
        assert call("demo", *flags) == main.WRONG_USAGE
        assert "no weights file missing.pth" in capsys.readouterr().err
        assert not self.folder.exists()


def test_a_precision_that_the_processor_lacks_is_said_to_be_slow(
    data, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")

    evaluate(data, tmp_path, "--categories widget --precision bfloat16")

    assert "this processor does not support bfloat16 natively" in caplog.text


def test_an_error_of_the_program_has_a_status_of_its_own(monkeypatch, capsys):
    def fail(_):
        raise ZeroDivisionError("of our own")

    monkeypatch.setattr(importlib, "import_module", fail)
    monkeypatch.setattr(sys, "argv", ["main.py", "infer"])
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # it would ignore them
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "main.py"), run_name="__main__")
    assert ended.value.code == main.CRASHED
    assert "ZeroDivisionError: of our own" in capsys.readouterr().err


def test_a_name_that_the_outputs_encoding_lacks_ends_no_run(monkeypatch):
    class Command:
        @staticmethod
        def main(arguments, *, epilog):
            print("größe 图 \udcff")

    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, encoding="latin-1"))
    monkeypatch.setattr(importlib, "import_module", lambda _: Command)
    assert main.main(["tables"]) == 0
    sys.stdout.flush()
    assert written.getvalue().rstrip() == b"gr\xf6\xdfe \\u56fe \\udcff"


@pytest.mark.skipif(
    not LARGE_PAGES.is_file() or "[never]" in LARGE_PAGES.read_text(encoding="ascii"),
    reason="this system gives no large pages",
)
def test_a_large_tensor_takes_few_page_faults(monkeypatch):
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE")  # which this process was given by importing main
    megabytes = 256
    count = (
        "import main, torch; from resource import RUSAGE_SELF, getrusage; torch.ones(1);"
        "before = getrusage(RUSAGE_SELF).ru_minflt;"
        f"torch.ones({megabytes} << 18); print(getrusage(RUSAGE_SELF).ru_minflt - before)"
    )
    command = [sys.executable, "-c", count]
    output = subprocess.check_output(command, cwd=ROOT)

    small_pages = megabytes * 1024 / 4
    assert int(output) < small_pages / 2


def test_only_an_interrupt_that_is_handled_holds_back_the_next_one():
    """An interrupt also ends the handling of another error, and of what it led to."""
    found = [main._is_handled(KeyboardInterrupt)]
    try:
        raise ValueError
    except ValueError:
        found.append(main._is_handled(KeyboardInterrupt))
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            found.append(main._is_handled(KeyboardInterrupt))
            try:
                raise OSError
            except OSError:
                found.append(main._is_handled(KeyboardInterrupt))
    assert found == [False, False, True, True]
