"""Faults of files, memory and machine: what each one ends in, and what is kept."""

import errno
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import main
from patchcore import PatchCore
from patchcore.backbone import Backbone
from tests.support import (
    NUM_TRAIN,
    ROOT,
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
from utils.errors import LEFT_OUT
from utils.pipeline import evaluate_one
from utils.pipeline import judge as judge_module
from utils.pipeline import reading as reading_module
from utils.predictions import PredictionFiles
from utils.results import read_rows, results_digest

SKIP = "--on_error skip"
MASK = "ground_truth/hole/001_mask.png"
TWO_PASSES = "--memory_budget 0.0009"
NONE_LEFT = "error: no category can be used; the first one, gadget"
DAMAGED = "expected an image, found a damaged or unknown file: {} (PNG: image file is truncated)"


def slow(*values: object) -> object:
    """Return the values of a parametrised test that only the slow run has."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture
def data(tmp_path) -> Path:
    """Return two categories, `gadget` and `widget`, for a test to damage."""
    return make_data(tmp_path / "data")


@pytest.fixture
def gadget(data) -> Path:
    """Return the first one."""
    return data / "gadget"


@pytest.fixture
def run(data, tmp_path, caplog) -> Callable[..., Path]:
    """Evaluate with flags; return the result folder."""
    caplog.set_level(logging.INFO)

    def run(flags: str = "", *, status: int = 0, folder: str = "result") -> Path:
        paths = ["--path_data", data, "--path_result", tmp_path / folder]
        with without_plots():
            assert call(*quick(*map(str, paths), *flags.split())) == status
        return tmp_path / folder

    return run


@pytest.fixture
def change_while_read(monkeypatch) -> Callable[[Path], None]:
    """Let an image become another one as soon as it has been read."""

    def change(path: Path) -> None:
        read_image = reading_module.read_image

        def read(file, *arguments):
            image = read_image(file, *arguments)
            if file == path:
                write_image(path, np.roll(image, 1, axis=0))
            return image

        monkeypatch.setattr(reading_module, "read_image", read)

    return change


def measured(folder: Path, category: str = "gadget") -> list[dict[str, str]]:
    """Return the rows of a category without their times."""
    rows = [row for row in read_table(folder) if row["category"] == category]
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]


def last_error(capsys: pytest.CaptureFixture) -> str:
    """Return the last line on standard error, the only one about an error."""
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "error:" in line or "Traceback" in line] == lines[-1:]
    return lines[-1]


class TestSkippedImages:
    @pytest.mark.parametrize(
        ("names", "flags"),
        [
            (["train/good/003.png"], ""),
            (["train/good/002.png", "test/hole/001.png"], "--shots 3"),
            slow(["train/good/001.png", "train/good/004.png"], TWO_PASSES),
            slow(["test/good/000.png"], "--backbone squeezenet1_1 squeezenet1_1"),
        ],
    )
    def test_results_are_those_without_the_images(self, gadget, run, caplog, names, flags):
        paths = [truncate(gadget / name) for name in names]
        folder = run(f"{SKIP} {flags}", status=LEFT_OUT)
        reasons = {str(path): DAMAGED.format(path) for path in paths}
        assert read_run(folder)["skipped_images"] == {"gadget": reasons}
        for reason in reasons.values():
            assert caplog.text.count(f"an image is skipped ({SKIP}): {reason}") == 1
        for path in paths:
            path.unlink()
        assert measured(folder) == measured(run(f"{flags} --categories gadget", folder="without"))
        assert measured(folder, "widget")

    def test_tables_page_and_output_say_so(self, gadget, run, capsys):
        path = truncate(gadget / "train/good/003.png")
        folder = run(f"{SKIP} --categories gadget", status=LEFT_OUT)
        note = f"gadget: 1 image skipped ({SKIP}): {path}"
        assert f"> {note}\n" in (folder / "tables.md").read_text()
        assert f"> {note}\n" in capsys.readouterr().out
        assert note in (folder / "index.html").read_text()
        assert [row["num_train"] for row in measured(folder)] == [str(NUM_TRAIN - 1)]
        assert read_run(folder)["state"] == "complete"

    def test_a_damaged_mask_costs_its_image(self, gadget, run):
        truncate(gadget / MASK)
        folder = run(f"{SKIP} --categories gadget", status=LEFT_OUT)
        assert [row["num_test"] for row in measured(folder)] == ["5"]
        assert list(read_run(folder)["skipped_images"]["gadget"]) == [
            str(gadget / "test/hole/001.png")
        ]

    @pytest.mark.parametrize("flags", ["", slow(TWO_PASSES)])
    def test_an_image_that_changes_meanwhile(
        self, gadget, run, capsys, monkeypatch, change_while_read, flags
    ):
        change_while_read(path := gadget / "train/good/002.png")
        run(f"{flags} --categories gadget", status=main.WRONG_USAGE)
        expected = (
            "expected the (files of gadget to stay unchanged|same training images in both passes)"
        )
        assert re.search(f"{expected}.*, found (changes in|a change of) {path}", last_error(capsys))
        folder = run(f"{SKIP} {flags} --categories gadget", status=LEFT_OUT)
        monkeypatch.undo()
        path.unlink()
        without = run(f"{flags} --categories gadget", folder="without")
        assert measured(folder) == measured(without)

    def test_an_image_that_vanishes_meanwhile(self, gadget, run, capsys, monkeypatch):
        path, noted = gadget / "test/good/001.png", evaluate_one.data_state

        def vanish(category):
            path.unlink(missing_ok=True)
            return noted(category)

        monkeypatch.setattr(evaluate_one, "data_state", vanish)
        run("--categories gadget", status=main.WRONG_USAGE)
        assert "to stay unchanged during the run, cannot read " + str(path) in last_error(capsys)
        write_image(path, np.zeros((64, 64, 3), np.uint8))
        folder = run(f"{SKIP} --categories gadget", status=LEFT_OUT)
        assert [row["num_test"] for row in measured(folder)] == ["5"]

    def test_a_later_run_leaves_them_out_again(self, gadget, run, caplog):
        path = truncate(gadget / "train/good/003.png")
        run(f"{SKIP} --categories gadget", status=LEFT_OUT)
        caplog.clear()
        folder = run("--percentage_coreset 0.1 0.2 --categories gadget", status=LEFT_OUT)
        assert "starts again" not in caplog.text
        assert [row["num_train"] for row in measured(folder)] == ["5", "5"]
        assert list(read_run(folder)["skipped_images"]["gadget"]) == [str(path)]
        assert not (folder / "earlier").exists()

    @pytest.mark.parametrize(
        "place", [slow("train/good/003.png"), "ground_truth/hole/001_mask.png"]
    )
    def test_what_was_repaired_is_used(self, gadget, run, caplog, place):
        path = gadget / place
        kept = shutil.copy(path, gadget.parent.parent / "kept")
        truncate(path)
        run(f"{SKIP} --categories gadget", status=LEFT_OUT)
        shutil.copy(kept, path)
        folder = run("--categories gadget")
        assert f"{path} was skipped and has changed" in caplog.text
        row = measured(folder)[0]
        assert (row["num_train"], row["num_test"]) == ("6", "6")
        assert read_run(folder)["skipped_images"] == {}


class TestSkippedCategories:
    def truncate_all(self, folder: Path) -> None:
        for path in folder.glob("*.png"):
            truncate(path)

    def check(self, folder: Path, reason: str) -> None:
        found = read_run(folder)
        assert set(found["skipped_categories"]) == {"gadget"}
        assert reason in found["skipped_categories"]["gadget"]
        assert found["state"] == "complete"
        note = f"gadget: the category is skipped ({SKIP}): {found['skipped_categories']['gadget']}"
        for name in ("tables.md", "index.html"):
            assert note in (folder / name).read_text()
        assert [row["category"] for row in read_table(folder)] == ["widget"]

    @pytest.mark.parametrize(
        ("place", "kind"),
        [
            ("train/good", "training"),
            slow("test/good", "normal test"),
            slow("test/h*", "defective test"),
        ],
    )
    def test_no_image_of_a_kind_is_left(self, gadget, run, place, kind):
        shutil.rmtree(gadget / "test/stain")
        for folder in gadget.glob(place):
            self.truncate_all(folder)
        self.check(run(SKIP, status=LEFT_OUT), f"no {kind} image is left: expected an image, found")

    def test_a_folder_is_missing(self, gadget, run):
        shutil.rmtree(gadget / "train")
        self.check(run(SKIP, status=LEFT_OUT), str(gadget / "train"))

    def test_it_is_too_small(self, gadget, run):
        for path in list((gadget / "train/good").iterdir())[1:]:
            path.unlink()
        folder = run(f"{SKIP} --percentage_coreset 0.004", status=LEFT_OUT)
        self.check(folder, "expected at least k = 1 patches in the coreset, found 0")

    @pytest.mark.parametrize("error", [MemoryError(), slow(RuntimeError("cannot allocate memory"))])
    def test_the_memory_is_too_small_and_a_later_run_tries_it_again(self, run, monkeypatch, error):
        compute = evaluate_one.evaluate_category

        def fail(model, name, category, options, engine):
            if category.name == "gadget":
                raise error
            return compute(model, name, category, options)

        with monkeypatch.context() as patched:
            patched.setattr(evaluate_one, "evaluate_category", fail)
            folder = run(SKIP, status=LEFT_OUT)
            self.check(folder, "out of memory (--batch_size, --memory_budget)")
        run(SKIP)
        assert [row["category"] for row in read_table(folder)] == ["gadget", "widget"]
        assert read_run(folder)["skipped_categories"] == {}

    def test_all_of_them(self, data, run, capsys):
        for name in ("gadget", "widget"):
            self.truncate_all(data / name / "train/good")
        folder = run(SKIP, status=main.WRONG_USAGE)
        assert last_error(capsys).startswith(f"{NONE_LEFT}: no training image is left")
        assert read_run(folder)["state"].startswith("stopped: no category can be used")

    def test_all_of_them_next_to_results_of_another_run(self, gadget, run, capsys):
        run("--categories widget")
        self.truncate_all(gadget / "train/good")
        run(f"{SKIP} --categories gadget", status=main.WRONG_USAGE)
        assert last_error(capsys).startswith(NONE_LEFT)

    def test_none_can_even_be_listed(self, data, run, capsys):
        for name in ("gadget", "widget"):
            shutil.rmtree(data / name / "train")
        run(f"{SKIP} --dataset mvtec", status=main.WRONG_USAGE)
        assert last_error(capsys).startswith(NONE_LEFT)


class TestSkippingOfTrain:
    def train(self, data: Path, folder: Path, *flags: object) -> int:
        words = quick("--path_trained", str(folder), *map(str, flags))
        at = words.index("--pictures")  # not a flag of train
        return call("train", *words[:at], *words[at + 2 :], "--path_data", data)

    @pytest.mark.parametrize("flags", [(), ("--keep_copies", "--shots", "3")])
    def test_results_are_those_without_the_image(self, data, tmp_path, flags):
        path = truncate(data / "gadget/train/good/002.png")
        assert self.train(data, tmp_path / "skip", *SKIP.split(), *flags) == LEFT_OUT
        path.unlink()
        assert self.train(data, tmp_path / "without", *flags) == 0
        one, two = (
            {
                file.relative_to(tmp_path / name): file.read_bytes()
                for file in (tmp_path / name).rglob("*.safetensors")
            }
            for name in ("skip", "without")
        )
        assert len(one) == 2
        assert one == two

    def test_a_category_that_cannot_go_on(self, data, tmp_path, capsys):
        for path in (data / "gadget/train/good").iterdir():
            truncate(path)
        assert self.train(data, tmp_path / "trained", *SKIP.split()) == LEFT_OUT
        assert names(tmp_path / "trained", "*") - {".lock"} == {"gadget", "widget"}
        assert not list((tmp_path / "trained/gadget").glob("*/model.json"))
        flags = (*SKIP.split(), "--categories", "gadget")
        assert self.train(data, tmp_path / "trained", *flags) == main.WRONG_USAGE
        assert "error: no category can be used" in last_error(capsys)

    def test_images_that_join_a_model(self, data, tmp_path):
        assert self.train(data, tmp_path / "trained", "--categories", "gadget") == 0
        (model,) = (path.parent for path in (tmp_path / "trained").rglob("model.json"))
        new = data / "widget/train/good"
        truncate(new / "002.png")
        assert call("train", new, "--extend", model, *SKIP.split()) == LEFT_OUT
        assert PatchCore.load(model).trained.extension.num_images == NUM_TRAIN - 1


class TestFullMemory:
    """Of the device, and of the host."""

    @pytest.fixture
    def fits(self, monkeypatch) -> Callable[[int], None]:
        """Let the memory suffice for batches of a size, and not for larger ones."""
        forward = Backbone.forward

        def fits(size: int) -> None:
            def limited(self, images):
                if len(images) > size:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
                return forward(self, images)

            monkeypatch.setattr(Backbone, "forward", limited)

        return fits

    @pytest.mark.parametrize("flags", ["", slow("--augment horizontal"), slow(TWO_PASSES)])
    def test_the_batch_is_halved_and_told_once(self, run, fits, caplog, flags):
        flags = f"--save_maps --categories gadget {flags}"
        small = run(f"{flags} --batch_size 2", folder="small")
        fits(2)
        folder = run(f"{flags} --batch_size 8")
        told = [text for text in caplog.messages if "memory of the device" in text]
        assert told == [
            "the memory of the device is too small for batches of 6 images: from here on, batches "
            "have at most 2 (--batch_size)"
        ]
        if "augment" in flags:  # the order of embedding is that of the batches that were asked for
            small = run(flags, folder="large")
        assert measured(folder) == measured(small)
        (row,) = read_table(folder)
        for name, array in read_maps(folder, row).items():
            np.testing.assert_array_equal(array, read_maps(small, row)[name])

    @pytest.mark.parametrize("capacity", [1, 2])
    def test_images_that_fit_one_by_one_are_enough(self, fits, capacity):
        size = {"size_resize": 64, "size_crop": 64}
        embedder = PatchCore("squeezenet1_1", weights="random", **size).embedder
        fits(capacity)
        assert len(embedder.embed(np.zeros((3, 64, 64, 3), np.uint8))) == 3
        fits(0)
        with pytest.raises(torch.OutOfMemoryError):
            embedder.embed(np.zeros((3, 64, 64, 3), np.uint8))

    def test_a_batch_is_halved_until_it_fits(self, monkeypatch):
        size = {"size_resize": 64, "size_crop": 64}
        embedder, sizes = PatchCore("squeezenet1_1", weights="random", **size).embedder, []

        def only_one(batch, size):
            sizes.append(size)
            return batch if size == 1 else None

        monkeypatch.setattr(embedder, "_embed_parts", only_one)
        batch = np.zeros((7, 64, 64, 3), np.uint8)
        assert embedder.embed(batch) is embedder.embed(batch) is batch
        assert sizes == [7, 4, 2, 1, 1]

    def test_not_even_one_image_fits(self, run, fits, capsys):
        fits(0)
        folder = run(status=main.WRONG_USAGE)
        expected = "error: out of memory (--batch_size, --memory_budget; on a GPU --device cpu)"
        assert last_error(capsys).startswith(expected)
        assert read_run(folder)["state"].startswith("stopped: CUDA out of memory")


@pytest.fixture
def fail_write(monkeypatch) -> Callable[..., None]:
    """Let the n-th write of a file fail, for the errors of full disks and read-only folders."""
    writes = {name: getattr(Path, name) for name in ("write_bytes", "write_text")}

    def fail_write(number: int, error: int = errno.ENOSPC) -> None:
        left = [number]

        def failing(write):
            def written(self, *arguments, **options):
                left[0] -= 1
                if left[0] == 0:
                    write(self, arguments[0][:3])  # what found room
                    raise OSError(error, os.strerror(error), str(self))
                return write(self, *arguments, **options)

            return written

        for name, write in writes.items():
            monkeypatch.setattr(Path, name, failing(write))

    return fail_write


class TestFullDisk:
    def check(self, folder: Path, capsys: pytest.CaptureFixture, error: int) -> None:
        assert os.strerror(error) in last_error(capsys)
        assert not list(folder.rglob(".*.partial"))
        for path in folder.rglob("*.json"):
            json.loads(path.read_text())  # complete

    @pytest.mark.parametrize("step", [8, slow(1)])
    def test_at_any_write_of_an_evaluation(self, run, tmp_path, capsys, fail_write, step):
        whole = run("--categories gadget --path_trained " + str(tmp_path / "whole"), folder="whole")
        for number in range(1, 100, step):
            folder = f"result{number}"
            flags = f"--categories gadget --path_trained {tmp_path / folder / 'trained'}"
            fail_write(number)
            try:
                run(flags, status=main.WRONG_USAGE, folder=folder)
            except AssertionError:  # all were written before
                break
            self.check(tmp_path / folder, capsys, errno.ENOSPC)
            fail_write(0)
            run(flags, folder=folder)
            assert measured(tmp_path / folder) == measured(whole)
        assert number > 10

    @pytest.mark.parametrize("error", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
    def test_other_errors_of_writing(self, run, capsys, fail_write, error):
        fail_write(1, error)
        folder = run(status=main.WRONG_USAGE)
        self.check(folder, capsys, error)

    def test_no_place_for_models(self, run, tmp_path, capsys):
        (tmp_path / "file").touch()
        folder = run(f"--path_trained {tmp_path / 'file'}", status=main.WRONG_USAGE)
        assert "expected a folder to write trained models to" in last_error(capsys)
        assert not folder.exists()

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
    def test_of_the_predictions(self, trained, data, tmp_path, capsys, monkeypatch):
        class Full(PredictionFiles):
            def __init__(self, folder):
                super().__init__(folder)
                self._csv.close()
                self._csv = Path("/dev/full").open("w")  # noqa: SIM115 - closed by the base

        monkeypatch.setattr(judge_module, "PredictionFiles", Full)
        words = ["--path_trained", trained, "--path_result", tmp_path / "judged"]
        assert call("infer", data / "gadget/test", *words) == main.WRONG_USAGE
        error = last_error(capsys)
        assert error.endswith("No space left on device (--path_result)")
        assert "cannot write predictions" in error
        assert read_run(tmp_path / "judged")["state"].startswith("stopped: cannot write")


@pytest.fixture
def trained(data, tmp_path) -> Path:
    """Return the folder of a trained model of `gadget`."""
    words = quick("--path_data", str(data), "--path_trained", str(tmp_path / "trained"))
    at = words.index("--pictures")
    assert call("train", *words[:at], *words[at + 2 :], "--categories", "gadget") == 0
    (path,) = (tmp_path / "trained").rglob("model.json")
    return path.parent


class TestDamagedModel:
    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("model.json", "expected the record of a trained model, found no JSON in"),
            ("model.safetensors", "model.safetensors"),
        ],
    )
    def test_is_named(self, trained, data, tmp_path, capsys, name, message):
        truncate(trained / name)
        words = ["--path_trained", trained, "--path_result", tmp_path / "judged"]
        assert call("infer", data / "gadget/test", *words) == main.WRONG_USAGE
        error = last_error(capsys)
        assert message in error
        assert str(trained) in error


class TestInputOfInfer:
    def test_an_image_that_vanishes_meanwhile(self, trained, data, tmp_path, monkeypatch):
        path, read = data / "gadget/test/good/001.png", judge_module.Judge._read

        def vanish(inference, item):
            path.unlink(missing_ok=True)
            return read(inference, item)

        monkeypatch.setattr(judge_module.Judge, "_read", vanish)
        words = ["--path_trained", trained, "--path_result", tmp_path / "judged"]
        assert call("infer", data / "gadget/test", *words, "--num_workers", 0) == main.WRONG_USAGE
        rows = read_table(tmp_path / "judged/predictions.csv")
        (row,) = (row for row in rows if row["verdict"] == "error")
        assert row["error"] == f"cannot read {path}: No such file or directory"
        assert len(rows) == 6


class TestMachine:
    """Each is a process of its own, with limits and an environment of its own."""

    def start(self, arguments: list[str], prepare: Callable | None = None, **environment: str):
        return subprocess.run(
            [sys.executable, str(ROOT / "main.py"), *arguments],
            capture_output=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
            preexec_fn=prepare,
        )

    @pytest.mark.parametrize("limit", ["RLIMIT_AS", slow("RLIMIT_DATA")])
    def test_too_little_memory_to_import_anything(self, limit):
        resource = pytest.importorskip("resource")
        size = 2**26 if limit == "RLIMIT_DATA" else 2**27
        process = self.start(
            ["infer", "x.png"], lambda: resource.setrlimit(getattr(resource, limit), (size, size))
        )
        assert process.returncode in (main.WRONG_USAGE, main.CRASHED), process.stderr
        assert process.stdout == b""

    @pytest.mark.slow
    def test_a_locale_without_unicode_and_folders_that_cannot_be_written(self, tmp_path):
        make_category(tmp_path / "data", "größe 图")
        arguments = ["--path_data", str(tmp_path / "data"), "--path_result", str(tmp_path / "r")]
        environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        environment |= {"HOME": "/dev/null/home", "MPLCONFIGDIR": "/dev/null/matplotlib"}
        flags = ["--pictures", "worst", "--pictures_limit", "1"]
        process = self.start(quick(*arguments, *flags), **environment)
        assert process.returncode == 0, process.stderr
        # Names from such a file system are no text to Python; the files keep their names.
        assert b"| gr\\udcc3\\udcb6" in process.stdout
        assert names(tmp_path / "r", "localization_größe 图_*.png")

    @pytest.mark.slow
    def test_few_file_descriptors(self, data, tmp_path):
        resource = pytest.importorskip("resource")
        folder = tmp_path / "result"
        arguments = quick("--path_data", str(data), "--path_result", str(folder))
        limit = resource.RLIMIT_NOFILE
        process = self.start(arguments, lambda: resource.setrlimit(limit, (6, 6)))
        lines = process.stderr.decode().splitlines()
        assert process.returncode == main.WRONG_USAGE, lines
        assert lines[-1].startswith("error: ")
        assert "Too many open files" in lines[-1]


def test_a_repeated_run_that_skips_an_image_again_has_its_status(gadget, run, tmp_path):
    truncate(gadget / "train/good/003.png")
    folder = run(f"{SKIP} --categories gadget", status=LEFT_OUT)
    with without_plots():
        assert call("rerun", folder, "--path_result", tmp_path / "again") == LEFT_OUT
    assert results_digest(read_rows(folder)) == results_digest(read_rows(tmp_path / "again"))
