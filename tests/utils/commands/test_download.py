"""`main.py datasets` and `main.py download`: from the list to a folder for --path_data."""

import errno
import hashlib
import logging
import sys
import zipfile
from io import StringIO
from pathlib import Path
from unittest import mock

import pytest
from tqdm import tqdm

import main
from datasets import transport
from datasets.downloads import DOWNLOADS, NEEDS_FORM, Download, find_published, listed
from datasets.published import PUBLISHED
from datasets.transport import RemoteFile
from tests.datasets.test_transport import Server, whole
from tests.support import call, names
from utils.commands import download as command
from utils.commands.datasets import describe

ARGUMENTS = ("download", "btad", "--accept_licence", "--to")


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("top/01/train/ok/0.png", b"1")
        file.writestr("top/01/test/ok/1.png", b"2")
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.fixture
def serve(archive, monkeypatch):
    """Return a function that lets a server give the archive as that of a dataset."""
    server = Server()
    server.answers = [lambda handler: whole(handler, archive)]

    def as_dataset(key: str = "btad", **known) -> Server:
        known_archive = Download("x.zip", RemoteFile(server.url, **known), top="top")
        monkeypatch.setattr(command, "DOWNLOADS", {key: known_archive})
        return server

    yield as_dataset
    server.close()


def check_error(capsys, message: str, *arguments: object) -> None:
    assert call(*arguments) == main.WRONG_USAGE
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error


class TestList:
    def test_every_dataset_has_a_line_with_its_licence_and_address(self, capsys):
        assert call("datasets") == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
        assert len(lines) == len({dataset.name for dataset in PUBLISHED})
        for line, dataset in zip(lines, listed(), strict=True):
            for text in (dataset.key, dataset.name, dataset.licence, dataset.address):
                assert text in line
        assert "| visa | VisA | 12 | 10821 | CC BY 4.0 |" in "\n".join(lines)
        assert "python main.py download visa |" in "\n".join(lines)
        with_form = [line for line in lines if "form at the address" in line]
        assert with_form[0] == lines[0]
        assert len(with_form) == len(NEEDS_FORM)
        assert any(line.endswith("| at the address |") for line in lines)

    def test_a_terminal_gets_no_table(self, capsys, monkeypatch):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", "90")
        assert call("datasets") == 0
        assert capsys.readouterr().out == describe(listed(), 90) + "\n"

    def test_it_takes_no_arguments(self, capsys):
        check_error(capsys, "unrecognized arguments: visa", "datasets", "visa")

    @pytest.mark.parametrize("width", [60, 100, 200])
    def test_a_terminal_gets_paragraphs_of_its_width(self, width):
        shown = describe(listed(), width)
        for line in shown.splitlines():
            assert len(line) <= width or len(line.split()) == 1  # an address
        assert len(shown.split("\n\n")) == len(listed())
        for dataset in listed():
            (text,) = [text for text in shown.split("\n\n") if text.startswith(f"{dataset.key} ")]
            first, *others = text.splitlines()
            start = first.index(dataset.name.split()[0], len(dataset.key))
            assert start >= len(dataset.key) + 2
            assert all(line[:start].isspace() and not line[start].isspace() for line in others)
            assert dataset.address in text.split()

    def test_addresses_and_digests_are_of_known_datasets(self):
        keys = {dataset.key for dataset in PUBLISHED}
        assert keys >= NEEDS_FORM | set(DOWNLOADS)
        for key, known in DOWNLOADS.items():
            assert known.remote.url.startswith("https://") != (key in NEEDS_FORM)
            assert len(known.remote.sha256) in (0, 64)

    @pytest.mark.parametrize("name", ["mvtec", "mvtec_ad", "MVTec AD", "mvtec-ad"])
    def test_names_in_any_spelling(self, name):
        assert find_published(name).key == "mvtec_ad"


