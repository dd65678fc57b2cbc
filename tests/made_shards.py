"""Tar shards for tests, and a server of them that misbehaves on request."""

import io
import tarfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(number: int, size: int = 12) -> np.ndarray:
    """A picture of its own for each number."""
    return np.random.default_rng(number).integers(0, 255, (size, size, 3), dtype=np.uint8)


def png(number: int, size: int = 12) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(number, size)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], **options: int) -> Path:
    """A tar of these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(numbers: range, classes: int = 3) -> list[tuple[str, bytes]]:
    """Image n is of class n modulo `classes`."""
    return [
        member
        for n in numbers
        for member in ((f"{n:05}.png", png(n)), (f"{n:05}.cls", b"%d\n" % (n % classes)))
    ]


def write_shards(folder: Path, part: str, sizes: list[int], first: int = 0) -> list[Path]:
    """Shards of so many images each, ``train-00000.tar`` and so on."""
    paths = []
    for number, size in enumerate(sizes):
        path = folder / f"{part}-{number:05}.tar"
        paths.append(write_tar(path, samples(range(first, first + size))))
        first += size
    return paths


class Server:
    """Serves a folder; `faults` are used up, one a request.

    Faults: a number is a status, ``stall`` sends half and then nothing, ``cut`` sends half,
    ``drop`` closes at once, ``other`` changes the file's version before it answers.
    """

    def __init__(self, folder: Path, *, ranges: bool = True, length: bool = True) -> None:
        self.folder, self.ranges, self.length = folder, ranges, length
        self.faults: list[int | str] = []
        self.asked: list[tuple[str, str | None]] = []
        self.version = 1
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def whole(self) -> Counter[str]:
        """How often each file was asked for from its beginning."""
        return Counter(name for name, part in self.asked if part is None)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append((request.path.lstrip("/"), asked))
        fault = self.faults.pop(0) if self.faults else None
        path = self.folder / request.path.lstrip("/")
        if fault == "drop":
            return
        if isinstance(fault, int) or not path.exists():
            request.send_error(fault if isinstance(fault, int) else 404)
            return
        if fault == "other":
            self.version += 1
            path.write_bytes(path.read_bytes()[::-1])
        content, first, partly = path.read_bytes(), 0, False
        if asked and self.ranges and request.headers.get("If-Range") in (None, self.tag):
            begin, _, end = asked.removeprefix("bytes=").partition("-")
            first, last, partly = int(begin), int(end or len(content) - 1), True
            total, content = len(content), content[first : last + 1]
        request.send_response(206 if partly else 200)
        if partly:
            request.send_header("Content-Range", f"bytes {first}-{last}/{total}")
        request.send_header("ETag", self.tag)
        if self.length:
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        half = content[: len(content) // 2] if fault in ("stall", "cut") else content
        request.wfile.write(half)
        if fault == "stall":
            time.sleep(0.6)

    @property
    def tag(self) -> str:
        return f'"{self.version}"'
