"""Images and what lists them: data files, classes, shards, kept indexes, servers' answers."""

import io
import json
import shutil
import socket
import struct
import tarfile
import threading
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any
from unicodedata import category
from unittest.mock import patch

import numpy as np
from made_shards import samples, write_shards

from elastic_nas.config import DataConfig
from elastic_nas.data import kept as kept_module
from elastic_nas.data import remote, web
from elastic_nas.data.data_file import list_shards
from elastic_nas.data.dataset import load_dataset
from elastic_nas.data.remote import Cache
from elastic_nas.data.shard_source import find_shards
from elastic_nas.data.shards import LocalShard, RemoteShard, index_of
from elastic_nas.yaml_file import parse_yaml
from fuzzing.kinds import Kind, same
from fuzzing.mutate import NASTY, damaged_bytes, damaged_fields
from fuzzing.run_kinds import written
from fuzzing.seeds import Seeds

CLASSES = "classes.txt"


@cache
def _shards(seeds: Seeds) -> Path:
    """A folder of shards."""
    shards = seeds.folder / "shards"
    write_shards(shards, "train", [12, 12])
    write_shards(shards, "test", [6], first=100)
    return shards


# --- lists ---------------------------------------------------------------------------------------


def data_file(seeds: Seeds) -> Kind:
    shards = _shards(seeds)
    text = f"""train: {shards}/train-{{00000..00001}}.tar
test: [{shards}/test-00000.tar]
classes: [ant, bee, cat]
cache_gb: 2.5
"""

    def read(content: bytes, folder: Path) -> Any:
        path = written(folder, "set.yaml", content)
        listed = list_shards(DataConfig(source=str(path)))
        found = find_shards(DataConfig(source=str(path)))
        assert listed is not None
        assert found is not None
        return listed, found

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        said = parse_yaml(content.decode("utf-8-sig"))
        listed, _ = result
        if wrong := same(list(listed.classes), said.get("classes", [])):
            return wrong
        return same(sorted(listed.parts), sorted(said.keys() & {"train", "val", "test"}))

    return Kind("data file", text.encode(), read, judge, "yaml", share=0.5)


def class_list(seeds: Seeds) -> Kind:
    shards = _shards(seeds)

    def read(content: bytes, folder: Path) -> Any:
        place = folder / "listed"
        if not place.exists():
            shutil.copytree(shards, place)
        (place / CLASSES).write_bytes(content)
        listed = list_shards(DataConfig(source=str(place)))
        assert listed is not None
        return find_shards(DataConfig(source=str(place))).classes, listed.classes

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        said = [name.strip() for name in content.decode("utf-8-sig").split("\n") if name.strip()]
        if odd := [name for name in result[1] if any(category(c) == "Cc" for c in name)]:
            return f"a class called {odd[0]!r}"
        return same(list(result[1]), said)

    return Kind("classes.txt", b"ant\nbee\ncat\n", read, judge, share=0.5)


# --- shards --------------------------------------------------------------------------------------