class TestDownload:
    def test_it_is_unpacked_and_the_archive_removed(self, serve, tmp_path, archive, caplog):
        serve(size=len(archive), sha256=hashlib.sha256(archive).hexdigest())
        assert call(*ARGUMENTS, tmp_path / "data") == 0
        assert {p.parent.name for p in (tmp_path / "data").rglob("*.png")} == {"ok"}
        assert names(tmp_path, "*") == {"data"}
        licence = find_published("btad").licence
        assert caplog.messages[0].startswith(f"BTAD, licence {licence}, from http://127.0.0.1:")
        assert f"BTAD: 2 files in {tmp_path / 'data'}" in caplog.messages
        assert "no digest" not in caplog.text

    def test_a_terminal_sees_the_share_of_the_bytes(self, serve, tmp_path, monkeypatch, archive):
        def show(total: int, text: str, unit: str) -> tqdm:
            return tqdm(total=total, desc=text, unit=unit, file=seen, mininterval=0)

        seen = StringIO()
        monkeypatch.setattr(command, "show_progress", show)
        monkeypatch.setattr(transport, "PIECE", 100)
        serve()
        assert call(*ARGUMENTS, tmp_path / "data") == 0
        assert "x.zip: 100%|" in seen.getvalue()
        assert f"| {len(archive)}/{len(archive)} [" in seen.getvalue()

    def test_the_archive_can_be_kept(self, serve, tmp_path, archive):
        serve()
        assert call(*ARGUMENTS, tmp_path / "data", "--keep_archive") == 0
        assert (tmp_path / "x.zip").read_bytes() == archive

    def test_a_digest_that_is_not_published_is_reported(self, serve, tmp_path, archive, caplog):
        serve()
        assert call(*ARGUMENTS, tmp_path / "data") == 0
        digest = hashlib.sha256(archive).hexdigest()
        (message,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert f"its SHA-256 is {digest}; give it as --sha256" in message

    def test_a_given_digest_replaces_what_is_published(self, serve, tmp_path, archive, capsys):
        serve(size=5, sha256="1" * 64)
        check_error(
            capsys,
            "expected SHA-256 " + "2" * 64,
            *ARGUMENTS,
            tmp_path / "data",
            "--sha256",
            "2" * 64,
        )
        assert not (tmp_path / "data").exists()
        digest = hashlib.sha256(archive).hexdigest()
        assert call(*ARGUMENTS, tmp_path / "data", "--sha256", digest) == 0

    def test_the_licence_is_shown_first(self, serve, tmp_path, capsys):
        server = serve()
        message = f"BTAD has a licence: {find_published('btad').licence} (https://avires.dimi"
        check_error(capsys, message, "download", "btad", "--to", tmp_path / "data")
        assert server.ranges == []

    def test_nothing_is_left_of_a_hostile_archive(self, serve, tmp_path, capsys):
        server = serve()
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
            file.writestr("../out.png", b"1")
        bad = (tmp_path / "bad.zip").read_bytes()
        server.answers = [lambda handler: whole(handler, bad)]
        check_error(capsys, "expected names inside", *ARGUMENTS, tmp_path / "deep/data")
        assert names(tmp_path / "deep", "*") == {"x.zip"}
        assert names(tmp_path, "*") == {"bad.zip", "deep"}

    def test_an_empty_folder_is_filled_and_another_one_or_a_file_left_alone(
        self, serve, tmp_path, capsys
    ):
        server = serve()
        (tmp_path / "file").touch()
        (tmp_path / "data").mkdir()
        (tmp_path / "data/own.png").write_bytes(b"1")
        for name in ("file", "data"):
            message = f"expected a new or an empty folder, found {tmp_path / name} (--to)"
            check_error(capsys, message, *ARGUMENTS, tmp_path / name)
        assert server.ranges == []
        (tmp_path / "data/own.png").unlink()
        assert call(*ARGUMENTS, tmp_path / "data") == 0
        assert len(list((tmp_path / "data").rglob("*.png"))) == 2

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("download --to x", "expected the NAME of a dataset and --to FOLDER"),
            ("download visa", "expected the NAME of a dataset and --to FOLDER"),
            ("download nothing --to x", "expected a dataset name (mvtec_ad, "),
            ("download visa --to x --sha256 12", "expected 64 hexadecimal digits as --sha256"),
            ("download visa --to x --archive none.zip", "found no file none.zip (--archive)"),
            ("download mvtec --to /", "expected a folder with a name, found / (--to)"),
            ("download mvtec --to x", "follow the form at https://www.mvtec.com"),
            ("download mpdd --to x", "follow the instructions at https://github.com/stepanje/MPDD"),
        ],
    )
    def test_wrong_usage(self, capsys, text, message):
        check_error(capsys, message, *text.split())


class TestArchive:
    def test_an_archive_of_the_user_is_unpacked_and_stays(self, tmp_path, archive, caplog):
        file = tmp_path / "mine.zip"
        file.write_bytes(archive)
        assert call("download", "mvtec", "--archive", file, "--to", tmp_path / "data") == 0
        assert file.read_bytes() == archive
        assert (tmp_path / "data/top/01/train/ok/0.png").is_file()
        assert "is not the known archive of MVTec AD: expected SHA-256 cf4313b1" in caplog.text

    def test_its_digest_can_be_given(self, tmp_path, archive, capsys, caplog):
        file = tmp_path / "mine.zip"
        file.write_bytes(archive)
        arguments = ("download", "mvtec", "--archive", file, "--to", tmp_path / "data")
        message = f"expected SHA-256 {'1' * 64} of {file} (--sha256), found"
        check_error(capsys, message, *arguments, "--sha256", "1" * 64)
        assert not (tmp_path / "data").exists()
        assert call(*arguments, "--sha256", hashlib.sha256(archive).hexdigest()) == 0
        assert "is not the known archive" not in caplog.text

    @pytest.mark.parametrize("is_known", [False, True])
    def test_it_is_read_only_if_its_digest_is_known(
        self, serve, tmp_path, archive, capsys, monkeypatch, is_known
    ):
        serve(sha256="1" * 64 if is_known else "")
        file = tmp_path / "mine.zip"
        file.write_bytes(archive)
        broken = mock.Mock(side_effect=OSError(errno.EIO, "Input/output error"))
        monkeypatch.setattr(command, "file_digest", broken)
        arguments = ("download", "btad", "--archive", file, "--to", tmp_path / "data")
        if is_known:
            check_error(capsys, f"cannot read {file}: Input/output error (--archive)", *arguments)
        else:
            assert call(*arguments) == 0
