"""What a user points at, in real files and folders; videos are made here, frame by frame."""

import codecs
import io
import os
import tracemalloc
from itertools import islice, repeat
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets import inputs, videos
from datasets.base import DatasetError
from datasets.folders import (
    HIDDEN,
    LINK,
    LOOP,
    RESULT_FILES,
    RESULTS,
    TWICE,
    FolderSearch,
    has_results,
)
from datasets.inputs import (
    NEITHER,
    NO_FILE,
    UNREADABLE,
    find_groups,
    find_items,
    is_camera,
    path_fault,
    watch_folder,
)
from datasets.items import Item
from datasets.notes import Notes
from datasets.path_list import OTHER_ENCODING, QUOTED
from datasets.videos import VideoFormat, video_format
from patchcore.record import RECORD
from patchcore.storage import TENSORS
from tests.support import write_image
from utils.output_names import RESULTS_FILE, RUN_FILE
from utils.predictions import CSV_FILE

SIZE = (32, 48)  # height, width
GREYS = (20, 60, 100, 140, 180, 220)  # of a video's frames
NOT_TEXT = os.fsdecode(b"\xff")


def picture(value=100):
    return np.full((*SIZE, 3), value, np.uint8)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Work in an empty folder, so that names are as short as users type them."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def images(*names: str) -> None:
    for name in names:
        write_image(Path(name), picture())