def _tar_fields(content: bytes, rng: Random) -> tuple[bytes, str]:
    """A tar of odd members, or one whose header is changed and its checksum right again."""
    if rng.random() < 0.5:
        return _odd_tar(rng)
    at = 512 * rng.randrange(0, len(content) // 512)
    header = bytearray(content[at : at + 512])
    start, length = rng.choice(
        [(0, 100), (100, 8), (124, 12), (124, 12), (136, 12), (156, 1), (157, 100), (345, 155)]
    )
    odd = rng.choice(
        [
            *NASTY,
            b"777777777777",
            b"\x80" + b"\xff" * 11,
            b"-0000000001",
            b"00000000000",
            b"x",
            b"L",
            b"g",
            b"5",
            b"S",
        ]
    )
    header[start : start + length] = odd[:length].ljust(length, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:at] + bytes(header) + content[at + 512 :], f"header of block {at // 512}"


def _odd_tar(rng: Random) -> tuple[bytes, str]:
    members = samples(range(6))
    at = rng.randrange(len(members))
    name, content = members[at]
    label = rng.choice(
        [*NASTY, b"3", b"-1", b"99999999999", b"0.5", b"cat", b'{"label": 1}', b"\xd9\xa1", b"0\n1"]
    )
    what = rng.choice(["label", "label", "json", "name", "twice", "lose", "image"])
    if what in ("label", "json"):
        ending = "cls" if what == "label" else "json"
        labels = [n for n, _ in members if n.endswith(".cls")]
        chosen = rng.choice(labels)
        members = [
            (n[:-3] + ending if n == chosen else n, label if n == chosen else c) for n, c in members
        ]
    elif what == "name":
        odd = rng.choice(
            [
                "../x.png",
                "/etc/x.png",
                "a\x1b[2J.png",
                "",
                ".png",
                "a" * 300 + ".png",
                "\x00.png",
                "a/../b.png",
            ]
        )
        members[at] = (odd, content)
    elif what == "twice":
        members.insert(rng.randrange(len(members)), members[at])
    elif what == "lose":
        del members[at]
    else:
        members[at] = (name, damaged_bytes(content, rng)[0])
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=rng.choice([0, 1, 2])) as tar:
        for member, data in members:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            try:
                tar.addfile(info, io.BytesIO(data))
            except (ValueError, UnicodeError):
                continue
    return buffer.getvalue(), f"{what} of {name}"


def shard(seeds: Seeds) -> Kind:
    shards = _shards(seeds)

    def read(content: bytes, folder: Path) -> Any:
        place = folder / "shard"
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(folder / "home", ignore_errors=True)
        place.mkdir()
        (place / "train-00000.tar").write_bytes(content)
        shutil.copy(shards / "test-00000.tar", place)
        found = find_shards(DataConfig(source=str(place)))
        assert found is not None
        part = found.parts["train"]
        for row in range(min(len(part.labels), 30)):
            part.images.read(row)
        load_dataset(str(place))
        return found

    def judge(content: bytes, result: Any, sealed: bool) -> str:
        labels: dict[str, bytes] = {}
        with tarfile.open(fileobj=BytesIO(content), mode="r:", errorlevel=2) as tar:
            for member in tar:
                stem, _, ending = member.name.rpartition(".")
                if ending in ("cls", "json") and member.isreg():
                    label = tar.extractfile(member).read().strip()  # type: ignore[union-attr]
                    labels[stem] = (
                        label if ending == "cls" else str(json.loads(label)["label"]).encode()
                    )
        part = result.parts["train"]
        for name, label in zip(part.names, part.labels, strict=True):
            said = labels.get(name.partition("/")[2].rpartition(".")[0])
            known = result.classes[int(label)]
            if said is None or said.decode() != known:
                return f"{name!r} is of {known!r}, and is said to be of {said!r}"
        return ""

    content = (shards / "train-00000.tar").read_bytes()
    return Kind("tar shard", content, read, judge, fields=_tar_fields, share=0.4)


