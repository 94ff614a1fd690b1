"""A run goes on from what earlier runs into the same folder have finished."""

import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import main
from datasets.base import GOOD, Category, Sample, UnusableFilesError
from tests.support import (
    ROOT,
    call,
    evaluate,
    make_category,
    make_data,
    names,
    quick,
    read_run,
    read_table,
    truncate,
    without_plots,
    write_image,
)
from tests.utils.report.test_page import data_of
from utils.errors import LEFT_OUT
from utils.pipeline import evaluate_one
from utils.pipeline import finished as finished_categories
from utils.pipeline.finished import (
    FinishedCategory,
    data_state,
    digest_of_samples,
    first_difference,
)
from utils.result_folder import ResultFolder

FIGURES = "--pictures worst --pictures_limit 1 --explain_top 1"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    """Return the result folder of a complete run with figures."""
    return evaluate(data, tmp_path_factory.mktemp("finished"), FIGURES, plots=True)


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    """Return a copy of it, which a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "result"))


def contents(folder: Path) -> dict[str, bytes]:
    """Return all results but the times: tables without their seconds, figures as they are."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name.startswith(("finished", "earlier")) or name == "run.json":
            continue
        if name == "results.csv":
            found[name] = without_seconds(path.read_text())
        elif name not in ("tables.md", "index.html", "run.log", ".lock"):  # name times, the start
            found[name] = path.read_bytes()
    return found


def contents_of_models(folder: Path) -> dict[str, object]:
    """Return all files of trained models without the time at which they were made."""
    found: dict[str, object] = contents(folder)
    for name, content in found.items():
        if name.endswith("model.json"):
            record = json.loads(content)
            found[name] = {k: v for k, v in record.items() if k not in ("created", "digest")}
    return found


def without_seconds(text: str) -> bytes:
    rows = list(csv.DictReader(io.StringIO(text)))
    return repr([{k: v for k, v in row.items() if "seconds" not in k} for row in rows]).encode()


def test_the_same_command_computes_nothing_again(data, finished, folder, computed, caplog):
    before = (folder / "results.csv").read_bytes()
    evaluate(data, folder, FIGURES, plots=True)
    assert computed == []
    assert (folder / "results.csv").read_bytes() == before  # with the times measured then
    assert contents(folder) == contents(finished)
    assert not (folder / "earlier").exists()
    assert "resuming from the results of 2 categories" in caplog.text
    for key in ("memory", "state", "weights_digest"):
        assert read_run(folder)[key] == read_run(finished)[key]


def test_tables_and_page_are_those_of_one_run(data, finished, folder):
    evaluate(data, folder, FIGURES, plots=True)
    for name in ("tables.md", "index.html"):
        one, two = (where / name for where in (finished, folder))
        start_one, start_two = (read_run(where)["start"] for where in (finished, folder))
        command_one, command_two = (read_run(where)["command"] for where in (finished, folder))
        assert command_one == command_two
        assert two.read_text().replace(start_two, start_one) == one.read_text()


@pytest.mark.parametrize(
    "flags", ["--num_workers 2 --batch_size 3 --device cpu", "--profile", "--pictures none"]
)
def test_flags_that_change_no_number_do_not_matter(data, folder, computed, flags):
    evaluate(data, folder, f"{FIGURES} {flags}" if "none" not in flags else flags)
    assert computed == []


def test_more_categories_percentages_seeds_and_shots_add_rows(tmp_path, data, computed):
    folder = tmp_path / "result"
    for flags in (
        "--categories widget",
        "--categories gadget",
        "--percentage_coreset 0.2",
        "--percentage_coreset 0.1 0.2 --seed 0 1",
        "--percentage_coreset 0.1 0.2 --seed 0 1 --shots 2",
    ):
        evaluate(data, folder, flags)
    assert computed == ["widget", "gadget", *["gadget", "widget"] * 3]
    together = tmp_path / "together"
    evaluate(data, together, "--percentage_coreset 0.1 0.2 --seed 0 1")
    evaluate(data, together, "--percentage_coreset 0.1 0.2 --seed 0 1 --shots 2")
    rows = {without_seconds(file.read_text()) for file in tmp_path.glob("*/results.csv")}
    assert len(rows) == 1
    assert len(read_table(folder)) == 2 * 2 * 2 * 2
    assert not (folder / "earlier").exists()


