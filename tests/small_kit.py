"""A kit of one child, small enough to be run in tests."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from zipfile import ZipFile

from elastic_nas.kit_figures import digest
from elastic_nas.latency.devices import Device
from elastic_nas.latency.kit import write_kit
from elastic_nas.latency.plan import Draw
from elastic_nas.network import Network

BOARD = Device("board", "", "onnxruntime_cpu", 1, "fp32", generic=False)
NETWORK = Network("tiny:size=8@smallest", 10)
DRAW = Draw(3, 3)


@dataclass(frozen=True)
class Unchanged:
    """ONNX Runtime as far as a kit needs it on the host."""

    name: str = "onnxruntime"
    provider: str = "CPUExecutionProvider"
    precision: ClassVar[str] = "fp32"

    def describe(self) -> dict[str, Any]:
        rest = {"threads": 1, "graph_optimization": "all"}
        return {"name": self.name, "version": "1.0", "provider": self.provider, **rest}

    def convert(self, model: bytes, input_shape: tuple[int, ...]) -> bytes:
        return model


def written(out: Path, runtime: Any = None, device: Device = BOARD) -> Path:
    write_kit(NETWORK, device, runtime or Unchanged(), out, DRAW)
    return out


def unpacked(kit: Path, folder: Path) -> Path:
    with ZipFile(kit) as file:
        file.extractall(folder)
    return folder


def command(folder: Path, *options: str, python: str = sys.executable) -> list[str]:
    return [python, "-E", "-s", str(folder / "run.py"), *options]


def environment_for(folder: Path) -> dict[str, str]:
    """Own locks, one thread; nothing else of this package's tests."""
    return {"PATH": os.environ["PATH"], "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}


def run(folder: Path, *options: str, python: str = sys.executable) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(folder, *options, python=python),
        cwd=folder,
        env=environment_for(folder),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def rewritten(path: Path, content: dict[str, Any]) -> Path:
    """The content in a file, with a hash that is right."""
    path.write_text(json.dumps({**content, "sha256": digest(content)}))
    return path


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))
