"""Whose Python files may run: those that this user named, known by what is in them.

Data never name code. A plugin file runs when it is named on the command line, in Python or in a run
file that is handed over. What a stage or a stranger left behind (a manifest, the record of a run, a
hardware profile) may name one, too; then it runs only if its very content was named by this user
before, or is trusted once, explicitly. The per-user folder remembers hashes, one small file each.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import sha256
from pathlib import Path
from shlex import quote

from elastic_nas.errors import RunFolderError, UnknownName, UntrustedCode
from elastic_nas.files import user_folder, write_atomic
from elastic_nas.outside import MEGABYTE, read_bytes
from elastic_nas.progress import say

MOST_BYTES = MEGABYTE
"""Of a Python file."""

_ASKED: ContextVar[bool] = ContextVar("_ASKED", default=False)


@contextmanager
def trusting(asked: bool) -> Iterator[None]:
    """Within the block, files that others named are trusted, and remembered, if `asked`."""
    token = _ASKED.set(asked)
    try:
        yield
    finally:
        _ASKED.reset(token)


def read_code(path: Path, named_in: str = "") -> bytes:
    """The content of a Python file that may run: these very bytes, and no later ones.

    Args:
        path: The file.
        named_in: The file from outside that names it; nothing where this user does, who is
            remembered to have done so.

    Raises:
        UnknownName: There is no such file, or it is no file of code.
        UntrustedCode: It is named in a file from outside, and this user never named its content.
    """
    content = read_bytes(path, MOST_BYTES, UnknownName)
    digest = sha256(content).hexdigest()
    if not named_in or _ASKED.get():
        remember(path, digest)
    elif not is_known(digest):
        raise UntrustedCode(
            f"{named_in} names the Python file {path}, which would be executed, and you never "
            f"named a file of this content (SHA-256 {digest[:16]}...). Read it. If you trust it: "
            f"the same command with --trust, or once: elastic-nas trust {quote(str(path))}"
        )
    return content


def remember(path: Path, digest: str) -> None:
    """Let a content run from now on, whoever names it, as this user trusts it."""
    if is_known(digest):
        return
    record = {
        "file": str(path.resolve()),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    try:
        write_atomic(_place(digest), json.dumps(record) + "\n")
    except RunFolderError as error:
        say(f"note: that you trust {path} cannot be remembered: {error}")


def trust(path: Path) -> str:
    """Let a Python file run from now on, whoever names it; returns the hash of its content.

    Raises:
        UnknownName: There is no such file.
    """
    digest = sha256(read_bytes(path, MOST_BYTES, UnknownName)).hexdigest()
    remember(path, digest)
    return digest


def is_known(digest: str) -> bool:
    """Whether this user named a file of this content before."""
    return _place(digest).is_file()


def _place(digest: str) -> Path:
    return user_folder() / "trusted" / digest