def test_rows_that_are_added_ignore_the_same_pixels(tmp_path, data):
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    flags = f"--ignore_mask {write_image(tmp_path / 'mask.png', mask)} --percentage_coreset"
    folder = evaluate(data, tmp_path / "apart", f"{flags} 0.1")
    evaluate(data, folder, f"{flags} 0.1 0.2")
    together = evaluate(data, tmp_path / "together", f"{flags} 0.1 0.2")
    assert contents(folder) == contents(together)


def test_rows_are_in_the_order_of_the_command(data, folder):
    evaluate(data, folder, f"{FIGURES} --categories widget gadget")
    assert [row["category"] for row in read_table(folder)] == ["widget", "gadget"]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--sigma 3", "sigma is 3.0, was 4.0"),
        ("--k 2", "k is 2, was 1"),
        ("--aupro_limit 0.2", "aupro_limit is 0.2, was 0.3"),
        ("--backbone resnet18 --layers layer2", "backbone is resnet18, was squeezenet1_1"),
        ("--fresh", "--fresh"),
    ],
)
def test_other_settings_start_anew(data, folder, computed, caplog, flags, reason):
    evaluate(data, folder, flags)
    assert computed == ["gadget", "widget"]
    (earlier,) = (folder / "earlier").iterdir()
    assert (earlier / "index.html").is_file()
    (line,) = (r.getMessage() for r in caplog.records if "earlier run in" in r.getMessage())
    assert str(earlier) in line
    assert reason in line
    assert " MB" in line


def test_other_data_start_anew(tmp_path, computed, caplog):
    data, folder = make_data(tmp_path / "data"), tmp_path / "result"
    evaluate(data, folder)
    make_category(data, "gadget", seed=5)
    evaluate(data, folder)
    assert computed == ["gadget", "widget"] * 2
    assert f"{data}/gadget/train/good/000.png has changed" in caplog.text


@pytest.mark.parametrize("change", ["new", "gone"])
def test_other_files_start_anew(tmp_path, computed, caplog, change):
    data, folder = tmp_path / "data", tmp_path / "result"
    image = make_category(data) / "train/good/005.png"
    evaluate(data, folder)
    if change == "new":
        shutil.copy(image, image.with_stem("006"))
    else:
        image.unlink()
    evaluate(data, folder)
    assert computed == ["widget"] * 2
    assert "among the files of widget" in caplog.text


def test_files_that_were_only_copied_are_the_same(tmp_path, computed):
    """Their times differ, and their contents do not."""
    data, folder = tmp_path / "data", tmp_path / "result"
    make_category(data)
    evaluate(data, folder)
    for path in data.rglob("*.png"):
        os.utime(path, (1, 1))
    evaluate(data, folder)
    assert computed == ["widget"]


def test_the_same_files_under_other_names_are_the_same(tmp_path, computed, monkeypatch):
    """Also those that were skipped, and masks."""
    truncate(make_category(tmp_path / "a/data") / "train/good/003.png")
    (tmp_path / "link").symlink_to("a/data")
    flags = quick("--path_result", str(tmp_path / "result"), "--on_error", "skip")
    for folder, name in (("a", "data"), (".", "a/data"), (".", "link"), ("a", tmp_path / "a/data")):
        monkeypatch.chdir(tmp_path / folder)
        with without_plots():
            assert call(*flags, "--path_data", name) in (0, LEFT_OUT)
    assert computed == ["widget"] * 2  # the second time without the image that is skipped
    assert not (tmp_path / "result/earlier").exists()


def test_figures_that_are_asked_for_later_are_drawn(tmp_path, data, finished, computed):
    folder = evaluate(data, tmp_path / "result")
    evaluate(data, folder, FIGURES, plots=True)
    assert computed == ["gadget", "widget"] * 2
    assert contents(folder) == contents(finished)


def test_figures_that_other_flags_choose_are_drawn_and_say_why(data, folder, computed, caplog):
    caplog.set_level("INFO")
    evaluate(data, folder, FIGURES.replace("1", "2", 1))
    assert computed == ["gadget", "widget"]
    reason = "finished by an earlier run, computed again: pictures_limit of the figures is 2, was 1"
    assert f"gadget: {reason}" in caplog.text


def test_figures_of_other_percentages_stay_in_the_report(data, folder):
    """Also if other flags have chosen them: they show results that are still in the tables."""
    evaluate(data, folder, "--percentage_coreset 0.2 --pictures worst --pictures_limit 2")
    page = data_of((folder / "index.html").read_text())
    views = {(view["category"], view["setting"]) for view in page["views"]}
    assert views == {(name, share) for name in ("gadget", "widget") for share in ("0.1", "0.2")}


