"""Servers that misbehave: each ends in one message, within a bound of time and of disk space."""

import socket
import threading
import time
from contextlib import suppress

import pytest
from made_shards import samples, write_tar

from elastic_nas.data import remote, web
from elastic_nas.data.dataset import load_dataset
from elastic_nas.data.remote import Cache
from elastic_nas.data.versions import version_of
from elastic_nas.data.web import check_url
from elastic_nas.errors import DataError
from elastic_nas.files import user_folder

BOUND = 100_000
"""Bytes that fetched shards may take."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch, tmp_path):
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(remote, "TRIES", 2)
    monkeypatch.setattr(remote, "GROWTH", 20_000)
    monkeypatch.setenv("ELASTIC_NAS_HOME", str(tmp_path / "home"))


def hurry(monkeypatch, name):
    """Give slow servers up soon; with the others, a busy machine must not be taken for slow."""
    if "stall" in name:
        monkeypatch.setattr(web, "STALLED_S", 0.2)
    if "drip" in name or "continuations" in name:
        monkeypatch.setattr(web, "HEAD_S", 0.4)
        monkeypatch.setattr(web, "WINDOW_S", 0.4)


class Raw:
    """Answers each connection with the next of some bytes; the last one again and again.

    An answer is bytes, or a function of the connection. `{url}` in bytes is the server's address.
    """

    def __init__(self, *answers):
        self.answers, self.requests, self._closed = list(answers), [], False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closed = True
        with suppress(OSError):
            socket.create_connection(self._listening.getsockname(), 1).close()
        self._thread.join()
        self._listening.close()

    def _serve(self):
        while not self._closed:
            connection, _ = self._listening.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection):
        with connection, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request and request[:1] != b"\x16":  # that begins TLS
                part = connection.recv(65536)
                if not part:
                    return
                request += part
            self.requests.append(request)
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if callable(answer):
                answer(connection)
            else:
                connection.sendall(answer.replace(b"{url}", self.url.encode()))


def answer(body=b"", *headers, status="200 OK"):
    head = [f"HTTP/1.1 {status}", *headers]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def without_end(start, part, pause=0.0):
    """Sends the start, then the same part for ever."""

    def send(connection):
        connection.sendall(start)
        while True:
            connection.sendall(part)
            time.sleep(pause)

    return send


def reset(connection):
    connection.sendall(answer(b"x" * 100, "Content-Length: 500"))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


FULL = b"x" * 1000
TAGGED = ('ETag: "1"', "Accept-Ranges: bytes")
HALF = answer(FULL[:500], "Content-Length: 1000", *TAGGED)


def part(first, last, total, *headers, body=None, tag='"1"'):
    body = FULL[first : last + 1] if body is None else body
    ranges = f"Content-Range: bytes {first}-{last}/{total}"
    return answer(body, ranges, f"ETag: {tag}", *headers, status="206 Partial Content")


def used():
    total = 0
    for path in (user_folder() / "shards").glob("*.*"):
        with suppress(FileNotFoundError):  # finished or given up meanwhile
            total += path.stat().st_size
    return total


MISBEHAVING = {
    "no such length": ([answer(FULL, "Content-Length: -5")], "impossible length, '-5'"),
    "a length that is no whole number": ([answer(FULL, "Content-Length: 1e3")], "length, '1e3'"),
    "an absurd length": ([answer(FULL, f"Content-Length: {10**29}")], "Raise cache_gb"),
    "two lengths": ([answer(FULL, "Content-Length: 5", "Content-Length: 6")], "impossible length"),
    "a shorter body": ([answer(FULL, "Content-Length: 5000")], "got 1,000 of 5,000 bytes"),
    "no end": ([without_end(answer(), FULL * 50)], "Raise cache_gb"),
    "chunks without end": (
        [without_end(answer(b"", "Transfer-Encoding: chunked"), b"3e8\r\n" + FULL + b"\r\n")],
        "Raise cache_gb",
    ),
    "broken chunks": ([answer(b"zz\r\nxx", "Transfer-Encoding: chunked")], "cannot fetch"),
    "negative chunks": ([answer(b"-5\r\nxx", "Transfer-Encoding: chunked")], "cannot fetch"),
    "huge chunks": ([answer(b"f" * 20 + b"\r\nxx", "Transfer-Encoding: chunked")], "cannot fetch"),
    "packed": ([answer(FULL, "Content-Encoding: gzip")], "packed (gzip)"),
    "a part unasked": ([part(0, 999, 1000)], "answers 206"),
    "nothing": ([b""], "cannot fetch"),
    "junk": ([b"\x1b[2Jjunk\r\n\r\n"], "cannot fetch"),
    "no content": ([answer(status="204 No Content")], "answers 204"),
    "escape sequences": ([answer(status="404 \x1b[31m\x07Gone")], "answers 404"),
    "a long reason": ([answer(status="404 " + "x" * 50_000)], "answers 404"),
    "an odd status": ([answer(status="999 What")], "answers 999 What"),
    "no access": ([answer(status="401 Unauthorized")], "answers 401"),
    "too busy": ([answer(b"", "Retry-After: 99999", status="503 Busy")], "503 Busy; tried 2 times"),
    "many headers": ([answer(FULL, *["X: y"] * 2000)], "headers"),
    "a header of megabytes": ([answer(FULL, f"X: {'y' * 3_000_000}")], "header line"),
    "reset": ([reset], "cannot fetch"),
    "redirects without end": ([answer(b"", "Location: {url}/x", status="302 F")], "more than 10"),
    "a redirect to nowhere": ([answer(status="302 Found")], "redirected to nowhere"),
    "a redirect to a file": (
        [answer(b"", "Location: file:///etc/passwd", status="302 Found")],
        "redirected to 'file:///etc/passwd': it begins with neither",
    ),
    "a redirect to ftp": ([answer(b"", "Location: ftp://x/y", status="301 F")], "neither http"),
    "a redirect with a password": (
        [answer(b"", "Location: http://a:b@127.0.0.1/", status="307 F")],
        "passwords",
    ),
    "a redirect to control characters": (
        [answer(b"", "Location: http://x/\x1b[2J", status="308 F")],
        "%20",
    ),
    "a redirect to no port": ([answer(b"", "Location: http://x:99999", status="302 F")], "Port"),
    "a redirect to broken brackets": ([answer(b"", "Location: http://[x", status="302 F")], "IPv6"),
    "a redirect with a body without end": (
        [without_end(answer(b"", "Location: /", status="302 F"), FULL), answer(status="404 N")],
        "answers 404",
    ),
    "a stall": ([lambda c: time.sleep(1.5)], "nothing came for 0.2 seconds"),
    "a head that drips": ([without_end(b"HTTP/1.1 200 OK\r\nX: ", b"y", 0.02)], "too slowly"),
    "a head of continuations": (
        [without_end(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.001)],
        "too slowly",
    ),
    "a body that drips": (
        [without_end(answer(b"", "Content-Length: 50000"), b"y", 0.02)],
        "too slowly",
    ),
    "a body without length that drips": ([without_end(answer(), b"y", 0.02)], "too slowly"),
    "chunk lengths that drip": (
        [without_end(answer(b"", "Transfer-Encoding: chunked"), b"0", 0.02)],
        "too slowly",
    ),
    "another range": ([HALF, part(0, 499, 1000)], "other bytes"),
    "a range that makes no sense": ([HALF, part(500, 400, 1000, body=b"x")], "other bytes"),
    "a part without a range": (
        [HALF, answer(FULL, 'ETag: "1"', status="206 Partial Content")],
        "other bytes",
    ),
    "another total": ([HALF, part(500, 1999, 2000, body=FULL * 2)], "other bytes"),
    "another version": ([HALF, part(500, 999, 1000, tag='"2"')], "other bytes"),
    "a range of another length": ([HALF, part(500, 999, 1000, "Content-Length: 7")], "other bytes"),
    "a shorter range": ([HALF, part(500, 599, 1000)], "got 600 of 1,000 bytes"),
    "a longer body than the range": ([HALF, part(500, 999, 1000, body=FULL * 9)], "got more than"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISBEHAVING)
def test_a_misbehaving_server_ends_in_one_message(name, monkeypatch):
    answers, words = MISBEHAVING[name]
    hurry(monkeypatch, name)
    with Raw(*answers) as server, pytest.raises(DataError) as caught:
        Cache(BOUND).fetch(f"{server.url}/a.tar")
    message = str(caught.value)
    assert words in message, message
    assert message.replace("\n", "").isprintable()
    assert len(message) <= 2000
    assert used() == 0


def test_a_disk_is_not_filled_beyond_the_bound(monkeypatch):
    most, write = [0], Cache.reserve

    def reserve(self, file, size):
        done = write(self, file, size)
        most[0] = max(most[0], used())
        return done

    monkeypatch.setattr(Cache, "reserve", reserve)
    with Raw(without_end(answer(), FULL * 50)) as server, pytest.raises(DataError):
        Cache(BOUND).fetch(f"{server.url}/a.tar")
    assert 20_000 <= most[0] <= BOUND


def test_downloads_at_once_stay_below_the_bound_together():
    """Of servers that state no length, and never end."""
    most, ended, told = 0, threading.Event(), []

    def fetch(url):
        with suppress(DataError):
            Cache(BOUND).fetch(url)
        told.append(url)

    with Raw(without_end(answer(), FULL, 0.0005)) as server:
        threads = [threading.Thread(target=fetch, args=(f"{server.url}/{n}",)) for n in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            most = max(most, used())
            ended.wait(0.005)
    assert len(told) == 4
    assert 0 < most <= BOUND


def test_good_answers_after_bad_ones_are_taken():
    with Raw(HALF, part(500, 999, 1000)) as server:
        Cache(BOUND).fetch(f"{server.url}/a.tar")
    assert b"Range: bytes=500-" in server.requests[1]
    with Raw(answer(b"", "Location: /b", status="302 F"), answer(FULL)) as server:
        Cache(BOUND).fetch(f"{server.url}/a.tar")
    assert used() == 2000 + len('"1"')
    chunked = answer(b"3e8\r\n" + FULL + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    with Raw(chunked) as server, Cache(BOUND).open(f"{server.url}/c.tar") as file:
        assert file.read() == FULL


@pytest.mark.parametrize(
    "given", [part(0, 9, 1000), part(5, 10, 1000), answer(FULL), part(9, 5, 3)]
)
def test_another_part_than_asked_for_makes_the_whole_shard_fetched(given):
    with Raw(given, answer(FULL[:20] + b"y" * 980, *TAGGED)) as server:
        url = f"{server.url}/a.tar"
        assert Cache(BOUND).read(url, 15, 10, version_of(url, '"1"', 1000)) == b"xxxxxyyyyy"


def test_a_part_is_cut_to_what_was_asked_for():
    with Raw(part(5, 14, 1000, body=FULL * 100)) as server:
        url = f"{server.url}/a.tar"
        known = version_of(url, '"1"', 1000)
        assert Cache(BOUND).read(url, 5, 10, known) == FULL[:10]


def test_a_page_instead_of_a_shard_is_told_and_not_kept(tmp_path):
    path = tmp_path / "set.yaml"
    for body, words in ((b"<html>" * 300, "no readable tar"), (b"", "no readable tar")):
        with Raw(answer(body, f"Content-Length: {len(body)}")) as server:
            path.write_text(f"train: {server.url}/a.tar\n")
            with pytest.raises(DataError, match=words):
                load_dataset(str(path))
    assert not list((user_folder() / "shards").glob("*.tar"))


def test_what_comes_fast_enough_may_take_longer_than_a_window(monkeypatch):
    content = write_tar(user_folder() / "x.tar", samples(range(5))).read_bytes()
    monkeypatch.setattr(web, "WINDOW_S", 1.0)

    def slowly(connection):
        connection.sendall(answer(b"", f"Content-Length: {len(content)}"))
        for begin in range(0, len(content), 1500):
            connection.sendall(content[begin : begin + 1500])
            time.sleep(0.15)

    with Raw(slowly) as server, Cache(BOUND).open(f"{server.url}/a.tar") as file:
        assert file.read() == content


def test_a_server_without_tls_is_told():
    with Raw(answer(FULL)) as server, pytest.raises(DataError, match="SSL"):
        Cache(BOUND).fetch(server.url.replace("http:", "https:"))


@pytest.mark.parametrize(
    "url",
    [
        "http://", "https:///a.tar", "http://x:99999/", "http://x:-1/", "http://x:a/", "http://[::1/a",
        "http://[zz]/", "http://a b/", "http://x/ü", "http://u:p@x/", "http://u@x/", "ftp://x/a",
        "file:///etc/passwd", "http://x/\n", "http://x/\x1b[2J", "http://x/" + "a" * 3000, "", "x",
    ],
)  # fmt: skip
def test_what_is_no_url_is_refused_before_anything_is_asked(url):
    with pytest.raises(ValueError, match=r"\w"):
        check_url(url)


@pytest.mark.parametrize("url", ["http://x", "https://x:443/a%20b?c=d", "http://[::1]:80/a.tar"])
def test_urls_are_taken(url):
    check_url(url)


def test_a_server_name_that_cannot_be_is_told():
    for url in (f"http://{'a' * 300}.org/", "http://a..b/", "http://.../"):
        with pytest.raises(DataError, match="cannot fetch"):
            Cache(BOUND).fetch(url)


def test_a_redirect_keeps_to_https():
    there = "https://example.org/a.tar"
    assert web._redirected(there, "/b.tar") == "https://example.org/b.tar"
    assert web._redirected("http://example.org/a.tar", there) == there
    with pytest.raises(web.Refused, match="from https to"):
        web._redirected(there, "http://example.org/a.tar")
