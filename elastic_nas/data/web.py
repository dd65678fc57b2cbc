"""Asking web servers that may be slow, broken or hostile: each answer within a time, or none.

Only http and https are spoken, also after redirects. A thread watches each connection and shuts it
down where the head of the answer takes too long, or where its body comes too slowly, byte by byte.
"""

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from elastic_nas._version import __version__

STALLED_S = 30.0
"""Without a byte, after which an answer has failed."""

HEAD_S = 60.0
"""For the head of an answer, with all its redirects."""

WINDOW_S = 60.0
"""Time within which a body must bring `LEAST_RATE` x `WINDOW_S` bytes."""

LEAST_RATE = 1000
"""Bytes a second, averaged over `WINDOW_S`; what comes more slowly has failed."""

MOST_REDIRECTS = 10

MOST_URL = 2000
"""Characters."""

CHUNK = 1 << 20

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_LENGTH = re.compile(r"[0-9]{1,30}")
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/(?:([0-9]{1,18})|\*)")


class MayPass(Exception):
    """An answer that does not do, but another try may."""


class Refused(Exception):
    """An answer that does not do, and will not."""


class Status(Exception):
    """An answer that says why there is none.

    Args:
        code: Such as 404.
        words: What the server says to it.
    """

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"the server answers {code} {' '.join(words.split())[:100]}".rstrip())
        self.code = code