def test_a_new_percentage_leaves_finished_ones_alone(data, folder, monkeypatch):
    compute, shares = evaluate_one.evaluate_category, []

    def noted(model, name, category, options, engine):
        shares.append(options.percentage_coreset)
        return compute(model, name, category, options)

    monkeypatch.setattr(evaluate_one, "evaluate_category", noted)
    evaluate(data, folder, f"{FIGURES} --percentage_coreset 0.1 0.2", plots=True)
    assert shares == [(0.2,), (0.2,)]
    assert names(folder, "localization_*_p0100_*")
    assert names(folder, "localization_*_p0200_*")


def test_curves_of_fewer_categories_are_removed(data, tmp_path):
    folder = tmp_path / "result"
    for flags in ("--categories widget", "--categories widget gadget --shots 2", ""):
        evaluate(data, folder, flags, plots=True)
    for kind in ("roc", "pr", "pro"):
        assert len(names(folder, f"{kind}-curve_p0100_k01_[!s]*.png")) == 1
        assert len(names(folder, f"{kind}-curve_p0100_k01_shots002_*.png")) == 1


def test_an_earlier_run_without_a_finished_category_is_moved_and_says_why(data, folder, caplog):
    shutil.rmtree(folder / "finished")
    evaluate(data, folder)
    assert " MB: it has no finished category" in caplog.text


def test_a_run_that_cannot_begin_leaves_no_folder(data, tmp_path, capsys):
    folder = tmp_path / "result"
    arguments = ["--path_data", str(data), "--path_result", str(folder), "--layers", "none"]
    assert call(*quick(*arguments)) == main.WRONG_USAGE
    assert "none" in capsys.readouterr().err
    assert not folder.exists()


def test_files_of_other_programs_are_no_partial_files(folder):
    for name in (".notes.partially", ".0.png.17.partial", ".clip.partial.mp4"):
        (folder / name).touch()
    saved = folder / "trained/cap/.net.host.17.partial"  # by `train`, which may go on
    saved.mkdir(parents=True)
    ResultFolder(folder).remove_partial_files()
    assert names(folder, ".*part*") == {".notes.partially"}
    assert saved.is_dir()


def test_figures_of_every_percentage_are_drawn(tmp_path, data):
    """Also if one was measured without figures, and another one with these."""
    folder, both = tmp_path / "result", "--percentage_coreset 0.1 0.2 --categories gadget"
    evaluate(data, folder, both)
    evaluate(data, folder, f"{FIGURES} --percentage_coreset 0.1 --categories gadget", plots=True)
    evaluate(data, folder, f"{FIGURES} {both}", plots=True)
    drawn = [path.name for path in folder.glob("localization_*")]
    assert [any(tag in name for name in drawn) for tag in ("p0100", "p0200")] == [True, True]


def test_models_and_maps_that_are_asked_for_later_are_written(tmp_path, data, folder, computed):
    flags = f"{FIGURES} --path_trained {tmp_path / 'trained'} --save_maps"
    evaluate(data, folder, flags)
    assert computed == ["gadget", "widget"]
    evaluate(data, folder, flags)
    assert computed == ["gadget", "widget"]
    shutil.rmtree(tmp_path / "trained/widget")
    (maps,) = folder.glob("maps_gadget_*.npz")
    maps.unlink()
    evaluate(data, folder, flags)
    assert computed == ["gadget", "widget"] * 2
    assert maps.is_file()
    assert len(list((tmp_path / "trained").rglob("model.json"))) == 2


def test_a_model_that_another_run_has_replaced_is_written_again(tmp_path, data, computed, caplog):
    caplog.set_level("INFO")
    flags, trained = f"--path_trained {tmp_path / 'trained'}", tmp_path / "trained"
    folder = evaluate(data, tmp_path / "result", flags)
    before = contents_of_models(trained)
    evaluate(data, tmp_path / "other", f"{flags} --sigma 2 --categories widget")
    assert contents_of_models(trained) != before
    del computed[:]
    evaluate(data, folder, flags)
    assert computed == ["widget"]
    assert "widget: finished by an earlier run, computed again: " in caplog.text
    assert "was made with other flags or by another run" in caplog.text
    assert contents_of_models(trained) == before


