"""Downloads from a loopback server that cuts connections and lies."""

import hashlib
import http.server
import re
import ssl
import threading
from collections.abc import Callable
from http.client import HTTPResponse
from pathlib import Path
from types import SimpleNamespace

import pytest

from datasets import transport
from datasets.base import DatasetError
from datasets.transport import ATTEMPTS, RemoteFile, fetch

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Handler = http.server.BaseHTTPRequestHandler
Answer = Callable[[Handler], None]


def whole(handler: Handler, content: bytes = CONTENT, tag: str = '"1"', sent: int = 10**9) -> None:
    """Answer as a good server does; send only some of the bytes."""
    found = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(found[1]) if found and handler.headers.get("If-Range") == tag else 0
    if start >= len(content):
        handler.send_error(416)
        return
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    handler.send_header("Content-Length", str(len(content) - start))
    if tag:
        handler.send_header("ETag", tag)
    handler.end_headers()
    handler.wfile.write(content[start:][:sent])


def cut(handler: Handler) -> None:
    whole(handler, sent=30_000)


def silent(handler: Handler) -> None:
    """Close the connection without an answer."""


def answer(status: int, headers: dict[str, str], body: bytes = b"") -> Answer:
    def send(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


class Server:
    """A server that gives the answers of a list, the last one again and again."""

    def __init__(self):
        self.answers: list[Answer] = [whole]
        self.ranges: list[str | None] = []  # asked for
        owner = self

        class Scripted(Handler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):  # noqa: N802 (the name that the base class calls)
                owner.ranges.append(self.headers.get("Range"))
                chosen = owner.answers.pop(0) if len(owner.answers) > 1 else owner.answers[0]
                self.close_connection = True
                chosen(self)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
        self.url = f"http://127.0.0.1:{self._server.server_port}/data.zip"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "deep/data.zip"


def get(server: Server, target: Path, *answers: Answer, **known) -> str:
    """Download with these answers; return the digest."""
    server.answers = list(answers) or [whole]
    return fetch(RemoteFile(server.url, **known), target, wait=0)


def check_refused(server, target, message, *answers, **known) -> None:
    with pytest.raises(DatasetError, match=message):
        get(server, target, *answers, **known)
    assert not target.exists()


KNOWN = [{}, {"size": len(CONTENT)}, {"size": len(CONTENT), "sha256": SHA256.upper()}]


class TestFetch:
    @pytest.mark.parametrize("known", KNOWN)
    def test_the_file_alone_remains(self, server, target, known):
        seen = []
        remote = RemoteFile(server.url, **known)
        assert fetch(remote, target, on_bytes=lambda *sizes: seen.append(sizes)) == SHA256
        assert target.read_bytes() == CONTENT
        assert [path.name for path in target.parent.iterdir()] == ["data.zip"]
        assert seen[-1] == (len(CONTENT), len(CONTENT))

    @pytest.mark.parametrize("known", KNOWN)
    def test_cut_connections_are_continued(self, server, target, known):
        assert get(server, target, cut, silent, cut, cut, whole, **known) == SHA256
        assert server.ranges == [None, *(f"bytes={n}-" for n in (30_000, 30_000, 60_000, 90_000))]

    def test_any_number_of_cuts_that_each_bring_bytes(self, server, target):
        assert get(server, target, lambda handler: whole(handler, sent=10_000)) == SHA256
        assert len(server.ranges) == 11 > ATTEMPTS

    @pytest.mark.parametrize(
        "error",
        [ssl.SSLError(1, "bad record"), OSError(113, "No route"), TimeoutError("timed out")],
    )
    def test_errors_of_the_connection_are_no_errors_of_the_disk(
        self, server, target, monkeypatch, caplog, error
    ):
        read, errors = HTTPResponse.read, [error]

        def fail_once(answer: HTTPResponse, size: int) -> bytes:
            if errors:
                raise errors.pop()
            return read(answer, size)

        monkeypatch.setattr(HTTPResponse, "read", fail_once)
        assert get(server, target) == SHA256
        assert f"the connection failed ({error.strerror or error}) at 0 of" in caplog.text

    def test_a_later_run_continues(self, server, target):
        check_refused(
            server,
            target,
            "30000 of 102400 bytes are in .*: the same command continues there",
            cut,
            silent,
        )
        assert len(server.ranges) == ATTEMPTS
        server.ranges.clear()
        assert get(server, target) == SHA256
        assert server.ranges == ["bytes=30000-"]

    def test_an_existing_file_is_checked_only(self, server, target):
        get(server, target)
        server.ranges.clear()
        assert get(server, target, sha256=SHA256) == SHA256
        assert server.ranges == []
        with pytest.raises(
            DatasetError, match=f"SHA-256 {'0' * 64} .*found {SHA256}.*move this file elsewhere"
        ):
            get(server, target, sha256="0" * 64)
        assert target.read_bytes() == CONTENT

    def test_an_existing_file_of_another_size(self, server, target):
        get(server, target)
        message = f"^expected 5 bytes of {server.url}, found 102400 in {target} .*; move this file"
        with pytest.raises(DatasetError, match=message):
            get(server, target, size=5)

    def test_an_existing_file_that_cannot_be_read(self, server, target):
        target.mkdir(parents=True)
        with pytest.raises(DatasetError, match=f"^cannot read {target}: Is a directory$"):
            get(server, target)

    def test_a_folder_that_is_a_file(self, server, target):
        target.parent.write_bytes(b"")
        check_refused(server, target, f"cannot write {target}: (File exists|Not a directory)")

    def test_a_temporary_status_is_tried_again(self, server, target, caplog):
        assert get(server, target, answer(503, {}), answer(429, {}), whole) == SHA256
        assert [message.partition(" at ")[2] for message in caplog.messages] == [
            "0 of an unknown number of bytes; trying again"
        ] * 2

    def test_each_failure_doubles_the_wait_and_bytes_begin_it_anew(
        self, server, target, monkeypatch
    ):
        waits = []
        monkeypatch.setattr(transport.time, "sleep", waits.append)
        server.answers = [silent, silent, silent, cut, silent, whole]
        fetch(RemoteFile(server.url), target, wait=3)
        assert waits == [3, 6, 12, 3, 6]

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
    def test_each_temporary_status(self, server, target, status):
        """A later request may succeed."""
        assert get(server, target, answer(status, {}), whole) == SHA256

    @pytest.mark.parametrize("status", [403, 404, 410, 501, 505])
    def test_another_status_is_not(self, server, target, status):
        check_refused(server, target, f"the server answered {status}", answer(status, {}))
        assert len(server.ranges) == 1

    def test_no_server(self, server, target):
        url = server.url
        server.close()
        with pytest.raises(
            DatasetError,
            match=r"cannot download .*the connection failed .*refused\); the same command starts",
        ):
            fetch(RemoteFile(url), target, wait=0)

    @pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "data:,x", "x"])
    def test_only_web_addresses(self, target, url):
        with pytest.raises(DatasetError, match="expected an address with http or https, found"):
            fetch(RemoteFile(url), target)

    def test_too_little_space(self, server, target, monkeypatch):
        monkeypatch.setattr(transport.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        check_refused(
            server, target, "expected 102400 free bytes in .*, found 1000; the same command starts"
        )

    def test_exactly_enough_space(self, server, target, monkeypatch):
        check_refused(server, target, "30000 of 102400 bytes", cut, silent)
        free = SimpleNamespace(free=72_399)
        monkeypatch.setattr(transport.shutil, "disk_usage", lambda _: free)
        check_refused(
            server, target, "expected 72400 free bytes in .*, found 72399; 30000 of 102400 bytes"
        )
        free.free += 1
        assert get(server, target) == SHA256

    def test_a_file_in_chunks(self, server, target):
        body = b"".join(b"%x\r\n%s\r\n" % (50, CONTENT[n : n + 50]) for n in range(0, 102_400, 50))
        headers = {"Transfer-Encoding": "chunked"}
        complete = answer(200, headers, body + b"0\r\n\r\n")
        assert get(server, target, answer(200, headers, body[:5000]), complete) == SHA256
        assert target.read_bytes() == CONTENT


class TestAnotherVersion:
    """A download never joins the bytes of two versions."""

    @staticmethod
    def new(handler: Handler) -> None:
        whole(handler, CONTENT[::-1], '"2"')

    def test_it_starts_anew(self, server, target):
        get(server, target, cut, self.new)
        assert target.read_bytes() == CONTENT[::-1]

    @pytest.mark.parametrize("tag", ["", 'W/"1"'])
    def test_without_a_name_of_the_version_it_starts_anew(self, server, target, tag):
        def nameless(handler: Handler) -> None:
            whole(handler, tag=tag, sent=30_000)

        get(server, target, nameless, whole)
        assert server.ranges == [None, None]
        assert target.read_bytes() == CONTENT

    def test_a_part_of_another_address_is_not_continued(self, server, target):
        check_refused(server, target, "cannot download", cut, silent)
        server.url += "?2"
        server.ranges.clear()
        get(server, target)
        assert server.ranges == [None]

    @pytest.mark.parametrize("gone", ["data.zip.part", "data.zip.part.source"])
    def test_a_part_without_the_other_file_is_not_continued(self, server, target, gone):
        check_refused(server, target, "cannot download", cut, silent)
        (target.parent / gone).unlink()
        server.ranges.clear()
        assert get(server, target) == SHA256
        assert server.ranges == [None]

    def test_a_part_that_is_longer_than_the_file(self, server, target):
        check_refused(server, target, "cannot download", cut, silent)
        with (target.parent / "data.zip.part").open("ab") as file:
            file.write(bytes(200_000))
        assert get(server, target) == SHA256
        assert server.ranges[-2:] == ["bytes=230000-", None]

    def test_a_part_that_has_all_bytes_already(self, server, target):
        """As after an end of the program just before the part gets its name."""
        check_refused(server, target, "cannot download", cut, silent)
        digest = hashlib.sha256(CONTENT[:30_000]).hexdigest()
        assert get(server, target, answer(416, {"Content-Range": "bytes */30000"})) == digest


class TestLies:
    @pytest.mark.parametrize(
        "range_",
        ["bytes 0-102399/102400", "bytes 30000-50000/102400", "bytes 40000-102399/102400", "", "x"],
    )
    def test_another_range(self, server, target, range_):
        headers = {"Content-Range": range_} if range_ else {}
        lie = answer(206, headers | {"Content-Length": "72400"}, CONTENT[30_000:])
        message = f"expected the bytes from 30000 on of .*, found {range_ or 'no range'}; run"
        check_refused(server, target, message, cut, lie)
        assert get(server, target) == SHA256
        assert server.ranges[-1] is None  # the part was removed

    def test_the_range_of_another_version(self, server, target):
        """A server that ignores If-Range."""
        headers = {"Content-Range": "bytes 30000-102399/102400", "Content-Length": "72400"}
        lie = answer(206, headers | {"ETag": '"2"'}, CONTENT[30_000:])
        message = "found bytes 30000-102399/102400 of another version; run the command again"
        check_refused(server, target, message, cut, lie)
        assert get(server, target) == SHA256

    def test_a_range_that_was_not_asked_for(self, server, target):
        lie = answer(206, {"Content-Range": "bytes 0-102399/102400"}, CONTENT)
        check_refused(server, target, "expected the bytes from 0 on of", lie)

    def test_another_size_than_the_published(self, server, target):
        message = "expected 5 bytes at .*, found 102400: the dataset was changed"
        check_refused(server, target, message, size=5)
        assert not list(target.parent.iterdir())

    def test_another_total_when_it_continues(self, server, target):
        lie = answer(206, {"Content-Range": "bytes 30000-102400/102401"}, CONTENT[30_000:])
        message = "expected 102400 bytes at .*, found 102401"
        check_refused(server, target, message, cut, lie, size=len(CONTENT))
        assert not list(target.parent.iterdir())

    def test_fewer_bytes_than_stated(self, server, target):
        short = answer(200, {"Content-Length": "102500"}, CONTENT)
        check_refused(server, target, "the connection was cut; the same command starts", short)

    def test_more_bytes_than_published(self, server, target):
        server.answers, seen = [answer(200, {"ETag": '"1"'}, CONTENT + bytes(10**6))], []
        remote = RemoteFile(server.url, size=102_400)
        with pytest.raises(DatasetError, match=r"expected 102400 bytes from .*, found more"):
            fetch(remote, target, on_bytes=lambda done, _: seen.append(done))
        assert seen[-1] == 102_401  # an answer without end would fill the disk
        assert not list(target.parent.iterdir())

    def test_no_size_at_all(self, server, target):
        message = "expected the size of .* in the server's answer, found none"
        check_refused(server, target, message, answer(200, {}, CONTENT))

    def test_another_content(self, server, target):
        other = CONTENT[:-1] + b"x"

        def lie(handler: Handler) -> None:
            whole(handler, other)

        found = hashlib.sha256(other).hexdigest()
        message = (
            f"expected SHA-256 {SHA256} of .*, found {found} .*the downloaded file was removed"
        )
        check_refused(server, target, message, lie, sha256=SHA256)
        assert list(target.parent.iterdir()) == []
        assert get(server, target, sha256=SHA256) == SHA256

    def test_a_web_page(self, server, target):
        page = {"Content-Type": "text/html; charset=utf-8", "Content-Length": "5"}
        check_refused(server, target, "found a web page", answer(200, page, b"login"))

    def test_a_compressed_answer(self, server, target):
        packed = {"Content-Encoding": "gzip", "Content-Length": "5"}
        check_refused(server, target, "found it encoded", answer(200, packed, b"12345"))


class TestRedirects:
    def test_they_are_followed_also_when_it_continues(self, server, target):
        there = answer(302, {"Location": "/elsewhere", "Content-Length": "0"})
        assert get(server, target, there, cut, there, whole) == SHA256
        assert server.ranges == [None, None, "bytes=30000-", "bytes=30000-"]

    @pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
    def test_only_to_web_addresses(self, server, target, place):
        lie = answer(302, {"Location": place, "Content-Length": "0"})
        check_refused(
            server, target, f"redirect to https, found {place}|'{place}' is not allowed", lie
        )

    def test_not_from_https_to_http(self):
        request = transport.urllib.request.Request("https://a/x")
        with pytest.raises(DatasetError, match="expected a redirect to https, found http://b/x"):
            transport._SafeRedirects().redirect_request(request, None, 302, "", {}, "http://b/x")
