"""Checkpoints: their metadata, their list of tensors, their numbers."""

import json
import struct
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import safetensors.torch
import torch

from elastic_nas.network import Network
from elastic_nas.training.checkpoint import load_checkpoint
from fuzzing.kinds import Kind, same
from fuzzing.mutate import damaged_fields
from fuzzing.run_kinds import written
from fuzzing.seeds import Seeds


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensors of a safetensors file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _joined(header: str, data: bytes) -> bytes:
    text = header.encode(errors="surrogatepass")
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def _header_fields(content: bytes, rng: Random) -> tuple[bytes, str]:
    """Damage to what a checkpoint says of itself, to its list of tensors, or to a tensor."""
    header, data = _parts(content)
    facts = json.loads(header["__metadata__"]["elastic_nas"])
    what = rng.choice(["facts", "facts", "facts", "header", "tensor", "dtype", "schema"])
    if what == "facts":
        text, done = damaged_fields(facts, rng)
        header["__metadata__"]["elastic_nas"] = text.encode(errors="replace").decode()
        return _joined(json.dumps(header), data), f"facts: {done}"
    if what == "header":
        text, done = damaged_fields(header, rng)
        return _joined(text, data), f"header: {done}"
    if what == "schema":
        facts["schema"] = "elastic-supernet/1"
        header["__metadata__"]["elastic_nas"] = json.dumps(facts)
        data = _changed_float(data, rng)
        return _joined(json.dumps(header), data), "older schema and another weight"
    if what == "tensor":
        return _joined(json.dumps(header), _changed_float(data, rng)), "another weight"
    name = rng.choice([name for name in header if name != "__metadata__"])
    header[name]["dtype"] = rng.choice(
        ["I32", "U32", "F64", "F16", "BF16", "BOOL", "F8_E4M3", "C64"]
    )
    return _joined(json.dumps(header), data), f"dtype of {name}"


def _changed_float(data: bytes, rng: Random) -> bytes:
    at = 4 * rng.randrange(len(data) // 4)
    value = rng.choice([1e9, -1.0, float("nan"), float("inf"), 0.0, 1e-40])
    return data[:at] + struct.pack("<f", value) + data[at + 4 :]


def _sealed(content: bytes) -> bytes:
    """With the hash that a writer would give."""
    header, data = _parts(content)
    facts = json.loads(header["__metadata__"]["elastic_nas"])
    facts.pop("sha256", None)
    known = sha256(json.dumps(facts, sort_keys=True).encode())
    tensors = safetensors.torch.load(content)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        known.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        known.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    facts["sha256"] = known.hexdigest()
    header["__metadata__"]["elastic_nas"] = json.dumps(facts)
    return _joined(json.dumps(header), data)


def checkpoint(seeds: Seeds) -> Kind:
    content = (seeds.run / "supernet.safetensors").read_bytes()
    network = Network("tiny:size=8", 10)
    supernet = network.supernet()

    def read(changed: bytes, folder: Path) -> Any:
        path = written(folder, "supernet.safetensors", changed)
        at = load_checkpoint(path, network, supernet)
        return at, {name: tensor.clone() for name, tensor in supernet.state_dict().items()}

    def judge(changed: bytes, result: Any, sealed: bool) -> str:
        at, found = result
        file = safetensors.torch.load(changed)
        (header, _), (before, _) = _parts(changed), _parts(content)
        facts = json.loads(header["__metadata__"]["elastic_nas"])
        if not sealed and (
            facts != json.loads(before["__metadata__"]["elastic_nas"]) or not _equal(file, content)
        ):
            return "other contents than the hash is of"
        if same((at.step, at.steps), (facts["step"], facts["steps"])):
            return "another step than it says"
        averaged = any(name.startswith("average.") for name in file)
        for name, tensor in found.items():
            said = file[f"{'average' if averaged else 'weights'}.{name}"]
            if said.dtype != tensor.dtype:
                return f"{name} is of {said.dtype}"
            if not torch.equal(said, tensor) or not tensor.isfinite().all():
                return f"{name} is not what the file says, or not finite"
        return ""

    return Kind("checkpoint", content, read, judge, seal=_sealed, fields=_header_fields, share=0.6)


def _equal(found: dict[str, Any], content: bytes) -> bool:
    before = safetensors.torch.load(content)
    return found.keys() == before.keys() and all(
        torch.equal(found[n].view(torch.uint8).flatten(), before[n].view(torch.uint8).flatten())
        for n in before
        if n in found
    )
