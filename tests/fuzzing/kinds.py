"""What a fuzzer needs of one kind of file: a valid one, how it is read, and what it may lead to."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from typer.testing import CliRunner

from elastic_nas.cli.app import app
from elastic_nas.errors import MOST_CHARACTERS, ElasticNasError
from elastic_nas.yaml_file import parse_yaml
from fuzzing.mutate import damaged_bytes, damaged_cells, damaged_fields

FIELDS: dict[str, Callable[[bytes], Any]] = {
    "json": json.loads,
    "yaml": lambda content: parse_yaml(content.decode()),
}


class RefusedError(Exception):
    """A command, or a kit on a board, ended with a message."""


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        name: For people.
        content: A valid file.
        read: Reads a content, in a folder of its own, as commands do; raises an error of this
            package or `RefusedError` where it is refused.
        judge: What is wrong with what a changed content was accepted as; empty if nothing. Gets
            the content, what `read` returned, and whether the content was sealed.
        form: ``json``, ``yaml``, ``lines`` (of JSON), ``csv`` or ``bytes``.
        seal: The content with hashes that are right again, as one who means harm would write.
        fields: Own damage to fields of a binary file.
        share: How often it is tried, in multiples of the others: slow readers less often.
    """

    name: str
    content: bytes
    read: Callable[[bytes, Path], Any]
    judge: Callable[[bytes, Any, bool], str]
    form: str = "bytes"
    seal: Callable[[bytes], bytes] | None = None
    fields: Callable[[bytes, Random], tuple[bytes, str]] | None = None
    share: float = 1.0

    def damaged(self, rng: Random) -> tuple[bytes, str, bool]:
        """A damaged content, what was done, and whether its hashes are right again."""
        if rng.random() < 0.4 or (self.form == "bytes" and self.fields is None):
            content, done = damaged_bytes(self.content, rng)
        elif self.fields is not None:
            content, done = self.fields(self.content, rng)
        elif self.form == "csv":
            text, done = damaged_cells(self.content.decode(), rng)
            content = text.encode(errors="replace")
        elif self.form == "lines":
            content, done = damaged_line(self.content, rng)
        else:
            text, done = damaged_fields(FIELDS[self.form](self.content), rng)
            content = text.encode(errors="surrogatepass")
        if self.seal is None or rng.random() < 0.5:
            return content, done, False
        try:
            return self.seal(content), f"{done}, sealed", True
        except Exception:  # nothing of which a hash could be made
            return content, done, False


def damaged_line(content: bytes, rng: Random) -> tuple[bytes, str]:
    """JSON lines of which one is changed, lost, doubled or moved."""
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    name = rng.choice(["field"] * 6 + ["lose", "double", "move", "unfinished"])
    if name == "field":
        text, name = damaged_fields(json.loads(lines[at]), rng)
        lines[at] = text.encode(errors="surrogatepass") + b"\n"
    elif name == "lose":
        del lines[at]
    elif name == "double":
        lines.insert(rng.randrange(len(lines) + 1), lines[at])
    elif name == "move":
        lines.append(lines.pop(at))
    else:
        lines[at] = lines[at][: rng.randrange(len(lines[at]))]
    return b"".join(lines), f"{name} in line {at + 1}"


def command(*arguments: object) -> str:
    """What a command prints that succeeds.

    Raises:
        RefusedError: It ends with status 1 or 2 and one message.
    """
    ended = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    check_text(ended.stdout, most=None)
    if ended.exit_code == 0:
        check_text(ended.stderr, most=None)
        return ended.stdout
    assert ended.exit_code in (1, 2), f"exit status {ended.exit_code}: {ended.stderr}"
    before, _, message = ended.stderr.partition("error: ")
    check_text(before, most=None)
    if ended.exit_code == 1:
        assert message or not ended.stderr, "no message"
    raise RefusedError(message.removesuffix("\n"))


def check_text(text: str, most: int | None = MOST_CHARACTERS) -> None:
    """Refuse what a terminal does not show as it stands, and messages that are too long."""
    odd = next((c for c in text if not c.isprintable() and c != "\n"), None)
    assert odd is None, f"prints the character {odd!r}"
    assert most is None or len(text) <= most, f"a message of {len(text)} characters"


def same(found: Any, said: Any, where: str = "") -> str:
    """Where two values differ, types too (1 and 1.0 are one number); nothing if nowhere."""
    if isinstance(found, dict) and isinstance(said, dict):
        if found.keys() != said.keys():
            return f"{where}: keys {sorted(map(str, found.keys() ^ said.keys()))[:5]}"
        return next(
            (w for key in found if (w := same(found[key], said[key], f"{where}/{key}"))), ""
        )
    if isinstance(found, list | tuple) and isinstance(said, list | tuple):
        if len(found) != len(said):
            return f"{where}: {len(found)} for {len(said)}"
        pairs = enumerate(zip(found, said, strict=True))
        return next((w for n, (a, b) in pairs if (w := same(a, b, f"{where}/{n}"))), "")
    numbers = all(type(value) in (int, float) for value in (found, said))
    equal = found == said if numbers or type(found) is type(said) else False
    return "" if equal else f"{where}: {found!r:.60} for {said!r:.60}"


def nothing_wrong(content: bytes, result: Any, sealed: bool) -> str:
    """For what promises nothing: that it is read or refused is all."""
    return ""


def unchanged_json(original: bytes, *apart: str) -> Callable[[bytes], str]:
    """How a JSON text differs from the original in meaning, but for the keys `apart`."""
    before = {key: item for key, item in json.loads(original).items() if key not in apart}

    def differs(content: bytes) -> str:
        try:
            now = json.loads(content.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            return f"no JSON ({error!s:.60})"
        now = (
            {key: item for key, item in now.items() if key not in apart}
            if isinstance(now, dict)
            else now
        )
        return same(now, before)

    return differs


ALLOWED = (ElasticNasError, RefusedError)
