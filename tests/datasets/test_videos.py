"""Videos that end early are reported, whole ones are not; times are those of the container."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.containers import (
    ASF_FILE_PROPERTIES,
    EBML_SEGMENT,
    Box,
    _boxes,
    is_cut_short,
    is_trimmed,
)
from datasets.videos import TIMED, read_video
from tests.support import ROOT

NUM_FRAMES, RATE = 20, 10.0
PIXELS = np.random.default_rng(0).integers(0, 255, (NUM_FRAMES, 32, 48, 3), dtype=np.uint8)
WRITERS = [
    ("v.mp4", "mp4v"),
    ("v.mov", "MJPG"),
    ("v.3gp", "mp4v"),
    ("v.avi", "MJPG"),
    ("v.avi", "XVID"),
    ("v.avi", "FFV1"),
    ("v.mkv", "MJPG"),
    ("v.mkv", "mp4v"),
    ("v.webm", "VP80"),
    ("v.wmv", "WMV2"),
    ("v.ts", "mpg2"),
    ("v.flv", "FLV1"),
    ("v.mpg", "mpg2"),
]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> dict[tuple[str, str], bytes]:
    """Return the content of a video of each container and codec."""
    folder, made = tmp_path_factory.mktemp("videos"), {}
    for name, codec in WRITERS:
        path = folder / name
        writer = cv2.VideoWriter(
            str(path), cv2.VideoWriter_fourcc(*codec), RATE, (PIXELS.shape[2], PIXELS.shape[1])
        )
        assert writer.isOpened()
        for frame in PIXELS:
            writer.write(frame)
        writer.release()
        made[name, codec] = path.read_bytes()
    return made


def read(path: Path, content: bytes, frame_stride: int = 1) -> tuple[list[float], list[str]]:
    """Return the times of the frames and the faults of a video with this content."""
    path.write_bytes(content)
    items = list(read_video(path, path.name, frame_stride))
    return [i.seconds for i in items if not i.fault], [i.fault for i in items if i.fault]


@pytest.mark.parametrize("writer", WRITERS, ids=" ".join)
def test_a_whole_video_has_no_fault(videos, tmp_path, writer):
    times, faults = read(tmp_path / writer[0], videos[writer])
    assert faults == []
    np.testing.assert_allclose(times, np.arange(NUM_FRAMES) / RATE, atol=1e-3)


@pytest.mark.parametrize("frame_stride", [1, 3, 100])
@pytest.mark.parametrize("writer", WRITERS[:-1], ids=" ".join)
def test_a_video_that_is_cut_short_is_reported(videos, tmp_path, writer, frame_stride):
    """But not an MPEG program stream, which states neither its frames nor its length."""
    content = videos[writer]
    path = tmp_path / writer[0]
    times, faults = read(path, content[: len(content) * 7 // 10 + 1], frame_stride)
    (fault,) = faults
    assert len(times) < NUM_FRAMES
    assert writer[0] in fault
    is_opened = "cannot open" not in fault  # MP4 has its index at the end
    assert is_opened == (path.suffix not in {".mp4", ".mov", ".3gp"})
    assert not is_opened or "cut short" in fault


def test_the_number_of_missing_frames_is_stated(videos, tmp_path):
    content = videos["v.avi", "MJPG"]
    times, faults = read(tmp_path / "v.avi", content[: len(content) * 7 // 10])
    assert len(times) in (13, 14)
    assert faults == [f"expected 20 frames in v.avi, found {len(times)}: the file is cut short"]


def test_a_damaged_video_is_reported(videos, tmp_path):
    """The file is as long as it should be, but frames in the middle cannot be found."""
    content = bytearray(videos["v.avi", "XVID"])
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    times, faults = read(tmp_path / "v.avi", bytes(content))
    assert len(times) < NUM_FRAMES
    assert faults == [f"expected 20 frames in v.avi, found {len(times)}: the file is damaged"]


def with_edit(content: bytes, share: float) -> bytes:
    """Return an MP4 video whose edit list shows a share of its frames."""
    place = content.index(b"elst") + 12
    duration = int.from_bytes(content[place : place + 4], "big")
    return content[:place] + int(duration * share).to_bytes(4, "big") + content[place + 4 :]


@pytest.mark.parametrize(("share", "trimmed"), [(1, False), (0.99, False), (0.5, True)])
def test_frames_outside_of_the_edit_list_are_not_missing(videos, tmp_path, share, trimmed):
    """A telephone trims a video so, without writing its frames anew."""
    path = tmp_path / "v.mp4"
    _, faults = read(path, with_edit(videos["v.mp4", "mp4v"], share))
    assert is_trimmed(path) == trimmed
    assert faults == []


@pytest.mark.parametrize("writer", WRITERS, ids=" ".join)
def test_files_are_cut_short_if_they_lack_their_last_byte(videos, tmp_path, writer):
    path = tmp_path / writer[0]
    path.write_bytes(videos[writer])
    assert not is_cut_short(path)
    path.write_bytes(videos[writer][:-1])
    assert is_cut_short(path) == (path.suffix not in {".flv", ".mpg"})


def test_a_wmv_without_the_length_that_it_should_state_is_not_cut_short(videos, tmp_path):
    content = videos["v.wmv", "WMV2"].replace(ASF_FILE_PROPERTIES, bytes(16))
    (path := tmp_path / "v.wmv").write_bytes(content)
    assert not is_cut_short(path)


@pytest.mark.parametrize("before", [0, 200])
@pytest.mark.parametrize(("flags", "expected"), [(0, True), (1, False), (2, True), (3, False)])
def test_a_live_wmv_recording_has_no_length(videos, tmp_path, flags, expected, before):
    """Bit 0 of the flags says that it is live, bit 1 that it can be sought in."""
    content = bytearray(videos["v.wmv", "WMV2"])
    place = content.index(ASF_FILE_PROPERTIES)
    content[place:place] = bytes(before)  # the objects of the header have any order
    place += before
    content[place + 40 : place + 48] = len(content).to_bytes(8, "little")
    content[place + 48 : place + 56] = b"\xff" * 8  # the date
    content[place + 88 : place + 92] = flags.to_bytes(4, "little")
    (path := tmp_path / "v.wmv").write_bytes(content)
    assert not is_cut_short(path)
    path.write_bytes(content[:-1])
    assert is_cut_short(path) == expected
    path.write_bytes(content[: place + 88])  # without the flags
    assert is_cut_short(path)


@pytest.mark.parametrize("time", [b"time", b"\x47ime"])
def test_a_transport_stream_with_times_has_packets_of_192_bytes(tmp_path, time):
    """As a Blu-ray disc or an AVCHD camera writes them."""
    path = tmp_path / "v.m2ts"
    stream = (time + b"\x47" + bytes(187)) * 46
    path.write_bytes(stream)
    assert not is_cut_short(path)
    path.write_bytes(stream + bytes(188 - len(stream) % 188))  # as long as packets of 188 bytes
    assert is_cut_short(path)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(None, False), (16 + 99, False), (16 + 100, True), (2**63, True), (0, False)],
)
def test_an_mp4_above_4_gb_has_a_size_of_64_bits(tmp_path, size, expected):
    """A size of 0 would lead back to the same box."""
    path = tmp_path / "v.mp4"
    path.write_bytes(box(b"ftyp", b"isom\0\0\0\0") + large_box(b"mdat", bytes(99), size))
    assert is_cut_short(path) == expected


@pytest.mark.parametrize("size", range(2, 8))
def test_behind_a_box_smaller_than_its_header_nothing_is_known(tmp_path, size):
    path = tmp_path / "v.mp4"
    damaged = size.to_bytes(4, "big") + b"free" * 9
    path.write_bytes(box(b"ftyp", b"isom\0\0\0\0") + damaged)
    assert not is_cut_short(path)


def test_an_mp4_that_ends_behind_the_header_of_a_box_is_cut_short(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(box(b"ftyp", b"isom\0\0\0\0") + box(b"mdat", b"0")[:8])
    assert is_cut_short(path)


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
@pytest.mark.parametrize("length", [7, 8, 500])
def test_what_fills_up_an_mp4_is_not_missing(videos, tmp_path, filling, length):
    """Cameras and programs that recover files fill up the last block of a disk."""
    _, faults = read(tmp_path / "v.mp4", videos["v.mp4", "mp4v"] + filling * length)
    assert faults == []


def test_empty_edits_show_nothing(videos, tmp_path):
    """An empty edit delays the track; its duration is not one of stored frames."""
    content = videos["v.mp4", "mp4v"]
    place = content.index(b"elst") + 16  # the media time of the first edit
    path = tmp_path / "v.mp4"
    path.write_bytes(content[:place] + (-1).to_bytes(4, "big", signed=True) + content[place + 4 :])
    assert is_trimmed(path)


def box(kind: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def large_box(kind: bytes, content: bytes, size: int | None = None) -> bytes:
    """Return a box with a size of 64 bits."""
    size = 16 + len(content) if size is None else size
    return b"\0\0\0\1" + kind + size.to_bytes(8, "big") + content


def last_box(kind: bytes, content: bytes) -> bytes:
    """Return a box that extends to the end of the file."""
    return bytes(4) + kind + content


@pytest.mark.parametrize("boxed", [box, large_box, last_box])
@pytest.mark.parametrize(("second", "trimmed"), [(920, False), (880, True)])
@pytest.mark.parametrize(("version", "wide"), [(0, 4), (1, 8)])
def test_times_of_32_and_of_64_bits(tmp_path, version, wide, second, trimmed, boxed):
    """2 seconds are stored; an empty edit, 1 second and a second part of it are shown.

    The tracks before and after this one, as of sound, are shown as a whole.
    """

    def times(*values: int) -> bytes:
        return b"".join(value.to_bytes(wide, "big", signed=True) for value in values)

    def head(scale: int, duration: int) -> bytes:
        return beginning + times(5, 6) + scale.to_bytes(4, "big") + times(duration) + bytes(80)

    def track(*edits: tuple[int, int]) -> bytes:
        listed = b"".join(times(*edit) + rate for edit in edits)
        content = box(b"edts", box(b"elst", beginning + len(edits).to_bytes(4, "big") + listed))
        content += box(b"mdia", box(b"mdhd", head(1_000_000_000, 2_000_000_000)))
        return box(b"trak", content)

    beginning, rate = bytes([version, 0, 0, 0]), b"\0\1\0\0"
    tracks = track((2000, 0)) + track((400, -1), (1000, 0), (second, 10)) + track((2000, 0))
    path = tmp_path / "v.mp4"
    path.write_bytes(boxed(b"moov", box(b"mvhd", head(1000, 2400)) + tracks))
    assert is_trimmed(path) == trimmed


def test_a_matroska_file_that_ends_within_its_size_is_cut_short(videos, tmp_path):
    content = videos["v.mkv", "MJPG"]
    place = content.index(EBML_SEGMENT)
    path = tmp_path / "v.mkv"
    for length in range(4, place + 13):  # the size follows the mark of 4 bytes
        path.write_bytes(content[:length])
        assert is_cut_short(path) == (length > place + 3)


@pytest.mark.parametrize("width", range(1, 9))
def test_sizes_of_matroska_have_1_to_8_bytes(tmp_path, width):
    """As many zeros as bytes follow precede the mark, and 7 bits of each byte remain (RFC 8794)."""
    head = b"\x1a\x45\xdf\xa3\x80" + EBML_SEGMENT
    mark, unknown = 1 << 7 * width, (1 << 7 * width) - 1
    path = tmp_path / "v.mkv"
    for size, length, expected in (
        (100, 100, False),
        (100, 99, True),
        (unknown - 1, 100, True),
        (unknown, 100, False),
    ):
        path.write_bytes(head + (mark + size).to_bytes(width, "big") + bytes(length))
        assert is_cut_short(path) == expected


def test_a_box_may_have_a_size_of_64_bits(tmp_path):
    path = tmp_path / "v.mp4"
    inner = box(b"trak", b"")
    head = (1).to_bytes(4, "big") + b"moov" + (16 + len(inner)).to_bytes(8, "big")
    path.write_bytes(head + inner + box(b"free", bytes(5)))
    with path.open("rb") as file:
        found = list(_boxes(file, 0, path.stat().st_size))
    assert found == [
        Box(b"moov", 16, 24),
        Box(b"trak", 24, 24),
        Box(b"free", 32, 37),
    ]


def test_a_box_that_is_smaller_than_its_head_ends_the_list(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_bytes(box(b"free", b"") + (7).to_bytes(4, "big") + b"free" + box(b"free", b""))
    with path.open("rb") as file:
        assert list(_boxes(file, 0, path.stat().st_size)) == [Box(b"free", 8, 8)]


def test_a_live_matroska_recording_has_no_size(videos, tmp_path):
    content = videos["v.mkv", "MJPG"]
    place = content.index(EBML_SEGMENT) + 4
    path = tmp_path / "v.mkv"
    path.write_bytes(content[:place] + b"\x01" + 7 * b"\xff" + content[place + 8 : -99])
    assert not is_cut_short(path)


@pytest.mark.parametrize(("place", "change"), [(0, b"free"), (16, bytes(4))])
def test_an_edit_list_without_a_time_scale_means_nothing(videos, tmp_path, place, change):
    content = bytearray(with_edit(videos["v.mp4", "mp4v"], 0))
    (path := tmp_path / "v.mp4").write_bytes(content)
    assert is_trimmed(path)
    place += content.index(b"mvhd")
    content[place : place + 4] = change
    path.write_bytes(content)
    assert not is_trimmed(path)


@pytest.mark.parametrize(
    ("missing", "length", "expected"), [(0, 20, False), (1, 8, True), (1, 7, False), (99, 20, True)]
)
def test_every_chunk_of_an_avi_above_1_gb_is_checked(tmp_path, missing, length, expected):
    """A chunk of an odd size is followed by a byte that it does not count."""
    first = b"RIFF" + (15).to_bytes(4, "little") + b"AVI " + bytes(11) + b"\0"
    second = b"RIFF" + (length - 8 + missing).to_bytes(4, "little") + b"AVIX" + bytes(99)
    (path := tmp_path / "v.avi").write_bytes(first + second[:length])
    assert is_cut_short(path) == expected


@pytest.mark.parametrize(("size", "expected"), [(0, False), (0xFFFFFFFF, False), (10**9, True)])
def test_an_avi_recording_that_was_not_closed_has_no_size(videos, tmp_path, size, expected):
    content = videos["v.avi", "MJPG"]
    path = tmp_path / "v.avi"
    path.write_bytes(content[:4] + size.to_bytes(4, "little") + content[8:])
    assert is_cut_short(path) == expected


def test_any_bytes_can_be_checked(videos, tmp_path):
    """What is damaged may state anything."""
    rng = np.random.default_rng(0)
    path = tmp_path / "v"
    for content in videos.values():
        for length in (12, 40, 200, 3000):
            data = bytearray(content[:length])
            for place in rng.integers(12, length, 8) if length > 12 else ():
                data[place] = rng.integers(256)
            path.write_bytes(data)
            assert is_cut_short(path) in (True, False)
            assert is_trimmed(path) in (True, False)


class FakeCapture:
    """A video with given times of its frames in milliseconds."""

    def __init__(self, times, count=-9.2e16):
        self._times, self._number, self._count = times, -1, count

    def isOpened(self):  # noqa: N802
        return True

    def get(self, what):
        if what == cv2.CAP_PROP_POS_MSEC:
            return self._times[self._number]
        return {cv2.CAP_PROP_FPS: RATE, cv2.CAP_PROP_FRAME_COUNT: self._count}.get(what, 32)

    def grab(self):
        self._number += 1
        return self._number < len(self._times)

    def retrieve(self):
        return True, PIXELS[0]

    def release(self):
        pass


@pytest.mark.parametrize(
    ("stated", "times"),
    [
        ([0, 100, 150, 900], [0, 0.1, 0.15, 0.9]),  # of a variable rate
        ([40, 140, 240], [0.04, 0.14, 0.24]),
        ([0, 0, 0, 0], [0, 0.1, 0.2, 0.3]),  # not stated
        ([float("nan"), float("inf"), -1], [0, 0.1, 0.2]),
        ([float("inf"), 200], [0, 0.2]),
        ([0, 500, 300, 700], [0, 0.5, 0.6, 0.7]),  # not in order
    ],
)
def test_times_are_the_containers_unless_they_are_missing(tmp_path, monkeypatch, stated, times):
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: FakeCapture(stated))
    (path := tmp_path / "v").touch()
    found = [item.seconds for item in read_video(path, "v", 1)]
    np.testing.assert_allclose(found, times)


@pytest.mark.parametrize(
    ("count", "last", "is_missing"),
    [(100, 8.95, False), (100, 8.85, True), (1000, 94.95, False), (1000, 94.85, True)],
)
def test_the_sound_may_be_a_second_or_a_twentieth_longer(
    tmp_path, monkeypatch, count, last, is_missing
):
    """The last frame is shown for a tenth of a second; the file does not state its size."""
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: FakeCapture([0, 1000 * last], count))
    content = b"\x1a\x45\xdf\xa3\x80" + EBML_SEGMENT + b"\x01" + 7 * b"\xff"
    _, faults = read(tmp_path / "v.mkv", content)
    text = f"expected {count / 10:.1f} s of frames in v.mkv, found {last + 0.1:.1f} s (2 frames)"
    assert faults == [f"{text}: the file is cut short or damaged"] * is_missing


def test_a_video_that_vanishes_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: FakeCapture([0]))
    frame, end = read_video(tmp_path / "v", "v", 1)
    assert not frame.fault
    assert end.fault == "cannot read v to its end: No such file or directory"


def test_only_formats_that_state_a_duration_are_compared_with_it():
    assert "MPEG" not in TIMED
    assert "MPEG transport stream" not in TIMED


def test_checking_needs_no_opencv():
    code = "import sys, datasets.inputs; assert 'cv2' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
