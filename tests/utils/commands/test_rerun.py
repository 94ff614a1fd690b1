"""A run is repeated from its run.json, which chooses no code and no place to write to."""

import json
import re
import shutil
from pathlib import Path

import pytest

import main
from tests.support import (
    QUICK_NETWORK,
    call,
    evaluate,
    make_data,
    read_run,
    read_table,
    truncate,
)
from utils import run_record
from utils.machine import package_versions
from utils.results import measured, read_rows, results_digest

FLAGS = (
    "--seed 3 --percentage_coreset 0.05 0.1 --k 2 --categories widget --augment vertical --sigma 2 "
    "--threshold 0.5 --aupro_limit 0.2"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def recorded(data, tmp_path_factory) -> Path:
    return evaluate(data, tmp_path_factory.mktemp("recorded") / "result", FLAGS)


@pytest.fixture
def folder(recorded, tmp_path) -> Path:
    """Return a copy of the record and the results, for a test to change."""
    (tmp_path / "sent").mkdir()
    for name in ("run.json", "results.csv", "results_defects.csv"):
        (tmp_path / "sent" / name).write_bytes((recorded / name).read_bytes())
    return tmp_path / "sent"


def change(folder: Path, **options: object) -> Path:
    path = folder / "run.json"
    record = json.loads(path.read_text())
    record["options"] |= options
    path.write_text(json.dumps(record))
    return path


@pytest.fixture
def rerun(tmp_path, capsys):
    """Repeat a run; return the last line of its answer, or its error."""

    def rerun(path: Path, *flags: str, status: int) -> str:
        assert call("rerun", path, "--path_result", tmp_path / "new", *flags) == status
        out, err = capsys.readouterr()
        return out.splitlines()[-1] if out else err

    return rerun


def test_a_repeated_run_has_the_same_rows(recorded, rerun, tmp_path, caplog):
    answer = rerun(recorded / "run.json", status=0)
    assert answer == f"2 of 2 rows are equal to the recorded ones in {recorded / 'results.csv'}"
    before, after = (read_run(where)["options"] for where in (recorded, tmp_path / "new"))
    assert {k for k in after if before[k] != after[k]} == {"path_result"}
    rows = [list(map(measured, read_rows(where))) for where in (recorded, tmp_path / "new")]
    assert rows[0] == rows[1]
    assert "recorded is" not in caplog.text


def test_the_record_alone_is_compared_by_its_digest(folder, rerun):
    (folder / "results.csv").unlink()
    assert rerun(folder, status=0) == "2 rows, equal to the recorded ones, by their digest"
    assert read_run(folder)["results_digest"] == results_digest(read_rows(folder.parent / "new"))


def test_flags_override_and_are_reported(folder, rerun, tmp_path, caplog):
    (folder / "results.csv").unlink()
    flags = ("--sigma", "5", "--percentage_coreset", "0.05", "--categories", "gadget")
    answer = rerun(folder, *flags, status=1)
    assert answer == (
        "1 row cannot be compared: the record has only a digest of all its rows, and no "
        "results.csv is next to it"
    )
    assert "--sigma is 5.0, recorded is 2.0" in caplog.text
    assert "--categories is gadget, recorded is widget" in caplog.text
    (row,) = read_table(tmp_path / "new")
    assert (row["category"], row["seed"], row["k"]) == ("gadget", "3", "2")


def test_a_difference_is_reported_with_its_size(folder, rerun):
    path = folder / "results.csv"
    (first, *_) = (float(row["pixel_auroc"]) for row in read_table(folder))
    lines = path.read_text().splitlines()
    name = f"{first:.9g}"
    path.write_text("\n".join([*lines[:1], lines[1].replace(name, "0.25"), *lines[2:]]) + "\n")
    answer = rerun(folder, status=1)
    assert answer.startswith(
        f"1 of 2 rows are equal to the recorded ones, 1 different, by {first - 0.25:.3g} at most "
        f"(pixel_auroc of widget, {QUICK_NETWORK}, 5 %, seed 3)"
    )


def test_other_settings_are_different_by_their_digest(folder, rerun):
    (folder / "results.csv").unlink()
    answer = rerun(folder, "--sigma", "5", status=1)
    assert answer == "2 rows, different from the recorded ones, by their digest"


def test_fewer_rows_on_purpose_are_no_difference(folder, rerun):
    answer = rerun(folder, "--percentage_coreset", "0.05", status=0)
    assert answer.startswith("1 of 1 rows are equal to the recorded ones in ")


@pytest.fixture
def broken(data, tmp_path) -> Path:
    """Return a copy of the data in which the images of gadget are damaged."""
    root = Path(shutil.copytree(data, tmp_path / "broken"))
    for path in root.glob("gadget/train/*/*"):
        truncate(path)
    return root


@pytest.mark.parametrize("has_rows", [True, False])
def test_a_category_that_is_skipped_is_counted(data, broken, rerun, tmp_path, has_rows):
    folder = evaluate(data, tmp_path / "both")
    if not has_rows:
        (folder / "results.csv").unlink()
    change(folder, path_data=str(broken), on_error="skip")
    answer = rerun(folder, status=3 if has_rows else 1)
    if has_rows:
        beginning = "1 of 1 rows are equal to the recorded ones, 1 recorded but not repeated in "
        assert answer.startswith(beginning)
    else:
        assert answer.startswith("1 row cannot be compared: the record has only a digest")


def test_results_that_cannot_be_read_end_before_the_computation(folder, rerun, tmp_path):
    (folder / "results.csv").write_text((folder / "results.csv").read_text().replace(",", ";"))
    error = rerun(folder, status=2)
    assert "cannot find the column 'category'" in error
    assert not (tmp_path / "new").exists()


def test_results_that_were_edited_are_reported(folder, rerun, caplog):
    path = folder / "results.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    answer = rerun(folder, status=1)
    assert answer.startswith("1 of 2 rows are equal to the recorded ones, 1 not recorded in ")
    assert f"{path} has changed since its run wrote it" in caplog.text


def test_without_rows_and_digest_nothing_is_equal(folder, rerun):
    (folder / "results.csv").unlink()
    record = json.loads((folder / "run.json").read_text())
    del record["results_digest"]
    (folder / "run.json").write_text(json.dumps(record))
    assert rerun(folder, status=1).startswith("nothing to compare with: no results.csv")


@pytest.mark.parametrize("versions", [None, [], "torch 1.0", {"torch": "1.0"}])
def test_other_versions_are_reported(folder, rerun, caplog, versions):
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"versions": versions}))
    # The weights end the run before the data are listed.
    flags = ("--weights", "missing.pth", "--path_data", "nowhere")
    assert "no weights file missing.pth" in rerun(folder, *flags, status=2)
    found = "1.0" if isinstance(versions, dict) else "none"
    assert f"torch is {package_versions()['torch']}, recorded is {found}" in caplog.messages


