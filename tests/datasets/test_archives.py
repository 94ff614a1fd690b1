"""Archives are unpacked completely or not at all, and never outside their folder."""

import gzip
import io
import random
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from datasets import archives
from datasets.archives import Limits, unpack
from datasets.base import DatasetError

FILES = {"a/1.png": b"one", "a/b/2.png": b"", "größe 3.txt": b"three" * 1000}


def random_bytes(count: int) -> bytes:
    """Return the same bytes at each call, which cannot be compressed."""
    return random.Random(0).randbytes(count)


def zip_with(path: Path, entries: list[tuple[zipfile.ZipInfo | str, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for entry, content in entries:
            file.writestr(entry, content)
    return path


def tar_with(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as file:
        for entry, content in entries:
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


def zip_entry(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("placeholder")
    entry.filename = name  # the constructor would change some names
    entry.external_attr = mode << 16
    return entry


def content_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def check_refused(archive: Path, message: str, limits: Limits | None = None) -> None:
    """Check that nothing of an archive is left anywhere."""
    before = sorted(archive.parent.parent.rglob("*"))
    with pytest.raises(DatasetError, match=message):
        unpack(archive, archive.parent / "made", limits=limits)
    assert sorted(archive.parent.parent.rglob("*")) == before


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


class TestUnpack:
    @pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
    def test_all_forms(self, place, ending):
        archive = place / "archive"  # the content decides, not the name
        if ending == "zip":
            zip_with(archive, list(FILES.items()))
        else:
            entries = [(tar_entry(name), content) for name, content in FILES.items()]
            tar_with(archive, entries, f"w:{ending.partition('.')[2]}")
        assert unpack(archive, place / "deep/made") == 3
        assert content_of(place / "deep/made") == FILES
        assert [path.name for path in (place / "deep").iterdir()] == ["made"]

    def test_folders_and_the_root_itself_may_be_listed_several_times(self, place):
        names = ["./", "a/", "a/", "./a/b/"]
        entries = [(tar_entry(name, tarfile.DIRTYPE), b"") for name in names]
        archive = tar_with(place / "x.tar", [*entries, (tar_entry("./a/b/1.png"), b"1")])
        unpack(archive, place / "made")
        assert content_of(place / "made") == {"a/b/1.png": b"1"}

    def test_a_folder_may_be_listed_after_its_files(self, place):
        entries = [(tar_entry("a/b/0.png"), b"0"), (tar_entry("a/b", tarfile.DIRTYPE), b"")]
        unpack(tar_with(place / "archive", entries), place / "made")
        assert [path.name for path in place.glob("made/**/*.png")] == ["0.png"]

    def test_folders_in_a_zip_without_modes(self, place):
        """As written by programs for Windows."""
        archive = zip_with(place / "x.zip", [(zip_entry("a/", 0), b""), ("a/1.png", b"1")])
        assert unpack(archive, place / "made") == 1
        assert content_of(place / "made") == {"a/1.png": b"1"}

    def test_the_only_top_folder_becomes_the_folder(self, place):
        archive = zip_with(place / "x.zip", [("top/a/1.png", b"1")])
        unpack(archive, place / "made", top="top")
        unpack(archive, place / "kept", top="other")
        assert content_of(place / "made") == {"a/1.png": b"1"}
        assert content_of(place / "kept") == {"top/a/1.png": b"1"}

    def test_a_top_folder_beside_others_stays(self, place):
        archive = zip_with(place / "x.zip", [("top/1.png", b"1"), ("licence.txt", b"2")])
        unpack(archive, place / "made", top="top")
        assert set(content_of(place / "made")) == {"top/1.png", "licence.txt"}

    @pytest.mark.parametrize("form", ["zip", "tar"])
    def test_an_empty_archive_becomes_an_empty_folder(self, place, form):
        archive = (zip_with if form == "zip" else tar_with)(place / "x", [])
        assert unpack(archive, place / "made") == 0
        assert list((place / "made").iterdir()) == []

    def test_permissions_and_owners_are_not_taken_over(self, place):
        entry = tar_entry("run.sh")
        entry.mode, entry.uid = 0o6777, 12345
        unpack(tar_with(place / "x.tar", [(entry, b"1")]), place / "made")
        assert not (place / "made/run.sh").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)

    def test_an_empty_folder_may_exist_and_no_other(self, place):
        archive = zip_with(place / "x.zip", list(FILES.items()))
        (place / "made").mkdir()
        unpack(archive, place / "made")
        with pytest.raises(DatasetError, match=r"a new or an empty folder .* found .*made \(--to"):
            unpack(archive, place / "made")
        assert content_of(place / "made") == FILES


NAMES = [
    *("../out.png", "a/../../out.png", "/tmp/out.png", "..", "a/..", "C:/out.png", "..\\out.png"),
    *("a\\..\\..\\out.png", "a:b", "a\nb"),
]


class TestHostileNames:
    @pytest.mark.parametrize("name", NAMES)
    def test_zip(self, place, name):
        archive = zip_with(place / "x.zip", [("1.png", b"1"), (zip_entry(name, 0), b"2")])
        check_refused(archive, "expected names inside the archive's folder, found")

    @pytest.mark.parametrize("name", NAMES)
    def test_tar(self, place, name):
        archive = tar_with(place / "x.tar", [(tar_entry("1"), b"1"), (tar_entry(name), b"2")])
        check_refused(archive, "expected names inside the archive's folder, found")

    @pytest.mark.parametrize("form", ["zip", "tar"])
    def test_a_file_in_place_of_the_root(self, place, form):
        if form == "zip":
            archive = zip_with(place / "x", [(zip_entry(".", 0), b"1"), ("1.png", b"2")])
        else:
            archive = tar_with(place / "x", [(tar_entry("."), b"1"), (tar_entry("1.png"), b"2")])
        check_refused(archive, "cannot unpack .*: (File exists|Is a directory)")

    def test_a_name_that_zip_would_cut(self, place):
        archive = zip_with(place / "x.zip", [("1.png_x", b"1")])
        archive.write_bytes(archive.read_bytes().replace(b"1.png_x", b"1.png\0x"))
        check_refused(archive, "expected names inside the archive's folder, found")

    @pytest.mark.parametrize(
        "names", [("1.png", "1.png"), ("a", "a/1.png"), ("a/1.png", "a"), ("a/1", "./a//1")]
    )
    @pytest.mark.parametrize("form", ["zip", "tar"])
    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_doubled_names(self, place, names, form):
        if form == "zip":
            archive = zip_with(place / "x", [(zip_entry(name, 0), b"1") for name in names])
        else:
            archive = tar_with(place / "x", [(tar_entry(name), b"1") for name in names])
        check_refused(archive, "expected each name once in .*, found two of")


class TestHostileKinds:
    @pytest.mark.parametrize(
        ("kind", "link", "found"),
        [
            (tarfile.SYMTYPE, "/etc", "the link"),
            (tarfile.SYMTYPE, "../..", "the link"),
            (tarfile.SYMTYPE, "1.png", "the link"),
            (tarfile.LNKTYPE, "../../secret", "the link"),
            (tarfile.LNKTYPE, "1.png", "the link"),
            (tarfile.CHRTYPE, "", "the device"),
            (tarfile.BLKTYPE, "", "the device"),
            (tarfile.FIFOTYPE, "", "the device"),
        ],
    )
    def test_tar(self, place, kind, link, found):
        entries = [(tar_entry("1.png"), b"1"), (tar_entry("x", kind, link), b"")]
        archive = tar_with(place / "x.tar", [*entries, (tar_entry("x/2.png"), b"2")])
        check_refused(archive, f"expected files and folders only, found {found} 'x'")

    @pytest.mark.parametrize(
        ("mode", "found"),
        [
            (stat.S_IFLNK, "the link"),
            (stat.S_IFCHR, "the device"),
            (stat.S_IFBLK, "the device"),
            (stat.S_IFIFO, "the device"),
            (stat.S_IFSOCK, "the device"),
        ],
    )
    def test_zip(self, place, mode, found):
        archive = zip_with(place / "x.zip", [(zip_entry("x", mode | 0o777), b"/etc/passwd")])
        check_refused(archive, f"expected files and folders only, found {found} 'x'")

    def test_a_sparse_file_is_larger_than_its_archive(self, place):
        entry = tar_entry("x", tarfile.GNUTYPE_SPARSE)
        header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
        header[483:495] = b"77777777777\0"  # the real size
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        (place / "x.tar").write_bytes(bytes(header) + bytes(1024))
        check_refused(place / "x.tar", "expected files and folders only, found the sparse file 'x'")


class TestBombs:
    LIMITS = Limits(files=5, ratio=10, free_bytes=10_000)

    @pytest.mark.parametrize("form", ["zip", "tar"])
    def test_the_ratio(self, place, form):
        if form == "zip":
            archive = zip_with(place / "x", [("1.png", b"1"), ("2.png", bytes(1_000_000))])
        else:
            entries = [(tar_entry("1.png"), b"1"), (tar_entry("2.png"), bytes(1_000_000))]
            archive = tar_with(place / "x", entries, "w:xz")
        check_refused(archive, r"expected at most \d+ bytes in .*, found more: 2.png", self.LIMITS)

    def test_the_largest_size(self, place):
        """Of two files of 500 kB, in an archive of about 1 kB."""
        archive = zip_with(place / "x", [(f"{n}.png", bytes(500_000)) for n in range(2)])
        ratio = 1_000_000 / archive.stat().st_size
        accepted = [Limits(), Limits(ratio=0, free_bytes=1_000_000), Limits(5, 1.01 * ratio, 0)]
        for number, limits in enumerate(accepted):
            assert unpack(archive, place / f"made_{number}", limits=limits) == 2
        for limits in (Limits(ratio=0, free_bytes=999_999), Limits(5, 0.99 * ratio, 0)):
            check_refused(archive, r"expected at most \d+ bytes in .*, found more: 1.png", limits)

    @pytest.mark.parametrize("num_bytes", [100, 2_000_000])
    def test_the_documented_limits(self, place, num_bytes):
        """100 times the size of the archive or 100 MB, and 2 million entries: docs/download.md."""
        archive = zip_with(place / "x", [("1.png", random_bytes(num_bytes))])
        data, size = archive.read_bytes(), num_bytes.to_bytes(4, "little")
        most = max(100 * len(data), 100 << 20)
        at = data.rindex(size)  # the size in the directory at the end
        for stated, message in ((most, "found fewer"), (most + 1, f"at most {most} bytes in")):
            archive.write_bytes(data[:at] + stated.to_bytes(4, "little") + data[at + 4 :])
            check_refused(archive, message)
        assert Limits().files == 2_000_000

    @pytest.mark.parametrize("form", ["zip", "tar"])
    def test_the_number(self, place, form):
        if form == "zip":
            archive = zip_with(place / "x", [(f"{n}", b"") for n in range(6)])
        else:
            archive = tar_with(place / "x", [(tar_entry(f"{n}"), b"") for n in range(6)])
        check_refused(archive, "expected at most 5 files, found more", self.LIMITS)
        unpack(archive, place / "made", limits=Limits(files=6))

    @pytest.mark.parametrize("place_of_bytes", ["header", "end"])
    def test_bytes_that_are_no_members(self, place, monkeypatch, place_of_bytes):
        monkeypatch.setattr(archives, "LARGEST_READ", 1 << 20)
        entry = tar_entry("1.png")
        if place_of_bytes == "header":
            entry.pax_headers = {"comment": "x" * (2 << 20)}
        archive = tar_with(place / "x", [(entry, b"1")], "w:gz")
        if place_of_bytes == "end":
            with archive.open("ab") as file:
                file.write(gzip.compress(bytes(2 << 20)))
        check_refused(
            archive,
            "expected headers of at most 1048576|expected the end .*, found 1048576 further bytes",
        )

    @pytest.mark.parametrize("compress", [bytes, gzip.compress])
    def test_the_largest_number_of_bytes_behind_the_end(self, place, monkeypatch, compress):
        """The end is a block of zeros behind a file with a header of one block."""
        monkeypatch.setattr(archives, "LARGEST_READ", 2000)
        content = tar_with(place / "x", [(tar_entry("1.png"), b"1")]).read_bytes()[: 3 * 512]
        (place / "x").write_bytes(compress(content + b"x" * 1999))
        assert unpack(place / "x", place / "made") == 1
        shutil.rmtree(place / "made")
        (place / "x").write_bytes(compress(content + b"x" * 2000))
        check_refused(place / "x", "expected the end of .*x, found 2000 further bytes")

    @pytest.mark.parametrize("stated", [10, 5000])
    def test_a_size_that_is_not_the_stated_one(self, place, stated):
        """The header of the file says another size than the file has."""
        archive = zip_with(place / "x.zip", [("1.png", random_bytes(100))])
        data, size = archive.read_bytes(), (100).to_bytes(4, "little")
        central = data.index(b"PK\x01\x02")
        changed = data[central:].replace(size, stated.to_bytes(4, "little"), 1)
        before = data[central:].index(size)
        assert before in (20, 24)
        if before == 20:  # the compressed size came first
            changed = data[central : central + 24] + stated.to_bytes(4, "little")
            changed += data[central + 28 :]
        archive.write_bytes(data[:central] + changed)
        check_refused(archive, "expected .* bytes of 1.png, found|cannot unpack")

    def test_a_reader_that_does_not_stop_at_the_stated_size(self, place, monkeypatch):
        archive = zip_with(place / "x.zip", [("1.png", b"one")])
        monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: io.BytesIO(b"one more"))
        check_refused(archive, "expected 3 bytes of 1.png, found more in")


class TestFilesThatCannotBeWritten:
    def test_a_folder_below_a_file(self, place):
        archive = zip_with(place / "x.zip", list(FILES.items()))
        with pytest.raises(DatasetError, match=rf"cannot write to {archive}: .* \(--to\)"):
            unpack(archive, archive / "made")

    def test_a_name_that_is_too_long(self, place):
        archive = zip_with(place / "x.zip", [("n" * 300, b"1")])
        check_refused(archive, f"cannot unpack {archive}: File name too long")


class TestDamage:
    @pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    def test_a_cut_tar(self, place, mode, share):
        entries = [(tar_entry(f"{n}.png"), random_bytes(5000)) for n in range(20)]
        archive = tar_with(place / "x", entries, mode)
        data = archive.read_bytes()
        archive.write_bytes(data[: int(share * len(data))])
        check_refused(archive, "cannot unpack|expected 5000 bytes of")

    @pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
    def test_a_changed_checksum_of_a_compressed_tar(self, place, mode):
        archive = tar_with(place / "x", [(tar_entry("1.png"), random_bytes(5000))], mode)
        data = bytearray(archive.read_bytes())
        data[-6] ^= 1
        archive.write_bytes(data)
        check_refused(archive, "cannot unpack")

    def test_a_changed_byte_in_a_compressed_tar(self, place):
        archive = tar_with(place / "x", [(tar_entry("1.png"), random_bytes(5000))], "w:gz")
        data = bytearray(archive.read_bytes())
        data[2500] ^= 1  # random bytes are stored as they are, in most cases
        archive.write_bytes(data)
        check_refused(archive, "cannot unpack .*: (CRC check failed|it ends early)")

    def test_a_tar_that_is_cut_between_two_files(self, place):
        archive = tar_with(place / "x", [(tar_entry(f"{n}.png"), bytes(512)) for n in range(4)])
        archive.write_bytes(archive.read_bytes()[: 2 * 1024])
        check_refused(archive, "cannot unpack .*: it ends early")

    def test_a_cut_zip(self, place):
        archive = zip_with(place / "x", [(f"{n}.png", random_bytes(500)) for n in range(20)])
        archive.write_bytes(archive.read_bytes()[:3000])
        check_refused(archive, "cannot unpack")

    def test_a_changed_byte_in_a_zip(self, place):
        archive = zip_with(place / "x", [("1.png", random_bytes(500))])
        data = bytearray(archive.read_bytes())
        data[200] ^= 1
        archive.write_bytes(data)
        check_refused(archive, "cannot unpack")

    @pytest.mark.parametrize(
        "content", [b"", b"no archive", b"<html>" * 1000, b"7z\xbc\xaf\x27\x1c"]
    )
    def test_something_else(self, place, content):
        (place / "x").write_bytes(content)
        check_refused(place / "x", "expected a zip or tar archive .*, found something else")

    def test_a_password(self, place):
        archive = zip_with(place / "x", [("1.png", b"1")])
        data = bytearray(archive.read_bytes())
        data[data.index(b"PK\x01\x02") + 8] |= 1
        archive.write_bytes(data)
        check_refused(archive, "expected an archive without a password, found an encrypted one")