def _other_numbers(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Another place, size or label of an image, another name, or another first line."""
    digest, line, rest = content.split(b"\n", 2)
    what = rng.choice(["number", "number", "rest", "line"])
    if what == "line":
        text, what = damaged_fields(json.loads(line), rng)
        line = text.encode(errors="surrogatepass")
    elif what == "rest":
        rest = damaged_bytes(rest, rng)[0]
    else:
        at = 8 * rng.randrange(3 * json.loads(line)["images"])
        odd = rng.choice([-1, 0, 1, 512, 2**40, 2**62, -(2**63)])
        rest = rest[:at] + struct.pack("<q", odd) + rest[at + 8 :]
    return b"\n".join([digest, line, rest]), what


def _hashed(content: bytes) -> bytes:
    rest = content.partition(b"\n")[2]
    return sha256(rest).hexdigest().encode() + b"\n" + rest


def kept_index(seeds: Seeds) -> Kind:
    """The index of a shard in the per-user folder."""
    shards = _shards(seeds)
    local = LocalShard(shards / "train-00000.tar")
    whole = local.make_index()
    content = kept_module._dumped(whole)

    def read(changed: bytes, folder: Path) -> Any:
        path = kept_module._place(local.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(changed)
        found = find_shards(DataConfig(source=str(shards)))
        assert found is not None
        for row in (0, 11):
            found.parts["train"].images.read(row)
        return index_of(local)

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        """What is damaged is made anew; what is sealed is as it says, and can be."""
        found = [getattr(result, name) for name in ("offsets_N", "sizes_N", "labels_N")]
        known = [getattr(whole, name) for name in ("offsets_N", "sizes_N", "labels_N")]
        alike = all(map(np.array_equal, found, known)) and result.members == whole.members
        if alike:
            return ""
        rest = changed.split(b"\n", 2)[2]
        if not sealed or rest[: 24 * len(result)] != np.stack(found).astype("<i8").tobytes():
            return "not the shard's index, nor what the file says"
        ends = found[0] + found[1]
        return "" if (ends <= whole.size).all() and min(map(np.min, found[:2])) >= 0 else "outside"

    share = {"seal": _hashed, "fields": _other_numbers, "share": 0.5}
    return Kind("kept index", content, read, judge, **share)


# --- servers -------------------------------------------------------------------------------------


def answer(seeds: Seeds) -> Kind:
    """All that a server sends: status, headers and a shard."""
    shards = _shards(seeds)
    body = (shards / "train-00000.tar").read_bytes()
    head = (
        'HTTP/1.1 200 OK\r\nContent-Type: application/x-tar\r\nETag: "1"\r\n'
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )

    def fields(content: bytes, rng: Random) -> tuple[bytes, str]:
        lines = head.split("\r\n")[:-2]
        odd = rng.choice(
            [
                "Content-Length: -1",
                "Content-Length: 99999999999999999999",
                "Content-Length: 1e3",
                "Content-Length: 5",
                "Content-Length: \u0663",
                "Transfer-Encoding: chunked",
                "Content-Range: bytes 5-9/10",
                "Location: file:///etc/passwd",
                "Location: http://127.0.0.1:1/x",
                "Location: gopher://x",
                "X: " + "y" * 70000,
                "ETag: \x1b[2J",
                "Content-Encoding: gzip",
                "Location: /a\x1b[31m",
            ]
        )
        status = rng.choice(
            [
                "HTTP/1.1 200 OK",
                "HTTP/1.1 206 Partial",
                "HTTP/1.1 302 Found",
                "HTTP/1.1 404 \x1b[2J\x1b[31mno",
                "HTTP/1.1 500 " + "x" * 9000,
                "HTTP/1.1 999 ?",
                "ICY 200 OK",
                "HTTP/9.9 -1 x",
                "HTTP/1.1 204 No Content",
                "HTTP/1.1 416 Range",
                "",
            ]
        )
        if rng.random() < 0.5:
            lines[0] = status
        if rng.random() < 0.8:
            lines.insert(rng.randrange(1, len(lines) + 1), odd)
            if odd.split(":")[0] == "Content-Length":
                lines = [line for line in lines if line == odd or not line.startswith("Content-L")]
        if rng.random() < 0.2:
            lines *= 200
        text = "\r\n".join([*lines, "", ""]).encode(errors="replace")
        return text + body, f"{lines[0][:40]} | {odd[:40]}"

    def read(changed: bytes, folder: Path) -> Any:
        shutil.rmtree(folder / "home", ignore_errors=True)
        impatient = patch.multiple(remote, FIRST_WAIT_S=0.0, TRIES=2)
        with _Serving(changed) as url, impatient, patch.object(web, "STALLED_S", 0.3):
            shard = RemoteShard(url, Cache(50_000_000))
            index_of(shard)
            return remote._path(url).read_bytes()

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        after = changed.partition(b"\r\n\r\n")[2]
        loose = after or changed.partition(b"\n\n")[2]
        return (
            ""
            if result in (after, loose, body) or after.startswith(result)
            else "another shard than was sent"
        )

    return Kind("server's answer", head.encode() + body, read, judge, fields=fields, share=0.2)


class _Serving:
    """Answers every request with the same bytes."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}/train-00000.tar"

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            try:
                with connection:
                    connection.settimeout(2)
                    while b"\r\n\r\n" not in connection.recv(65536):
                        pass
                    connection.sendall(self._content)
            except OSError:
                continue
