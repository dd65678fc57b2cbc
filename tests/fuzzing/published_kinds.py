"""Published supernets: archives and pickles from anywhere."""

import io
import pickle
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from ofa_reference import file_shapes, random_state

from elastic_nas.training.ofa_checkpoint import read_ofa
from fuzzing.kinds import Kind
from fuzzing.mutate import damaged_bytes
from fuzzing.run_kinds import written
from fuzzing.seeds import Seeds


def _rezipped(content: bytes, changed: dict[str, bytes]) -> bytes:
    """The archive with other members, and checksums that are right."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, changed.get(entry.filename) or old.read(entry.filename))
    return buffer.getvalue()


PICKLES = [
    b"\x80\x02" + b"(" * 2_000_000 + b".",
    b"\x80\x02X\x04\x00\x00\x00aaaaq\x00" + b"h\x00h\x00\x86q\x00" * 40 + b".",
    b"\x80\x02c__builtin__\nbytearray\n\x8a\x08\x00\x00\x00\x00\x02\x00\x00\x00\x85R.",
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00\x8a\x06\x00\x00\x00\x00\x00\x01\x85K\x01\x85\x89N\x89tR.",
    b"\x80\x02cbuiltins\nset\n]q\x00(h\x00h\x00e\x85R.",
    b"\x80\x02ccollections\nCounter\n\x8a\x05\x00\x00\x00\x00\x01\x85R.",
    b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.",
    pickle.dumps({"state_dict": {"a": [1] * 10}}, 2),
    b"\x80\x02ctorch\nzeros\n\x8a\x05\x00\x00\x00\x00\x02\x85R.",
]


def published(seeds: Seeds) -> Kind:
    return _published(seeds)


def published_long_ago(seeds: Seeds) -> Kind:
    return _published(seeds, legacy=True)


def _other_pickles(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Of the old form: its first 60 kB are pickles, what follows is numbers."""
    own = rng.random() < 0.7
    head = damaged_bytes(content[:60_000], rng)[0] if own else rng.choice(PICKLES)
    return head + content[60_000:], "the pickles" if own else "a foreign pickle"


def _other_members(content: bytes, rng: Random) -> tuple[bytes, str]:
    """An archive with one other member, whose checksum is right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        data = next(name for name in names if name.endswith("data.pkl"))
        numbers = [name for name in names if "/data/" in name]
        what = rng.choice(["pickle", "pickle", "foreign pickle", "number", "member"])
        name = {"number": rng.choice(numbers), "member": rng.choice(names)}.get(what, data)
        member = archive.read(name)
    if what == "foreign pickle":
        member = rng.choice(PICKLES)
    elif what == "number":
        at = 4 * rng.randrange(max(1, len(member) // 4))
        odd = np.float32(rng.choice([689.0, 1e30, np.nan, np.inf])).tobytes()
        member = member[:at] + odd + member[at + 4 :]
    else:
        member = damaged_bytes(member, rng)[0]
    return _rezipped(content, {name: member}), f"sealed archive, another {what}"


def _published(seeds: Seeds, *, legacy: bool = False) -> Kind:
    state = random_state(file_shapes(1.0, 3))
    buffer = io.BytesIO()
    torch.save({"state_dict": state}, buffer, _use_new_zipfile_serialization=not legacy)
    content = buffer.getvalue()
    path = seeds.folder / f"published{legacy:d}"
    path.write_bytes(content)
    before = {name: tensor.clone() for name, tensor in read_ofa(path)[1].state_dict().items()}

    def read(changed: bytes, folder: Path) -> Any:
        _, supernet = read_ofa(written(folder, "published", changed))
        return supernet.state_dict()

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        if not all(tensor.isfinite().all() for tensor in result.values()):
            return "weights that are not finite"
        if legacy or _sound(changed):
            return ""
        other = [name for name in before if not torch.equal(result[name], before[name])]
        return f"{len(other)} tensors are not those of its checksums" if other else ""

    kind = f"OFA checkpoint{' (old form)' if legacy else ''}"
    fields = _other_pickles if legacy else _other_members
    return Kind(kind, content, read, judge, fields=fields, share=0.05)


def _sound(content: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