def test_data_that_are_not_where_the_record_says(folder, rerun, data):
    """Such as those of a relative path that is given in another folder."""
    path = change(folder, path_data="gone")
    expected = "expected the data of the record, found nothing at gone: give their place"
    assert expected in rerun(path, status=2)
    assert rerun(path, "--path_data", data, status=0).startswith("2 of 2 rows are equal")


def test_a_protocol_is_no_change_of_a_run(folder, rerun):
    error = rerun(folder, "--protocol", "rad", status=2)
    assert "expected no --protocol: the settings are those of the record" in error


class TestWhatARecordCannotDo:
    @pytest.fixture(autouse=True)
    def elsewhere(self, tmp_path, monkeypatch):
        (tmp_path / "cwd").mkdir()
        monkeypatch.chdir(tmp_path / "cwd")
        yield
        assert list((tmp_path / "cwd").iterdir()) == []

    def test_choose_where_results_and_models_go(self, folder, rerun, tmp_path, caplog):
        change(folder, path_result="here", path_trained="there", fresh=True)
        assert call("rerun", folder) == main.WRONG_USAGE
        rerun(folder, status=0)
        assert "--path_trained is none, recorded is there" in caplog.text

    def test_name_a_network_to_import(self, folder, rerun, tmp_path):
        (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
        change(folder, backbone=["evil:network"])
        error = rerun(folder, status=2)
        assert re.search(
            "the record names evil:network, and code named in a file is never imported.*--backbone",
            error,
        )
        rerun(folder, "--backbone", QUICK_NETWORK, status=0)

    def test_choose_machines_to_connect_to(self, folder, rerun, tmp_path):
        change(folder, engine="ray", address="elsewhere.example:6379", task_cpus=1)
        rerun(folder, status=0)
        options = read_run(tmp_path / "new")["options"]
        assert [options[n] for n in ("engine", "address", "task_cpus")] == ["local", "", 0]

    def test_set_the_limits_of_the_machine(self, folder, rerun, tmp_path):
        change(folder, max_megapixels=1e9, num_workers=10**6, memory_budget=1e9)
        rerun(folder, status=0)
        options = read_run(tmp_path / "new")["options"]
        assert [options[n] for n in ("max_megapixels", "num_workers", "memory_budget")] == [
            *(250.0, -1, 0.0)
        ]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"nosuch": 1},
                "expected the options of an evaluation in .*, found unknown options: 'nosuch'",
            ),
            ({"k": "2"}, "cannot use k of .*: expected int, found '2'"),
            ({"k": True}, "cannot use k of .*: expected int, found True"),
            ({"k": 0}, r"expected k of at least 1, found 0 \(--k\)"),
            ({"seed": 3}, "cannot use seed of .*: expected a list, found 3"),
            ({"seed": [10**400]}, "expected seed in"),
            ({"sigma": 10**400}, "cannot use sigma of .*"),
            (
                {"size_resize": [72, 72, 72]},
                "size_resize of .*: expected at most 2 val",
            ),
            ({"image_score": "best"}, "image_score of .*: expected max_patch, .*, found 'best'"),
            ({"trained_dtype": "int8"}, "trained_dtype of .*: expected float32, float16, found"),
            ({"path_data": "a\0b"}, "path_data of .*: expected text without null bytes"),
            ({"weights": ["\ud800"]}, "cannot use weights of .*: .*surrogates not allowed"),
        ],
    )
    def test_have_other_options(self, folder, rerun, options, message):
        error = rerun(change(folder, **options), status=2)
        assert re.search(message, error)
        assert error.startswith("error: ")
        assert error.count("\n") == 1

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[" * 100_000, "maximum recursion depth"),
            ('{"a":' * 100_000, "maximum recursion depth"),
            ("[]", "expected the record of a run in"),
            ("{}", "expected the options of an evaluation in"),
            ('{"format": 2}', "expected format 1 in .*, found 2"),
            ("no", "cannot read"),
            (f'{{"format": {"9" * 5000}}}', "cannot read"),
        ],
    )
    def test_be_something_else(self, folder, rerun, text, message):
        (folder / "run.json").write_text(text)
        error = rerun(folder, status=2)
        assert re.search(message, error)
        assert error.count("\n") == 1

    def test_be_longer_than_any(self, folder, rerun, monkeypatch):
        monkeypatch.setattr(run_record, "MAX_BYTES", 10)
        error = rerun(folder, status=2)
        assert f"cannot read {folder / 'run.json'}: more than 10 bytes" in error

    def test_be_that_of_an_inference(self, folder, rerun):
        change(folder, path_export="x", frame_stride=2)
        assert "found unknown options: 'path_export', 'frame_stride'" in rerun(folder, status=2)


def test_older_records_lack_newer_options(folder, rerun, caplog):
    record = json.loads((folder / "run.json").read_text())
    del record["options"]["quiet"]
    (folder / "run.json").write_text(json.dumps(record))
    rerun(folder, status=0)
    assert "defaults are used: quiet" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected a result folder or its run.json as the first argument"),
        (("--k", "3"), "expected a result folder or its run.json as the first argument"),
        (("nowhere", "--path_result", "x"), "expected a result folder with run.json"),
    ],
)
def test_a_mistake_is_one_line(words, message, capsys):
    assert call("rerun", *words) == main.WRONG_USAGE
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_results_do_not_go_where_the_record_is(recorded, capsys):
    assert call("rerun", recorded, "--path_result", recorded) == main.WRONG_USAGE
    assert "expected a folder different from that of the record" in capsys.readouterr().err
