"""Input as users have it: what can be read correctly is read; of the rest, one line of error says
what to change, exit status 2, and what was finished before is kept.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

import main
from tests.recomputed import check_against_saved_maps
from tests.support import (
    NUM_TEST_PER_TYPE,
    NUM_TRAIN,
    SIDE,
    TEST_TYPES,
    call,
    evaluate,
    make_category,
    names,
    quick,
    read_maps,
    read_run,
    read_table,
    start,
    truncate,
    write_image,
)
from utils.pipeline import evaluate_one
from utils.pipeline import models as models_module
from utils.pipeline import reading as reading_module


@pytest.fixture
def own_data(tmp_path) -> Path:
    """Return a folder with the category `widget`, for a test to change."""
    make_category(tmp_path / "data", "widget")
    return tmp_path / "data"


@pytest.fixture
def run(own_data, tmp_path) -> Callable[..., Path]:
    """Run the program on the test's own data, with flags; return the result folder."""
    return lambda flags="", **details: evaluate(own_data, tmp_path / "result", flags, **details)


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
        result = run("--save_maps")
        (row,) = read_table(result)
        assert row["num_train"] == str(NUM_TRAIN + 6)
        assert row["num_test"] == str(len(TEST_TYPES) * NUM_TEST_PER_TYPE + 1)
        assert row["image_auroc"] == "1"
        check_against_saved_maps(result, row)

    def test_without_ground_truth_only_images_are_measured(self, own_data, run):
        shutil.rmtree(own_data / "widget/ground_truth")
        folder = run("--pictures all --save_maps", plots=True)
        (row,) = read_table(folder)
        assert row["image_auroc"] == "1"
        check_against_saved_maps(folder, row)
        assert row["pixel_auroc"] == row["aupro_limit"] == ""
        # Read without pickle: an array of objects would be refused.
        assert set(read_maps(folder, row)) == {"scores", "labels", "files", "anomaly_maps"}
        assert names(folder, "roc-curve_*_rpmnone.png")
        assert len(names(folder, "localization_*.png")) == len(TEST_TYPES) * NUM_TEST_PER_TYPE
        pixels = (folder / "tables.md").read_text().partition("### Pixel")[2]
        assert "| widget | - | - |" in pixels

    def test_without_defective_images_nothing_can_be_told_apart(self, own_data, run):
        for kind in ("hole", "stain"):
            shutil.rmtree(own_data / "widget/test" / kind)
        folder = run("--pictures all", plots=True)
        (row,) = read_table(folder)
        assert (row["image_auroc"], row["pixel_auroc"]) == ("", "")
        assert names(folder, "pred-dist_*") == {"pred-dist_widget_p0100_k01_rnone.png"}

    def test_without_good_test_images_pixels_are_measured(self, own_data, run):
        shutil.rmtree(own_data / "widget/test/good")
        folder = run("--save_maps")
        (row,) = read_table(folder)
        assert row["image_auroc"] == ""
        check_against_saved_maps(folder, row)


def without_log(lines: list[str]) -> list[str]:
    """Leave out the log lines of a category and of the crop."""
    return [line for line in lines if not re.match(r"(widget|zipper)[:,] |[\d.]+ % of each", line)]


@pytest.fixture
def fail(own_data, tmp_path, capfd) -> Callable[[str], str]:
    """Run the program on what it cannot use; return its one line of error."""

    def fail(text: str = "") -> str:
        paths = f"--path_data {own_data} --path_result {tmp_path / 'result'}"
        assert call(*quick(*paths.split(), *text.split())) == 2
        lines = capfd.readouterr().err.splitlines()  # also what libraries write past Python
        lines = without_log(lines)
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
        assert re.search(f"size of its image, 64x64, found 32x64: {path}", fail())

    def test_an_unknown_category(self, fail):
        expected = r"expected a category name \(.*widget\), found 'bolt' .*--categories"
        assert re.search(expected, fail("--categories bolt"))

    def test_a_category_given_as_a_path(self, fail):
        assert "widget), found 'widget/'" in fail("--categories widget/")