def video(path: Path | str, code="mp4v", greys=GREYS, rate=10.0) -> Path:
    """Write a video whose frames are each of one grey, but red in their left half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), rate, SIZE[::-1])
    assert writer.isOpened()
    for grey in greys:
        frame = picture(grey)
        frame[:, : SIZE[1] // 2] = (0, 0, 200)  # BGR
        writer.write(frame)
    writer.release()
    return path


def left_out(*paths: str, listed=None) -> dict[str, tuple[int, str]]:
    """Return the number of files that are skipped, and an example, by reason."""
    notes = Notes()
    list(find_items(paths, listed=listed, notes=notes))
    return {note.reason: (note.count, note.example) for note in notes.all()}


def names(*paths: str, listed=None, **more) -> list[str]:
    return [item.name for item in find_items(paths, listed=listed, **more)]


def faults(*paths: str, listed=None) -> list[str]:
    return [item.fault for item in find_items(paths, listed=listed)]


@pytest.mark.parametrize(
    ("more", "has_file"),
    [({}, True), ({"frame": picture()}, False), ({"fault": "gone"}, False)],
)
def test_only_an_image_without_a_fault_has_a_file_to_read(more, has_file):
    path = Path("a.png")
    assert Item("a", path, **more).file == (path if has_file else None)


class TestFiles:
    def test_an_image_is_read_when_it_is_asked_for(self, here):
        images("a.png")
        (item,) = find_items(["a.png"])
        assert item == Item("a.png", Path("a.png"))
        write_image(here / "a.png", picture(7))
        np.testing.assert_array_equal(item.read(), picture(7))

    @pytest.mark.parametrize("name", ["./a.png", "b/../a.png", ".//a.png"])
    def test_a_file_keeps_the_name_that_it_was_given(self, here, name):
        images("a.png", "b/c.png")
        assert names(name) == [name]

    @pytest.mark.parametrize(
        "name", ["a[1].png", "what?.png", "*.png", "~.png", "0", "2024", "-.png", " ", "ä\n.png"]
    )
    def test_a_file_is_found_by_any_name(self, here, name):
        images("a1.png", "whatx.png", "x.png")
        cv2.imencode(".png", picture())[1].tofile(here / name)
        items = list(find_items([name]))
        assert [item.name for item in items] == [name]
        assert items[0].read().shape == (*SIZE, 3)

    def test_a_name_that_is_no_text(self, here):
        cv2.imencode(".png", picture())[1].tofile(os.fsencode(f"{NOT_TEXT}.png"))
        for paths in ([f"{NOT_TEXT}.png"], ["."], ["*.png"]):
            (item,) = find_items(paths)
            assert item.name == f"{NOT_TEXT}.png"
            assert item.read().shape == (*SIZE, 3)

    def test_a_hidden_file_is_taken_where_it_is_named(self, here):
        images(".a.png")
        assert names(".a.png") == [".a.png"]

    @pytest.mark.parametrize("name", ["gone.png", "", "a/b/c.png", "a\0b.png", "123", "20240101"])
    def test_what_is_missing_is_told_and_the_rest_goes_on(self, here, name):
        images("a.png")
        fault, after = find_items([name, "a.png"])
        assert fault.name == name
        assert "no such file or folder" in fault.fault
        assert after.fault == ""
        with pytest.raises(DatasetError, match="no such file or folder"):
            fault.read()

    @pytest.mark.parametrize(
        "path", ["gone.png", "", "a/b/c.png", "a\0b.png", "123", "g?ne.png", "x" * 5000]
    )
    def test_a_path_is_known_to_name_nothing_before_anything_is_read(self, here, path):
        assert path_fault(path) == faults(path)[0] != ""

    @pytest.mark.parametrize("path", ["a.png", ".", "empty", "-", "7", "*", "?.png", "v.avi"])
    def test_a_path_that_names_something_has_no_fault_by_itself(self, here, path):
        images("a.png")
        Path("empty").mkdir()
        Path("v.avi").write_text("no video: found when it is read")
        assert path_fault(path) == ""

    def test_what_is_too_long_for_a_name_is_told(self, here):
        assert "File name too long" in faults("x" * 5000)[0]

    def test_a_link_that_leads_nowhere_is_told(self, here):
        Path("a.png").symlink_to("gone")
        assert faults("a.png") == ["no such file or folder: a.png"]
        (item,) = find_items(["*.png"])
        assert "no such file" in item.fault

    def test_a_pattern_that_is_the_name_of_a_broken_link_ends(self, here):
        Path("*").symlink_to("gone")
        assert faults("*") == ["no such file or folder: *"]

    def test_what_is_not_ours_to_read_is_told(self, here, monkeypatch):
        def refuse(path, **_):
            raise PermissionError(13, "Permission denied", str(path))

        images("a.png")
        monkeypatch.setattr(Path, "stat", refuse)
        assert faults("a.png") == ["cannot read a.png: Permission denied"]

    def test_a_file_that_vanishes_is_told_when_it_is_read(self, here):
        images("a.png")
        (item,) = find_items(["a.png"])
        Path("a.png").unlink()
        with pytest.raises(DatasetError, match=r"a\.png.*No such file"):
            item.read()


class TestFolders:
    def test_pictures_and_videos_come_in_order_of_names_at_any_depth(self, here):
        images("p/b.png", "p/a/z.JPG", "p/a/y/x.tiff", "p/c.webp", "p/10.png", "p/9.png")
        video("p/a/v.avi", "MJPG", GREYS[:2])
        Path("p/notes.txt").touch()
        assert names("p") == [
            "p/10.png", "p/9.png", "p/a/v.avi#0", "p/a/v.avi#1", "p/a/y/x.tiff", "p/a/z.JPG",
            "p/b.png", "p/c.webp",
        ]  # fmt: skip
        assert names("p/") == names("p")

    def test_hidden_files_and_folders_are_left_out(self, here):
        images("p/a.png", "p/._a.png", "p/.thumbnails/b.png")
        assert names("p") == ["p/a.png"]
        assert left_out("p") == {HIDDEN: (2, "p/._a.png")}
        images("p/@eaDir/a.png/THUMB_M.jpg")
        assert left_out("p") == {HIDDEN: (3, "p/._a.png")}
        assert names("p/.thumbnails") == ["p/.thumbnails/b.png"]  # but where they are named

    def test_links_to_files_and_to_folders_elsewhere_are_followed(self, here):
        images("p/a.png", "q/b.png", "q/r/c.png")
        Path("p/c.png").symlink_to("a.png")
        Path("p/link").symlink_to("../q")
        Path("s").symlink_to("p")
        assert names("p") == ["p/a.png", "p/c.png", "p/link/b.png", "p/link/r/c.png"]
        assert left_out("p") == {}
        assert names("s") == [name.replace("p/", "s/", 1) for name in names("p")]
        assert names("p/**/*.png") == names("p")
        assert names("**/*.png") == ["p/a.png", "p/c.png", "q/b.png", "q/r/c.png"]

    @pytest.mark.parametrize("name", ["p", "p/../p"])
    def test_loops_end_and_each_folder_is_read_once(self, here, name):
        images("p/a/b.png", "q/c.png", "p/.hidden/d.png")
        Path("p/a/parent").symlink_to("..")
        Path("p/above").symlink_to(here)
        Path("p/0").symlink_to("a")
        Path("q/back").symlink_to("../p")
        Path("q/self").symlink_to(".")
        Path("p/x").symlink_to("../q")
        Path("p/y").symlink_to("../q")
        Path("p/z").symlink_to(".hidden")
        found = [f"{name}/a/b.png", f"{name}/x/c.png", f"{name}/z/d.png"]
        assert names(name) == found
        assert left_out(name) == {
            HIDDEN: (1, f"{name}/.hidden"),
            LINK: (1, f"{name}/0"),
            LOOP: (3, f"{name}/a/parent"),
            TWICE: (2, f"{name}/x/self"),
        }

    @pytest.mark.parametrize("name", ["a.PNG", "a", "a.dat", "a.txt", "a.mp4"])
    def test_content_decides_not_the_ending(self, here, name):
        images("p/b.png")
        Path("p/b.png").rename(f"p/{name}")
        (item,) = find_items(["p"])
        assert item.name == f"p/{name}"
        np.testing.assert_array_equal(item.read(), picture())

    @pytest.mark.parametrize(
        "name", ["v.m4v", "v.webm", "v.wmv", "v.ts", "v.mts", "v.3gp", "v.mpg", "v.png", "v"]
    )
    def test_videos_of_any_ending_are_found(self, here, name):
        ending, code = ("ts", "mpg2") if "ts" in name else ("avi", "MJPG")
        video(f"w.{ending}", code)
        Path("p").mkdir()
        Path(f"w.{ending}").rename(f"p/{name}")
        assert names("p") == [f"p/{name}#{number}" for number in range(len(GREYS))]
        assert names("p/*") == names("p")

    @pytest.mark.parametrize("path", ["p", "p/*", "**/*.*"])
    def test_what_is_no_input_is_counted_by_reason(self, here, path):
        images("p/a.png")
        for name in ("notes.txt", "Thumbs.db", "code.ts", "empty"):
            Path("p", name).write_text("const a = 1;" if name == "code.ts" else "")
        os.mkfifo("p/pipe.png")
        (image,) = find_items([path])
        assert image.name == "p/a.png"
        count = 3 if path == "**/*.*" else 4
        assert left_out(path) == {
            NEITHER: (count, "p/Thumbs.db"),
            NO_FILE: (1, "p/pipe.png"),
        }

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.png", b"", "found a damaged or unknown file"),
            ("a.gif", b"text", "found a damaged or unknown file"),
            ("a.mp4", b"", "cannot open"),
            ("a.ts", b"G\0 a damaged stream", "cannot open"),
        ],
    )
    def test_a_damaged_file_with_the_name_of_an_input_is_reported(
        self, here, name, content, message
    ):
        Path("p").mkdir()
        Path("p", name).write_bytes(content)
        (item,) = find_items(["p"])
        assert item.name == f"p/{name}"
        with pytest.raises(DatasetError, match=message):
            item.read()

    def test_folders_with_the_names_of_images_are_folders(self, here):
        images("p/a.png/b.png", "p/c.mp4/d.png")
        assert names("p") == ["p/a.png/b.png", "p/c.mp4/d.png"]

    @pytest.mark.parametrize("path", ["p", "p/*"])
    def test_unreadable_files_and_broken_links(self, here, monkeypatch, path):
        def refuse(path):
            if path.name in {"locked.png", "locked"}:
                raise PermissionError(13, "Permission denied", str(path))
            return kind_of(path)

        kind_of = inputs.kind_of
        images("p/a.png", "p/locked.png")
        Path("p/locked").touch()
        Path("p/gone.png").symlink_to("nothing")
        monkeypatch.setattr(inputs, "kind_of", refuse)
        items = {item.name: item.fault for item in find_items([path])}
        assert items.pop("p/gone.png").startswith(("cannot read p/gone.png", "no such file"))
        refused = "cannot read p/locked.png: Permission denied"
        assert items == {"p/a.png": "", "p/locked.png": refused}
        assert left_out(path) == {UNREADABLE: (1, "p/locked")}
        assert faults("p/locked.png") == [refused]

    def test_a_link_to_itself_is_no_folder(self, here):
        images("p/a.png", "p/z.png")
        Path("p/loop.png").symlink_to("loop.png")
        items = {item.name: item.fault for item in find_items(["p"])}
        assert items.pop("p/loop.png").startswith("cannot read p/loop.png: Too many levels of sym")
        assert items == {"p/a.png": "", "p/z.png": ""}

    @pytest.mark.parametrize("path", ["pipe.png", "/dev/null"])
    def test_a_pipe_or_device_is_refused_at_once(self, here, path):
        os.mkfifo("pipe.png")
        assert faults(path) == [f"expected a file or folder, found a pipe or device: {path}"]

    def test_results_are_known_by_the_names_that_the_commands_write(self):
        assert set(RESULT_FILES) == {
            (RUN_FILE, CSV_FILE),
            (RUN_FILE, RESULTS_FILE),
            (RECORD, TENSORS),
        }

    def test_a_folder_that_cannot_be_looked_into_has_no_results(self):
        assert not has_results(Path("a" * 300))

    @pytest.mark.parametrize(("record", "table"), RESULT_FILES)
    def test_results_of_an_earlier_run_are_not_judged(self, here, record, table):
        images("p/a.png", "p/result/pictures/a.png", "p/result/earlier/1/masks/a.png")
        for name in (record, table):
            Path("p/result", name).touch()
        for path in ("p", "p/**/*.png"):
            assert names(path) == ["p/a.png"]
            assert left_out(path) == {RESULTS: (1, "p/result")}
        assert len(names("p/result")) == 2
        Path("p/result", table).unlink()
        assert len(names("p")) == 3

    @pytest.mark.parametrize("content", [(), ("notes.txt",), (".a.png",)])
    def test_a_folder_without_pictures_is_told(self, here, content):
        Path("p").mkdir()
        for name in content:
            (Path("p") / name).touch()
        assert faults("p") == ["expected images or videos in p, found none"]

    def test_a_folder_that_cannot_be_looked_into_is_told_and_the_rest_goes_on(
        self, here, monkeypatch
    ):
        images("p/a.png", "p/locked/b.png", "p/z.png")
        scandir = os.scandir

        def guarded(folder):
            if Path(folder).name == "locked":
                raise PermissionError(13, "Permission denied", str(folder))
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", guarded)
        items = list(find_items(["p"]))
        assert [item.name for item in items] == ["p/a.png", "p/locked", "p/z.png"]
        assert [item.fault for item in items] == ["", "cannot read p/locked: Permission denied", ""]
        assert faults("p/locked") == ["cannot read p/locked: Permission denied"]
        assert names("p/**/*.png") == ["p/a.png", "p/z.png"]


class TestPatterns:
    def test_matches_are_taken_and_folders_among_them_searched_through(self, here):
        images("p/b.png", "p/a/c.png", "p/a/d/e.png", "q/f.png")
        assert names("?/*") == ["p/a/c.png", "p/a/d/e.png", "p/b.png", "q/f.png"]
        assert names("p/[!b]*") == ["p/a/c.png", "p/a/d/e.png"]
        assert names(str(here / "p/*.png")) == [str(here / "p/b.png")]

    @pytest.mark.parametrize("pattern", ["**", "**/*", "p/**", "p/**/*", "./**", "**/**"])
    def test_any_depth_takes_each_file_once(self, here, pattern):
        images("p/b.png", "p/a/c.png", "p/a/d/e.png")
        assert sorted(names(pattern)) == ["p/a/c.png", "p/a/d/e.png", "p/b.png"]

    def test_also_from_a_folder_whose_name_sorts_before_the_current_one(self, here):
        images("(old)/a.png", "new/b.png")
        assert names("**") == ["(old)/a.png", "new/b.png"]

    def test_a_folder_at_any_depth_is_searched_through(self, here):
        images("p/good/1.png", "q/r/good/s/2.png", "q/bad/3.png")
        assert names("**/good") == ["p/good/1.png", "q/r/good/s/2.png"]

    def test_a_pattern_without_matches_is_told(self, here):
        assert faults("*.png") == ["expected files that match *.png, found none"]


class TestLists:
    def test_lines_are_paths_and_empty_ones_none(self, here):
        images("a.png", "p/b.png", " c d.png")
        listed = io.StringIO("a.png\n\np\r\n c d.png\ngone.png")
        items = list(find_items(["a.png", "-"], listed=listed))
        assert [i.name for i in items] == ["a.png", "a.png", "p/b.png", " c d.png", "gone.png"]
        assert [bool(item.fault) for item in items] == [False] * 4 + [True]

    @pytest.mark.parametrize("end", ["\n", "\0"])
    def test_paths_are_read_as_they_arrive(self, here, end):
        images("a.png", "b.png", "c.png", "d.png")
        source, target = os.pipe()
        parts = [f"a.png{end}b.p", f"ng{end}c.png{end}", "d.png"]
        with os.fdopen(source, "rb") as reader, os.fdopen(target, "wb", 0) as writer:
            found, groups = [], find_groups(["-", "d.png"], listed=io.TextIOWrapper(reader))
            for part in parts:
                writer.write(part.encode())
                if part == parts[-1]:
                    writer.close()
                found.append([item.name for item in next(groups)])
            found += [[item.name for item in group] for group in groups]
        assert found == [["a.png"], ["b.png", "c.png"], ["d.png"], ["d.png"]]

    @pytest.mark.parametrize("line", ["*.png", "0", "-", "a[1].png"])
    def test_a_line_is_no_pattern_no_camera_and_no_list(self, here, line):
        images("a1.png")
        assert faults("-", listed=io.StringIO(line)) == [f"no such file or folder: {line}"]

    def read(self, content: bytes) -> list[str]:
        """Return the names of the items of a list; all exist."""
        listed = io.TextIOWrapper(io.BytesIO(content), encoding="ascii")
        items = list(find_items(["-"], listed=listed))
        assert not any(item.fault for item in items)
        return [item.name for item in items]

    @pytest.mark.parametrize(
        ("encoding", "mark"),
        [
            ("utf-8", b""),
            ("utf-8", codecs.BOM_UTF8),
            ("utf-16-le", codecs.BOM_UTF16_LE),
            ("utf-16-be", codecs.BOM_UTF16_BE),
            ("latin-1", b""),
            ("cp1252", b""),
        ],
    )
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_encodings(self, here, encoding, mark, end):
        expected = ["a.png", "Ä\u010a.png" if encoding.startswith("utf") else "Ä.png", "p/ö.png"]
        images(*expected)
        assert self.read(mark + end.join(expected).encode(encoding)) == expected
        assert self.read(mark + end.join([*expected, "", ""]).encode(encoding)) == expected

    def test_another_encoding_is_noted(self, here):
        images("Ä.png")
        listed = io.TextIOWrapper(io.BytesIO(b"\xc4.png\n"))
        assert left_out("-", listed=listed) == {OTHER_ENCODING: (1, "Ä.png")}

    def test_a_list_may_end_within_a_character(self, here):
        """In UTF-8, the last byte would begin a longer one."""
        images("a.png", "b.png")
        Path("b.png").rename("Ä")
        assert self.read(b"a.png\n\xc4") == ["a.png", "Ä"]

    def test_null_characters_separate_paths(self, here):
        images("a.png", "b\nc.png")
        assert self.read(b"a.png\0") == ["a.png"]
        expected = ["b\nc.png", "a.png"] * 1500  # more than the buffer of a stream
        assert self.read("\0".join([*expected, ""]).encode()) == expected
        assert self.read(b"a.png\0b\nc.png\n") == ["a.png", "b\nc.png"]
        assert names("-", listed=["a.png\0b.png\0"]) == ["a.png", "b.png"]

    @pytest.mark.parametrize("line", ['"a b.png"', "'a b.png'", "  a b.png\t", ' "a b.png" '])
    def test_quotes_and_spaces_around_a_path(self, here, line):
        images("a b.png")
        assert names("-", listed=[line]) == ["a b.png"]
        assert left_out("-", listed=[line]) == {QUOTED: (1, "a b.png")}
        images(line)
        assert names("-", listed=[line]) == [line]

    def test_a_quote_alone_is_a_name(self, here):
        (here / "'").touch()
        assert names("-", listed=[" ' "]) == ["'"]

    def test_a_line_that_is_no_text(self, here):
        cv2.imencode(".png", picture())[1].tofile(b"\xff.png")
        listed = io.TextIOWrapper(io.BytesIO(b"\xff.png\n"), encoding="utf-8")
        (item,) = find_items(["-"], listed=listed)
        assert item.read().shape == (*SIZE, 3)

    def test_nothing_to_read_from_is_nothing(self):
        assert list(find_items(["-"])) == []

    def test_a_list_without_end_is_read_line_by_line(self, here):
        images("a.png")
        first = list(islice(find_items(["-"], listed=repeat("a.png\n")), 3))
        assert [item.name for item in first] == ["a.png"] * 3

    def test_many_paths_need_no_more_memory_than_few(self, here):
        images("a.png")

        def peak(count: int) -> int:
            tracemalloc.start()
            for _ in find_items(["-"], listed=repeat("a.png\n", count)):
                pass
            found = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return found

        peak(10)
        assert peak(3000) < peak(10) + 20_000  # a list of the items would need 400 kB


class TestVideos:
    @pytest.mark.parametrize(
        ("name", "code"),
        [("v.mp4", "mp4v"), ("v.AVI", "MJPG"), ("v.mov", "mp4v"), ("v.mkv", "MJPG")],
    )
    def test_frames_in_order_with_number_time_and_rgb(self, here, name, code):
        video(name, code)
        items = list(find_items([name]))
        assert [item.name for item in items] == [f"{name}#{n}" for n in range(6)]
        assert [item.name for group in find_groups([name]) for item in group] == [
            item.name for item in items
        ]
        assert [item.number for item in items] == list(range(6))
        assert {item.path for item in items} == {Path(name)}
        np.testing.assert_allclose([item.seconds for item in items], np.arange(6) / 10)
        for item, grey in zip(items, GREYS, strict=True):
            frame = item.read().astype(int)
            assert frame.shape == (*SIZE, 3)
            np.testing.assert_allclose(frame[16, 40], grey, atol=8)
            np.testing.assert_allclose(frame[16, 8], (200, 0, 0), atol=16)

    @pytest.mark.parametrize("frame_stride", [1, 2, 4, 5, 6, 100])
    def test_every_nth_frame(self, here, frame_stride):
        video("v.avi", "MJPG")
        numbers = [item.number for item in find_items(["v.avi"], frame_stride=frame_stride)]
        assert numbers == list(range(0, 6, frame_stride))

    def test_a_name_that_is_no_text(self, here):
        name = f"{NOT_TEXT}.avi"
        video("v.avi", "MJPG").rename(name)
        assert names(name) == [f"{name}#{number}" for number in range(6)]
        assert video_format(Path(name)).size == SIZE

    @pytest.mark.parametrize("content", [b"", b"no video", None])
    def test_what_is_no_video_is_told(self, here, content):
        if content is None:  # the head of one
            content = video("whole.mp4").read_bytes()[:60]
        Path("v.mp4").write_bytes(content)
        assert faults("v.mp4") == ["expected a video, cannot open v.mp4"]
        assert video_format(Path("v.mp4")) is None

    def test_a_video_without_frames_is_told(self, here):
        video("v.avi", "MJPG", greys=())
        assert faults("v.avi") == ["expected a video, found no frame in v.avi"]

    def test_frames_are_decoded_one_at_a_time(self, here, monkeypatch):
        capture = FakeCapture()
        monkeypatch.setattr(cv2, "VideoCapture", lambda _: capture)
        Path("v.mp4").touch()
        items = find_items(["v.mp4"], frame_stride=3)
        next(items), next(items)
        assert (capture.grabbed, capture.retrieved, capture.released) == (4, 2, False)
        items.close()
        assert capture.released

    def test_a_damaged_frame_is_told_and_the_rest_goes_on(self, here, monkeypatch):
        monkeypatch.setattr(cv2, "VideoCapture", lambda _: FakeCapture(damaged=(1,)))
        Path("v.mp4").touch()
        first = list(islice(find_items(["v.mp4"]), 3))
        assert [item.fault for item in first] == ["", "damaged frame 1 of v.mp4", ""]

    @pytest.mark.parametrize(
        ("told", "rate"),
        [(0, 25), (-1, 25), (float("nan"), 25), (1000, 25), (90_000, 25), (5, 5), (0.1, 0.1)],
    )
    def test_where_no_rate_is_told_25_frames_a_second_are_taken(
        self, here, monkeypatch, told, rate
    ):
        monkeypatch.setattr(cv2, "VideoCapture", lambda _: FakeCapture(rate=told))
        Path("v.mp4").touch()
        assert [i.seconds for i in islice(find_items(["v.mp4"]), 2)] == [0, 1 / rate]
        assert video_format(Path("v.mp4")) == VideoFormat(rate, SIZE)

    @pytest.mark.parametrize(
        ("told", "count"),
        [(0, 0), (-9.2e16, 0), (float("nan"), 0), (float("inf"), 0), (1e18, 0), (1, 1), (7, 7)],
    )
    def test_the_number_of_frames_is_0_if_none_is_told(self, here, monkeypatch, told, count):
        capture = FakeCapture(count=told)
        monkeypatch.setattr(cv2, "VideoCapture", lambda _: capture)
        assert video_format(Path("v.mp4")) == VideoFormat(10, SIZE, count)
        assert capture.released


class FakeCapture:
    """A video or camera without end."""

    def __init__(self, rate=10.0, damaged=(), opened=True, frames=None, count=0):
        self.grabbed = self.retrieved = 0
        self.released = False
        self._rate, self._damaged, self._opened, self._frames = rate, damaged, opened, frames
        self._count = count

    def isOpened(self):  # noqa: N802
        return self._opened

    def get(self, what):
        height, width = SIZE
        return {
            cv2.CAP_PROP_FPS: self._rate,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_COUNT: self._count,
            cv2.CAP_PROP_POS_MSEC: 0,
        }[what]

    def grab(self):
        self.grabbed += 1
        return self._frames is None or self.grabbed <= self._frames

    def retrieve(self):
        self.retrieved += 1
        readable = self.grabbed - 1 not in self._damaged
        return readable, picture() if readable else None

    def release(self):
        self.released = True


class TestCameras:
    def test_a_number_that_is_no_file_is_a_camera(self, here, monkeypatch):
        opened = []
        monkeypatch.setattr(cv2, "VideoCapture", lambda n: opened.append(n) or FakeCapture())
        first = list(islice(find_items(["1"]), 2))
        assert opened == [1]
        assert [(i.name, i.path, i.number) for i in first] == [
            ("camera 1#0", None, 0),
            ("camera 1#1", None, 1),
        ]

    def test_numbers_have_at_most_two_digits(self, here):
        """OpenCV gives those from 100 on other meanings."""
        assert [is_camera(text) for text in ("0", "99", "100", "-1", "1.5", "²")] == [
            *(True, True),
            *[False] * 4,
        ]
        (here / "7").touch()
        assert not is_camera("7")

    def test_every_third_frame(self, here, monkeypatch):
        capture = FakeCapture()
        monkeypatch.setattr(cv2, "VideoCapture", lambda _: capture)
        items = find_items(["1"], frame_stride=3)
        assert [item.number for item in islice(items, 3)] == [0, 3, 6]
        assert (capture.grabbed, capture.retrieved) == (7, 3)  # others are not decoded
        assert not capture.released
        items.close()
        assert capture.released

    def test_its_time_is_the_clocks(self, here, monkeypatch):
        """Frames are lost while we compute: their number says nothing of the time."""
        clock = iter((100.0, 100.5, 103.25))
        monkeypatch.setattr(cv2, "VideoCapture", lambda _: FakeCapture())
        monkeypatch.setattr(videos.time, "monotonic", lambda: next(clock))
        assert [item.seconds for item in islice(find_items(["0"]), 2)] == [0.5, 3.25]

    @pytest.mark.parametrize(
        ("capture", "message"),
        [
            ({"opened": False}, "expected a camera, cannot open camera 3"),
            ({"frames": 0}, "expected frames of camera 3 without end, found 0"),
            ({"frames": 2}, "expected frames of camera 3 without end, found 2"),
        ],
    )
    def test_one_that_is_not_there_or_ends_is_told(self, here, monkeypatch, capture, message):
        monkeypatch.setattr(cv2, "VideoCapture", lambda _: FakeCapture(**capture))
        *frames, fault = faults("3")
        assert frames == [""] * capture.get("frames", 0)
        assert message in fault
        assert "a video" not in fault


class TestWatching:
    @pytest.fixture
    def look(self, here, monkeypatch):
        """Return what looks once and gives the names of what was taken."""
        monkeypatch.setattr(inputs, "WATCH_SECONDS", 0)
        Path("w").mkdir()
        watched = watch_folder(Path("w"))
        return lambda: [item.name for item in iter(lambda: next(watched), None)]

    def test_files_are_taken_once_when_they_have_stayed_the_same_between_two_looks(self, look):
        images("w/a.png", "w/b/c.png")
        assert look() == []
        assert look() == ["w/a.png", "w/b/c.png"]
        assert look() == look() == []
        images("w/d.png")
        assert [look(), look(), look()] == [[], ["w/d.png"], []]

    def test_a_file_that_is_being_written_is_left_until_it_is_whole(self, look):
        images("w/a.png")
        data = Path("w/a.png").read_bytes()
        with Path("w/a.png").open("wb", buffering=0) as file:
            for part in (data[:20], data[20:40], data[40:]):
                file.write(part)
                assert look() == []
        assert [look(), look()] == [["w/a.png"], []]

    def test_the_time_between_two_looks_shows_whether_a_file_still_grows(self, here, monkeypatch):
        Path("w").mkdir()
        images("whole.png")
        data, pauses = Path("whole.png").read_bytes(), []
        parts = iter((data[:20], data[20:40], data[40:]))

        def write(seconds):
            pauses.append(seconds)
            with Path("w/a.png").open("ab") as file:
                file.write(next(parts, b""))

        monkeypatch.setattr(inputs.time, "sleep", write)
        watched = watch_folder(Path("w"))
        found = [next(watched) for _ in range(5)]
        assert [item and item.name for item in found] == [None, None, None, None, "w/a.png"]
        assert pauses == [0.5] * 4

    def test_a_file_that_is_written_again_is_taken_again(self, look):
        images("w/a.png")
        assert [look(), look()] == [[], ["w/a.png"]]
        os.utime("w/a.png", (1, 1))
        assert [look(), look(), look()] == [[], ["w/a.png"], []]

    def test_a_deleted_file_that_comes_back_is_taken_again(self, look):
        images("w/a.png")
        status = Path("w/a.png").stat()
        look(), look()
        data = Path("w/a.png").read_bytes()
        Path("w/a.png").unlink()
        assert look() == []
        Path("w/a.png").write_bytes(data)
        os.utime("w/a.png", ns=(status.st_atime_ns, status.st_mtime_ns))
        assert [look(), look()] == [[], ["w/a.png"]]

    def test_other_files_are_left_out_and_videos_taken(self, look):
        Path("w/notes.txt").touch()
        images("w/.hidden.png")
        video("w/v.avi", "MJPG", GREYS[:2])
        assert [look(), look()] == [[], ["w/v.avi#0", "w/v.avi#1"]]

    def test_what_is_left_out_is_noted(self, look):
        Path("w/notes.txt").write_text("text")
        images("w/.hidden.png")
        notes = Notes()
        watched = watch_folder(Path("w"), notes=notes)
        assert [next(watched), next(watched)] == [None, None]
        assert {note.reason for note in notes.all()} == {HIDDEN, NEITHER}

    def test_a_file_that_vanishes_within_a_look_is_left(self, look, monkeypatch):
        images("w/a.png", "w/b.png")
        look()
        files = FolderSearch.files

        def vanish(search):
            for found in files(search):
                if found.path == Path("w/a.png"):
                    found.path.unlink()
                yield found

        monkeypatch.setattr(FolderSearch, "files", vanish)
        assert look() == ["w/b.png"]

    def test_a_folder_that_is_gone_for_a_while_does_not_make_its_files_new(self, look):
        images("w/a.png")
        look(), look()
        Path("w").rename("elsewhere")
        assert look() == look() == []
        Path("elsewhere").rename("w")
        assert look() == look() == []

    def test_a_folder_that_cannot_be_looked_into_is_told_once(self, look, monkeypatch):
        images("w/a.png", "w/locked/b.png")
        scandir = os.scandir

        def guarded(folder):
            if Path(folder).name == "locked":
                raise PermissionError(13, "Permission denied", str(folder))
            return scandir(folder)

        monkeypatch.setattr(os, "scandir", guarded)
        assert [look(), look(), look()] == [[], ["w/a.png", "w/locked"], []]