@pytest.mark.parametrize("damage", ["cut", "digit", "nested", "long"])
def test_a_damaged_record_is_reported_and_its_category_computed_anew(
    data, finished, folder, computed, caplog, monkeypatch, damage
):
    (path,) = (folder / "finished").glob("widget*")
    text = path.read_text()
    if damage == "cut":
        truncate(path)
    elif damage == "long":
        path.write_text(text + " " * 10_000)
        monkeypatch.setattr(finished_categories, "MAX_BYTES", len(text) + 5_000)
    else:
        path.write_text("[" * 100_000 if damage == "nested" else text.replace("0.1", "0.2", 1))
    evaluate(data, folder, FIGURES, plots=True)
    assert computed == ["widget"]
    assert f"{path} is damaged" in caplog.text
    assert contents(folder) == contents(finished)


@pytest.mark.parametrize("before", [None, (1, 0, "")])
def test_a_file_that_could_not_be_read_before_or_cannot_now_has_changed(tmp_path, before):
    path = tmp_path / "0.png"
    category = Category("cap", (Sample(path, "cap", GOOD),), (), has_masks=False)
    if before is None:
        finished_categories.check_unchanged(category, {str(path): None})
        path.write_bytes(b"1")
    with pytest.raises(UnusableFilesError, match=f"stay unchanged .*, found changes in {path}"):
        finished_categories.check_unchanged(category, {str(path): before})


def test_the_same_files_with_other_labels_are_other_data(tmp_path):
    (path := tmp_path / "0.png").write_bytes(b"1")
    before, now = (
        Category("cap", (), (Sample(path, "cap", kind),), has_masks=False)
        for kind in (GOOD, "hole")
    )
    digest, state = digest_of_samples(before), data_state(before)
    finished = FinishedCategory("cap", {}, digest, state, rows=(), measurements=())
    assert [first_difference(finished, {}, category) for category in (before, now)] == [
        "",
        "the list of images, labels and masks of cap has changed",
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("nothing", ""),
        ("gone", "{b} is no longer among the files of cap"),
        ("new", "{c} is new among the files of cap"),
        ("changed", "{b} has changed"),
        ("order", "the list of images, labels and masks of cap has changed"),
        ("skipped", "{d} was skipped and has changed"),
    ],
)
def test_the_first_difference_of_the_data_is_named(tmp_path, change, expected):
    paths = {name: tmp_path / f"{name}.png" for name in "abcd"}
    for path in paths.values():
        path.write_bytes(b"1")

    def category(names):
        samples = tuple(Sample(paths[name], "cap", GOOD) for name in names)
        return Category("cap", samples, (), has_masks=False)

    before, skipped = category("ab"), {str(paths["d"]): (1, 0, "")}
    if change != "skipped":
        skipped = finished_categories.states_of(skipped)
    finished = FinishedCategory(
        *("cap", {}, digest_of_samples(before), data_state(before)),
        rows=(),
        measurements=(),
        skipped=skipped,
    )
    if change == "changed":
        paths["b"].write_bytes(b"2")
        os.utime(paths["b"], ns=(1, 1))
    now = category({"gone": "ad", "new": "abcd", "order": "bad"}.get(change, "abd"))
    assert first_difference(finished, {}, now) == expected.format_map(paths)
    assert first_difference(finished, {}, None) == ""


def test_a_record_that_is_too_large_is_not_read(tmp_path, monkeypatch, caplog):
    work = finished_categories.FinishedWork(ResultFolder(tmp_path))
    work.write(FinishedCategory("cap", {}, "", {}, rows=(), measurements=()))
    (path,) = tmp_path.rglob("*.json")
    size = path.stat().st_size
    for limit, found in ((size, ["cap"]), (size - 1, [])):
        monkeypatch.setattr(finished_categories, "MAX_BYTES", limit)
        assert list(work.read()) == found
    assert f"{path} is damaged (ValueError)" in caplog.text


class Killed(BaseException):
    """Ends a run at once, as SIGKILL does."""


@pytest.mark.parametrize("after", [1, 5, 18])
def test_a_run_that_was_killed_at_any_write_ends_as_if_it_had_not_been(
    data, finished, tmp_path, monkeypatch, after
):
    folder, write, left = tmp_path / "result", ResultFolder.write_bytes, after

    def killed(self, name, content):
        nonlocal left
        left -= 1
        if left <= 0:
            (self.path / f".{name.replace('/', '.')}.1.partial").write_bytes(content[:10])
            raise Killed
        return write(self, name, content)

    with monkeypatch.context() as patched:
        patched.setattr(ResultFolder, "write_bytes", killed)
        with pytest.raises(Killed):
            call(*quick("--path_data", data, "--path_result", folder, *FIGURES.split()))
    evaluate(data, folder, FIGURES, plots=True)
    # Figures without a record of their category are those of a run that is gone.
    shutil.rmtree(folder / "earlier", ignore_errors=True)
    assert contents(folder) == contents(finished)