def check_url(url: str) -> None:
    """See that a URL can be asked for.

    Raises:
        ValueError: It is none of http or https, or malformed; the message says what is wrong.
    """
    if len(url) > MOST_URL:
        raise ValueError(f"it has more than {MOST_URL:,} characters")
    if not url.isascii() or any(not "!" <= character <= "~" for character in url):
        raise ValueError("other characters than plain ones are written like %20")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("it begins with neither http:// nor https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("names and passwords in it are not supported")
    if not parts.hostname:
        raise ValueError("it names no server")
    _ = parts.port  # raises ValueError where it is out of range


class Watch:
    """Shuts connections down once a time is over, unless it is put off before."""

    def __init__(self, seconds: float) -> None:
        self._ends, self._fired, self._done = time.monotonic() + seconds, False, False
        self._changed = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._bytes = 0

    @contextmanager
    def running(self) -> Iterator["Watch"]:
        """Watch while the block runs."""
        thread = threading.Thread(target=self._run, name="watching a connection", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            with self._changed:
                self._done = True
                self._changed.notify()
            thread.join()
            for watched in self._sockets:
                watched.close()

    def _run(self) -> None:
        with self._changed:
            while not self._done and (left := self._ends - time.monotonic()) > 0:
                self._changed.wait(left)
            if self._done:
                return
            self._fired = True
            for watched in self._sockets:
                _shut(watched)

    def add(self, connected: socket.socket) -> None:
        """Watch a connection, also while another object speaks TLS over it."""
        with self._changed:
            self._sockets.append(connected.dup())
            if self._fired:
                _shut(connected)

    def put_off(self) -> None:
        """Begin the next `WINDOW_S`."""
        with self._changed:
            self._ends, self._bytes = time.monotonic() + WINDOW_S, 0
            self._changed.notify()

    def count(self, size: int) -> None:
        """Say that bytes have come; enough of them put the end off.

        Raises:
            MayPass: The time is over.
        """
        self.check()
        self._bytes += size
        if self._bytes >= LEAST_RATE * WINDOW_S:
            self.put_off()

    def check(self) -> None:
        """Refuse an answer that ended since the time was over.

        Raises:
            MayPass: It is.
        """
        if self._fired:
            raise MayPass("its bytes come too slowly")


def _shut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


class _Http(HTTPConnection):
    watch: Watch

    def connect(self) -> None:
        super().connect()
        self.watch.add(self.sock)


class _Https(HTTPSConnection, _Http):
    """By the order of its bases, TLS begins after the connection is watched."""


def _watched(kind: type[_Http], watch: Watch, host: str, **options: Any) -> _Http:
    connection = kind(host, **options)
    connection.watch = watch
    return connection


class _HttpHandler(HTTPHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, req: Request) -> HTTPResponse:
        return self.do_open(partial(_watched, _Http, self._watch), req)


class _HttpsHandler(HTTPSHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__(context=_context())
        self._watch = watch

    def https_open(self, req: Request) -> HTTPResponse:
        return self.do_open(partial(_watched, _Https, self._watch, context=_context()), req)


@lru_cache(1)
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


def _opener(watch: Watch) -> OpenerDirector:
    """What speaks HTTP alone, and leaves redirects and errors to us.

    That of urllib would read the body of a redirect, of any length, and follow it to FTP.
    """
    opener = OpenerDirector()
    for handler in (ProxyHandler(), _HttpHandler(watch), _HttpsHandler(watch)):
        opener.add_handler(handler)
    return opener


@contextmanager
def asked(url: str, headers: dict[str, str]) -> Iterator[tuple[HTTPResponse, Watch]]:
    """An answer with status 200, or 206 where a range was asked for, and what watches its body.

    Raises:
        OSError, HTTPException: There is no answer.
        ValueError: The URL, or one that it is redirected to, is none.
        MayPass, Refused, Status: The answer does not do.
    """
    always = {"User-Agent": f"elastic-nas/{__version__}", "Accept-Encoding": "identity"}
    with Watch(HEAD_S).running() as watch:
        response = _followed(_opener(watch), url, always | headers, watch)
        with response:
            watch.check()
            _check_answer(response, "Range" in headers)
            watch.put_off()
            yield response, watch


def _followed(
    opener: OpenerDirector, url: str, headers: dict[str, str], watch: Watch
) -> HTTPResponse:
    for _ in range(MOST_REDIRECTS + 1):
        check_url(url)
        try:
            response: HTTPResponse = opener.open(Request(url, headers=headers), timeout=STALLED_S)
        except Exception:
            watch.check()  # shut down, it fails in many ways
            raise
        if response.status not in _REDIRECTS:
            return response
        response.close()  # its body is not looked at
        url = _redirected(url, response.headers.get("Location"))
    raise Refused(f"it is redirected more than {MOST_REDIRECTS} times")


def _redirected(url: str, location: str | None) -> str:
    if not location:
        raise Refused("it is redirected to nowhere")
    try:
        there = urljoin(url, location)
        check_url(there)
    except ValueError as error:
        raise Refused(f"it is redirected to {location[:200]!r}: {error}") from error
    if url.startswith("https:") and not there.startswith("https:"):
        raise Refused(f"it is redirected from https to {location[:200]!r}, which anybody can alter")
    return there


def _check_answer(response: HTTPResponse, partly: bool) -> None:
    if response.status != 200 and not (partly and response.status == 206):
        raise Status(response.status, response.reason or "")
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        raise Refused(f"the server sends it packed ({coding[:40]}), though asked not to")


def length_of(response: HTTPResponse) -> int | None:
    """Bytes of the body, where the answer says so.

    Raises:
        MayPass: It says something impossible, or two things.
    """
    if "chunked" in response.headers.get("Transfer-Encoding", "").lower():
        return None
    stated = {text.strip() for text in response.headers.get_all("Content-Length") or []}
    if not stated:
        return None
    text = stated.pop()
    if stated or not _LENGTH.fullmatch(text):
        raise MayPass(f"the server states an impossible length, {text[:40]!r}")
    return int(text)


def range_of(response: HTTPResponse) -> tuple[int, int, int | None] | None:
    """First and last byte, and bytes of the whole where it says so; None if it makes no sense."""
    found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if not found:
        return None
    first, last, total = (None if text is None else int(text) for text in found.groups())
    assert first is not None
    assert last is not None
    if first > last or (total is not None and last >= total):
        return None
    return first, last, total


def body(response: HTTPResponse, watch: Watch) -> Iterator[bytes]:
    """The parts of a body as they come.

    Raises:
        OSError, HTTPException, MayPass: It ended too early, or came too slowly.
    """
    while True:
        try:
            chunk = response.read1(CHUNK)
        except Exception:
            watch.check()
            raise
        watch.count(len(chunk))
        if not chunk:
            return
        yield chunk