class TestBadFlags:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("--percentage_coreset 0", r"in \(0, 1\].*found 0 \(--percentage_coreset\)"),
            ("--percentage_coreset 1.5", r"in \(0, 1\].*found 1.5 \(--percentage_coreset\)"),
            (
                "--percentage_coreset 0.0001",
                "at least k = 1 patches.*found 0: 0.0001 of 1350.*percentage_coreset",
            ),
            (
                "--percentage_coreset 0.01 --k 14",
                r"at least k = 14 patches in the coreset, found 13: 0.01 of 1350.*\bk\b",
            ),
            ("--size_crop 80", "size_crop at most size_resize, found.* 80 80 .* 72 72"),
            ("--size_crop 0", "size_crop"),
            ("--size_crop 2", r"cannot take float32 images of 2x2 pixels \(size_crop\)"),
            (
                "--backbone squeezenet",
                "module:factory.*found 'squeezenet'.*Did you mean squeezenet1_",
            ),
            ("--layers features.3 layer2", "features.12.*found 'layer2'"),
            ("--layers features.3 features.3", "different layers"),
            ("--backbone nowhere:network", "cannot import 'nowhere'.*PYTHONPATH"),
            ("--backbone math:pi", "module math has no callable 'pi'"),
            ("--backbone os:getcwd", "expected os:getcwd to return a torch.nn.Module, found str"),
            ("--weights nowhere.pth", "no weights file nowhere.pth.*'default'.*'random'"),
            (f"--weights {__file__}", "cannot read .*test_bad_input.py"),
            ("--seed 4294967296", "--seed"),
            ("--layer_weights 1 2 3", "layer_weights"),
            ("--memory_budget 0.0001", "memory for 6 training images.*memory_budget"),
            (
                "--backbone resnet18 resnet34 --weights a b c",
                "--weights once, or once for each of 2",
            ),
            ("--unknown 1", "unrecognized arguments: --unknown 1.*--help"),
        ],
    )
    def test_an_error_names_what_to_change(self, fail, text, message):
        assert re.search(message, fail(text))

    @pytest.mark.parametrize(
        ("word", "meant"), [("evalute", "evaluate"), ("table", "tables"), ("Demo", "demo")]
    )
    def test_a_mistyped_command_lists_the_commands(self, word, meant, capfd):
        assert call(word, "--k", "3") == main.WRONG_USAGE
        error = f"error: expected a command ({', '.join(main.COMMANDS)}), found '{word}'"
        assert capfd.readouterr().err == f"{error}. Did you mean {meant}?\n"

    def test_a_word_too_many(self, fail):
        assert re.search("unrecognized arguments: widget .*--help", fail("--k 1 widget"))

    def test_weights_of_another_network(self, fail, tmp_path):
        torch.save({"layer.weight": torch.zeros(2)}, path := tmp_path / "other.pth")
        expected = f"expected weights of squeezenet1_1 in {path} .*: expected weights for this"
        assert re.search(f"{expected} network, .*layer.weight", fail(f"--weights {path}"))

    @pytest.mark.parametrize(
        ("words", "flag"),
        [
            (("--path_data",), "--path_data"),
            (("--weights",), "--weights"),
            (("--ignore_mask",), "--ignore_mask"),
            (("infer", "--watch"), "--watch"),
            (("infer", "main.py", "--path_trained"), "--path_trained"),
            (("check",), "PATH"),
            (("download", "btad", "--to"), "--to"),
            (("download", "btad", "--to", "x", "--archive"), "--archive"),
            (("demo", "--categories", "weave", "--path_data"), "--path_data"),
        ],
    )
    def test_a_name_that_is_too_long_is_told_with_its_flag(self, words, flag, capfd):
        assert call(*words, "x" * 300) == main.WRONG_USAGE
        assert re.search(f"cannot use x+.*: .*name too long .{flag}.$", capfd.readouterr().err)

    @pytest.mark.parametrize("words", [(), ("train",), ("demo", "--categories", "weave")])
    def test_missing_weights_are_told_before_data_are_listed_or_made(
        self, words, tmp_path, monkeypatch, capfd
    ):
        monkeypatch.chdir(tmp_path)
        assert call(*words, "--weights", "gone.pth", "--path_data", "data") == main.WRONG_USAGE
        assert "no weights file gone.pth" in capfd.readouterr().err
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("words", [("--path_data",), ("--weights",), ("infer",), ("tables",)])
    def test_a_name_does_not_colour_its_error(self, words, capfd):
        assert call(*words, "a\x1b[31m") == main.WRONG_USAGE
        assert "a\\x1b[31m" in capfd.readouterr().err

    @pytest.mark.parametrize("place", ["{}", "{}/", "{}/../link"])
    def test_results_among_the_data(self, fail, own_data, place):
        """The next run would read the figures as images."""
        (own_data.parent / "link").symlink_to(own_data)
        place = place.format(own_data)
        error = fail(f"--path_result {place}")
        assert "folder different from that of the images" in error
        assert "(--path_result)" in error

    @pytest.mark.parametrize("place", ["file", "file/below"])
    def test_an_unwritable_result_folder(self, fail, tmp_path, place):
        (tmp_path / "file").write_text("in the way")
        error = fail(f"--path_result {tmp_path / place}")
        assert re.search(
            f"folder to write results to, found {tmp_path / place} .*--path_result", error
        )

    def test_a_device_that_is_not_there(self, fail, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert re.search(
            "expected an available device, found cuda .*--device auto", fail("--device cuda")
        )


class TestRefusedEarly:
    """What is wrong from the start costs no download, no reading and no former result."""

    @pytest.fixture
    def forbid(self, monkeypatch) -> Callable[..., None]:
        """Let functions of a module fail when they are called."""

        def forbid(module: ModuleType, *functions: str) -> None:
            for name in functions:
                monkeypatch.setattr(module, name, lambda *a, name=name, **k: pytest.fail(name))

        return forbid

    @pytest.mark.parametrize(
        "flags", ["--percentage_coreset 0.004", "--percentage_coreset 0.09 --k 21"]
    )
    def test_a_percentage_or_k_before_any_image_is_read(self, fail, forbid, own_data, flags):
        # The last category, of one training image, is too small for it; the first is not.
        _, *others = (make_category(own_data, "zipper") / "train/good").iterdir()
        for path in others:
            path.unlink()
        forbid(reading_module, "read_image", "read_sample", "find_value_range")
        assert re.search("at least k = .* of 225 training patches", fail(flags))

    def test_a_crop_larger_than_the_image_before_weights_are_loaded(self, fail, forbid):
        forbid(models_module, "load_backbone_for")
        assert "size_crop at most size_resize" in fail("--size_crop 80")

    def test_an_unwritable_result_folder_before_weights_are_loaded(self, fail, forbid, tmp_path):
        forbid(models_module, "load_backbone_for")
        (tmp_path / "file").write_text("in the way")
        assert "--path_result" in fail(f"--path_result {tmp_path / 'file'}")

    @pytest.mark.parametrize(
        "flags", ["--percentage_coreset 0.0001", "--weights nowhere.pth", "--categories bolt"]
    )
    def test_an_earlier_runs_results_stay(self, fail, tmp_path, flags):
        folder = tmp_path / "result"
        folder.mkdir()
        (folder / "results.csv").write_text("from before")
        fail(flags)
        assert names(folder, "*") == {"results.csv"}


class TestStoppedRun:
    @pytest.fixture
    def broken(self, own_data) -> Path:
        """Return the damaged test image of the second category."""
        return truncate(make_category(own_data, "zipper") / "test/stain/001.png")

    def check_first_category_is_kept(self, folder: Path) -> None:
        assert [row["category"] for row in read_table(folder)] == ["widget"]
        assert "| widget |" in (folder / "tables.md").read_text()
        assert len(names(folder, "pred-dist_widget_*")) == 1
        assert names(folder, ".*") == {".lock"}

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
        expected = f"error: expected an image, found a damaged or unknown file: {broken}"
        assert lines[-1] == f"{expected} (PNG: image file is truncated)"
        assert [line for line in lines if "error" in line.lower()] == lines[-1:]
        assert "Traceback" not in process.stderr
        assert process.stdout == ""

    def test_nor_does_an_interruption(self, own_data, tmp_path, monkeypatch, capsys):
        make_category(own_data, "zipper")
        measure = evaluate_one.evaluate_category

        def interrupted(*arguments):
            if any(getattr(argument, "name", None) == "zipper" for argument in arguments):
                raise KeyboardInterrupt
            return measure(*arguments)

        monkeypatch.setattr(evaluate_one, "evaluate_category", interrupted)
        folder = tmp_path / "result"
        paths = f"--path_data {own_data} --path_result {folder}"
        assert call(*quick(*paths.split())) == main.INTERRUPTED
        lines = without_log(capsys.readouterr().err.splitlines())
        assert lines == ["interrupted; finished results are kept"]
        self.check_first_category_is_kept(folder)
        assert read_run(folder)["state"] == "interrupted"