def test_an_interrupted_run_says_what_is_finished(data, tmp_path, monkeypatch, caplog):
    compute = evaluate_one.evaluate_category

    def interrupted(model, name, category, options, engine):
        if category.name == "widget":
            raise KeyboardInterrupt(signal.SIGTERM)
        return compute(model, name, category, options)

    monkeypatch.setattr(evaluate_one, "evaluate_category", interrupted)
    folder = tmp_path / "result"
    paths = ["--path_data", data, "--path_result", folder]
    assert call(*quick(*map(str, paths))) == 128 + signal.SIGTERM
    assert read_run(folder)["state"] == "interrupted"
    assert (
        f"finished: 1 of 2 categories in {folder}; the same command computes the rest"
        in caplog.text
    )


def test_a_category_that_is_too_small_ends_a_run_before_another_is_computed(tmp_path, computed):
    data = make_data(tmp_path / "data")
    for path in sorted((data / "widget/train/good").iterdir())[1:]:
        path.unlink()
    words = quick("--path_data", data, "--path_result", tmp_path / "result")
    words += ["--percentage_coreset", "0.004"]  # of 225 patches none, of 1350 five
    assert call(*words) == main.WRONG_USAGE
    assert computed == []
    assert call(*words, "--on_error", "skip") == LEFT_OUT
    assert computed == ["gadget", "widget"]


def test_a_second_run_into_the_same_folder_is_refused(data, folder, capsys):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from utils.locks import lock_folder\n"
            "with lock_folder(Path(sys.argv[1]), '--path_result'): print(1, flush=True); "
            "time.sleep(60)",
            folder,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    try:
        holder.stdout.readline()
        before = contents(folder)
        arguments = ["--path_data", data, "--path_result", folder, "--fresh"]
        assert call(*quick(*map(str, arguments))) == main.WRONG_USAGE
        error = capsys.readouterr().err
        assert f"found {folder} in use by process {holder.pid} on " in error
        assert "(--path_result)" in error
        assert contents(folder) == before
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    evaluate(data, folder, FIGURES)  # the lock of a killed process does not count


def processes_of(session: int) -> list[int]:
    """Return the processes of a session, its leader first."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes cannot be listed")
def test_processes_killed_at_random_moments_leave_nothing_behind(data, tmp_path):
    """Of 20 runs with processes that draw, each loses the main process or one of these."""
    folder, models = tmp_path / "result", tmp_path / "trained"
    # Enough figures for processes of their own.
    flags = "--percentage_coreset 0.05 0.1 0.2 0.3 --pictures all --explain_top 0 --num_workers 2"
    arguments = quick("--path_data", str(data), *flags.split())
    command = [sys.executable, ROOT / "main.py", *arguments, "--path_result"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    killed: Counter[str] = Counter()
    rng = random.Random(0)

    def start(where: Path, trained: Path) -> subprocess.Popen:
        return subprocess.Popen(
            [*command, where, "--path_trained", trained],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )

    begin = time.monotonic()
    assert start(tmp_path / "whole", tmp_path / "whole_trained").wait() == 0
    seconds = time.monotonic() - begin
    for number in range(20):
        process = start(folder, models)
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0.2, 1) * seconds)
        others = processes_of(process.pid)[1:]
        if number % 2 and others:
            os.kill(rng.choice(others), signal.SIGKILL)
            killed["another process"] += 1
            assert process.wait() in (0, main.WRONG_USAGE)  # it draws itself what is missing
        else:
            process.kill()
            killed["the main process"] += process.wait() == -signal.SIGKILL
        for _ in range(600):  # a process that is importing ends when it has started
            if not (left := processes_of(process.pid)):
                break
            time.sleep(0.1)
        assert left == []
        if number % 4 == 3:  # the rest would have nothing to do
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(models, ignore_errors=True)
    assert start(folder, models).wait() == 0
    shutil.rmtree(folder / "earlier", ignore_errors=True)
    assert contents(folder) == contents(tmp_path / "whole")
    assert contents_of_models(models) == contents_of_models(tmp_path / "whole_trained")
    assert names(tmp_path / "temporary", "pymp-*") == set()  # folders of processes
    print(dict(killed), f"of runs of {seconds:.0f} s")
